"""Scores say their protocol, and a page refuses results of two."""

import json

import pytest

from pal.core.errors import DataError
from pal.core.settings import bundled
from pal.data.protocols import RULES, describe_stamp
from pal.data.samples import load_stamped_samples
from pal.data.settings import SourceSettings
from tests.benchmark import pages
from tests.jobs import command

SAMPLE = str(bundled("sample", "esconv"))


def stamped(**given):
    return load_stamped_samples(SAMPLE, "test", SourceSettings(**given))


def answers(path, samples):
    rows = [
        {"id": s.id, "response": s.response, "reference": s.response, "strategy": s.strategy,
         "reference_strategy": s.strategy}
        for s in samples
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_one_dialogue_of_ones_own_is_said_in_plain_words():
    stamp = {
        "name": "hub", "rule": "after_seeker", "labels": "ESConv's eight strategies",
        "dialogues": 1, "samples": 1, "hash": "ab12", "split": None, "bundled": False,
    }  # fmt: skip
    said = (
        "Data: 1 dialogue (not a split of ESConv that is known; hash ab12), 1 sample, chosen as in "
        "{} (supporter turns that follow a seeker turn); ESConv's eight strategies."
    )
    assert describe_stamp(stamp) == said.format("the protocol hub")
    assert describe_stamp(stamp | {"name": None}) == said.format("no protocol that has a name")


@pytest.mark.parametrize("name", ["hub", "all_turns", "not_first", "paper_712"])
def test_scores_carry_the_protocol_of_the_samples(tmp_path, name, capsys):
    samples, stamp = stamped(protocol=name)
    path, output = answers(tmp_path / "a.jsonl", samples), tmp_path / "s.json"
    arguments = [f"predictions={path}", f"input={SAMPLE}", "split=test", f"data.protocol={name}"]
    assert command("eval", *arguments, "metrics.names=[bleu]", f"output={output}") == 0
    assert json.loads(output.read_text())["protocol"] == stamp
    table = capsys.readouterr().out
    assert f", chosen as in the protocol {name} (" in table
    assert RULES[stamp["rule"]] in table


def test_scores_of_responses_alone_take_it_from_the_record_beside_them(tmp_path):
    samples, stamp = stamped(protocol="not_first")
    path, output = answers(tmp_path / "a.jsonl", samples), tmp_path / "s.json"
    given = [f"predictions={path}", "metrics.names=[bleu]", f"output={output}"]
    assert command("eval", *given) == 0
    assert json.loads(output.read_text())["protocol"] is None
    (tmp_path / "a.jsonl.run.json").write_text(json.dumps({"protocol": stamp}))
    assert command("eval", *given, "overwrite=true") == 0
    assert json.loads(output.read_text())["protocol"] == stamp


def test_responses_of_another_protocol_do_not_fit_the_samples(tmp_path, capsys):
    path = answers(tmp_path / "b.jsonl", stamped(protocol="all_turns")[0])
    arguments = [f"predictions={path}", f"input={SAMPLE}", "split=test"]
    assert command("eval", *arguments, "data.protocol=hub", "metrics.names=[bleu]") == 2
    assert "b.jsonl" in capsys.readouterr().err


def test_a_page_refuses_results_of_two_protocols(tmp_path, capsys):
    files = []
    for name in ("hub", "hub", "all_turns"):
        files.append(tmp_path / f"{len(files)}.json")
        part = {**pages.results(), "protocol": stamped(protocol=name)[1]}
        files[-1].write_text(json.dumps(part))
    page = tmp_path / "p.html"
    given = f"report.include=[{files[0]}, {files[1]}]"
    assert command("report", given, f"output={page}") == 0
    assert "protocol hub" in page.read_text()
    given = f"report.include=[{files[0]}, {files[2]}]"
    assert command("report", given, f"output={tmp_path / 'q.html'}") == 2
    error = capsys.readouterr().err
    assert "are of different protocols (protocols hub and all_turns; samples" in error
    assert not (tmp_path / "q.html").exists()


def test_results_written_by_the_benchmark_refuse_others_too():
    from pal.benchmark.report.page import check_protocols

    one, other = (
        {**pages.results(), "protocol": stamped(protocol=n)[1]} for n in ("hub", "all_turns")
    )
    check_protocols([("these results", one), ("a.json", pages.analysis()), ("b.json", one)])
    with pytest.raises(DataError, match=r"these results and b\.json"):
        check_protocols([("these results", one), ("b.json", other)])
