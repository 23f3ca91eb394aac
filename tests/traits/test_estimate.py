"""An estimate of a whole study: every stage, exactly as far as answers do not decide it."""

import json
import re
import zlib

import pytest

from pal.core.files import write_jsonl
from pal.llm.rehearsal import stand_in
from pal.llm.structured import parse
from pal.traits import forms
from tests.jobs import ESCONV, command
from tests.llm.server import FakeServer
from tests.traits.fakes import World, answer, planted
from tests.traits.test_chain import endpoint


class Keeping(World):
    """Keeps every card, and writes a different one for every text, as an estimate supposes."""

    def __call__(self, name, system, user):
        value = super().__call__(name, system, user)
        more = f" {zlib.crc32(user.encode())}"
        if name == "verdict":
            return {**value, "keep": True}
        if name == "card":
            return {**value, "description": value["description"] + more}
        return value


def reply(body):
    """Answer as the world does, dialogues by their seeds."""
    text = answer(Keeping(planted(40)))(body)
    if "seed" not in body or "dialog" not in (value := json.loads(text)):
        return text
    value["dialog"][0]["seeker"] += f" {body['seed']}"
    return value


def arguments(folder, server, *more):
    return ["traits", "run", f"output_dir={folder / 'out'}", "split=test", "limit=3",
            f"traits.personas={folder / 'p.jsonl'}",
            f"traits.corpora={{esconv: {{input: {ESCONV}}}}}", "traits.form=short",
            "traits.conditions=[none, both]", *endpoint(server, folder), *more]  # fmt: skip


def calls(text):
    return {
        name: int(count.replace(",", ""))
        for name, count in re.findall(r"^\| ([\w-]+) \| ([\d,]+) \|", text, re.MULTILINE)
    }


def test_all_stages_are_estimated_and_what_is_done_is_not(tmp_path, capsys):
    write_jsonl(tmp_path / "p.jsonl", [{"persona": f"Case {n}. A clerk."} for n in range(2)])
    with FakeServer(reply) as server:
        estimate = arguments(tmp_path, server, "llm.estimate_only=true", "statistics.resamples=199")
        assert command(*estimate) == 0
        assert server.requests == []
        assert not (tmp_path / "out").exists()
        found = calls(capsys.readouterr().out)
        assert found["esconv-cards"] == found["esconv-filter"] == 3
        assert found["esconv-describe"] == 6
        assert found["esconv-measure"] == 3 * 48
        assert found["esconv-continue"] == 6
        assert found["personas-expand"] == 2
        assert found["persona-measure"] == found["without_persona-measure"] == 2 * 48
        assert found.pop("all") == sum(found.values())
        whole = arguments(tmp_path, server, "statistics.resamples=199")
        assert command(*whole) == 0
        asked = len(server.requests)
        assert asked == sum(found.values())
        capsys.readouterr()
        assert command(*estimate) == 0
        kept = f"| nothing left to ask: the answers are kept in {tmp_path / 'cache.sqlite'}; "
        assert kept in capsys.readouterr().out
        assert command(*arguments(tmp_path, server, "limit=4", "llm.estimate_only=true")) == 0
        more = calls(capsys.readouterr().out)
        assert more["esconv-cards"] == 1
        assert more["esconv-measure"] == 48
        assert len(server.requests) == asked


@pytest.mark.parametrize(
    "schema",
    [forms.CARD, forms.EXPANDED, forms.VERDICT, forms.ANSWER, None,
     forms.dialog_schema((6, 60), ["Question", "Others"])],
)  # fmt: skip
def test_a_stand_in_has_the_form_that_is_asked_for(schema):
    value = stand_in(schema)
    if schema is None:
        assert len(value.split()) > 10
    else:
        assert parse(json.dumps(value), schema) == (value, None)
