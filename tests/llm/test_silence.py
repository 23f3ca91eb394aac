"""An endpoint that gives nothing leaves no result that counts as finished, whatever the command."""

import json

import pytest

from pal.core.errors import PalError
from pal.llm.base import Outcome, how_to_repeat, refuse_silence
from tests.campaign.commands import anybody
from tests.jobs import ESCONV, command
from tests.llm.server import FakeServer

TEST = ["split=test", f"input={ESCONV}"]
ONE = [*TEST, "limit=1"]
COMMANDS = {
    "annotate": ["annotate", "annotate.extractor=llm", *ONE],
    "annotate, knowledge": ["annotate", "annotate.knowledge=llm", *ONE],
    "judge ratings": ["judge", "ratings", "judging.items=2", *TEST],
    "judge pairs": ["judge", "pairs", "judging.items=2", *TEST],
    "traits cards": ["traits", "cards", *ONE],
    "answer": ["answer", *ONE],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_got_no_answer_at_all_is_run_again(name, tmp_path, capsys):
    call = [*COMMANDS[name], f"output={tmp_path / 'out.json'}{'' if 'judge' in name else 'l'}"]
    if "judge" in name:
        files = {letter: tmp_path / f"{letter}.jsonl" for letter in "ab"}
        for letter, path in files.items():
            write_responses(path, letter)
        named = ", ".join(f"{letter}: {path}" for letter, path in files.items())
        call += [f"judging.systems={{{named}}}", "statistics.resamples=199"]
    down = True

    def faults(number, body):
        return "500" if down else None

    with FakeServer(anybody, faults) as server:
        call += [f"llm.base_url={server.url}", "llm.model=m", "llm.backoff=0.01",
                 "llm.max_attempts=2", f"llm.cache={tmp_path / 'cache.sqlite'}"]  # fmt: skip
        assert command(*call) == 2
        said = capsys.readouterr().err
        assert said.count("pal: error: ") == 1
        assert "run the same command again" in said
        assert not list(tmp_path.glob("out*"))
        down = False
        assert command(*call) == 0
        assert list(tmp_path.glob("out*"))


def write_responses(path, word):
    from pal.data.samples import build_samples
    from pal.data.splits import load_split

    samples = build_samples(load_split(str(ESCONV), "test"), "evaluation")
    rows = [{"id": sample.id, "response": f"I hear {word}."} for sample in samples]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


GAVE_UP = "gave up after 2 attempts: Connection error."


def test_some_answers_are_a_result_and_so_is_a_refusal():
    refuse_silence([], "x")
    refuse_silence([Outcome("1", "yes", None), Outcome("2", None, GAVE_UP)], "x")
    refuse_silence([Outcome("1", None, "refused"), Outcome("2", None, GAVE_UP)], "x")
    with pytest.raises(PalError, match="x: none of 1 requests got an answer, the last: gave up"):
        refuse_silence([Outcome("1", None, GAVE_UP)], "x")
    rejected = "rejected by the server: Error code: 400"
    with pytest.raises(PalError, match="none of 2 requests got an answer, the last: rejected"):
        refuse_silence([Outcome("1", None, GAVE_UP), Outcome("2", None, rejected)], "x")


def test_only_what_may_pass_is_worth_another_run():
    assert how_to_repeat([{"reason": "refused"}]) == ""
    assert "overwrite=true" in how_to_repeat([{"reason": "refused"}, {"reason": GAVE_UP}])
