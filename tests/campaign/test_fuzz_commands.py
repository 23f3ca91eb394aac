"""Whole commands on damaged inputs: done or refused in one line, and what they write is sound.

    pytest tests/campaign/test_fuzz_commands.py                # about 100 inputs
    pytest -m campaign tests/campaign/test_fuzz_commands.py    # 6,000; PAL_FUZZ changes it

One file that a command reads is damaged: dialogues, responses, cards, measurements, sheets, keys,
documents of results, the records beside them, or the database of a study.
"""

import json
import os
from pathlib import Path

import pytest

from pal.data.samples import build_samples
from pal.data.splits import load_split
from pal.data.strategies import STRATEGIES
from tests.campaign.commands import anybody, fill_in, people, step, wing, write_rows
from tests.campaign.damaging import run_damaged
from tests.jobs import ESCONV, command
from tests.llm.server import FakeServer

QUICK = 80
MANY = int(os.environ.get("PAL_FUZZ", "6000"))
FEW = "statistics.resamples=199"


def make_inputs(folder):
    """Write what the commands read; return the commands by name: arguments, files, output."""
    rows = [json.loads(line) for line in (ESCONV / "test.jsonl").read_text().splitlines()[:8]]
    write_rows(folder / "rest.jsonl", rows[4:])
    rows = rows[:4]
    for row in rows:
        for turn in row["dialog"]:
            turn["persona"] = ["I fly.", "I rent."]
    pes = folder / "pes.jsonl"
    write_rows(pes, rows)
    files = {"pes": pes}
    samples = build_samples(load_split(str(pes), None), "evaluation")
    for number, name in enumerate("ab"):
        files[name] = folder / f"{name}.jsonl"
        write_rows(files[name], [
            {"id": s.id, "strategy": STRATEGIES[(place + number) % 8], "reference": s.response,
             "response": f"I hear {name} in turn {place}. Why?", "persona": ["I fly."],
             "strategy_probs": dict.fromkeys(STRATEGIES, 0.125), "alpha": 0.5, "tokens": 9,
             "reference_strategy": s.strategy}
            for place, s in enumerate(samples)
        ])  # fmt: skip
    systems = f"{{a: {files['a']}, b: {files['b']}}}"
    write_rows(folder / "labelled.jsonl", [
        {"text": text, "label": label, "source": f"s{n}", "category": "everyday"}
        for n in range(4) for text, label in (("I want to die.", "crisis"), ("I swim.", "none"))
    ])  # fmt: skip
    write_rows(folder / "people.jsonl", [{"persona": f"Case {n}. A clerk."} for n in range(6)])
    embedded = ["metrics.embedder=null"]
    made = {}

    def make(name, *arguments, output, reads):
        call = [*map(str, arguments)]
        assert command(*call, f"output={folder / output}") == 0, call
        made[name] = call, [*map(Path, reads)], output
        return folder / output

    both = [pes, files["a"], files["b"]]
    scores = make("eval", "eval", f"predictions={files['a']}", f"input={pes}", *embedded,
                  output="scores.json", reads=[pes, files["a"]])  # fmt: skip
    analysis = make("analyze", "analyze", f"input={pes}", f"analyze.systems={systems}", *embedded,
                    output="analysis.json", reads=both)  # fmt: skip
    audit = make("audit", "audit", f"data.train={pes}", f"data.test={folder / 'rest.jsonl'}",
                 "fix=true", output="audit.json", reads=[pes, folder / "rest.jsonl"])  # fmt: skip
    make("export-task", "export-task", f"input={pes}", output="task", reads=[pes])
    sheets = make("human-eval export", "human-eval", "export", f"input={pes}",
                  "human_eval.items=6", f"human_eval.systems={systems}", output="export",
                  reads=both)  # fmt: skip
    fill_in(sheets / "for_raters" / "sheet.csv", folder / "sheet.csv")
    votes = make("human-eval score", "human-eval", "score", f"input={sheets}",
                 f"human_eval.answers=[{folder / 'sheet.csv'}]", output="votes.json",
                 reads=[folder / "sheet.csv", *sheets.rglob("key.json"),
                        sheets / "run.json"])  # fmt: skip
    make("human-eval personas", "human-eval", "personas", f"input={pes}", "human_eval.items=6",
         output="personas", reads=[pes])  # fmt: skip
    make("guard eval", "guard", "eval", f"input={folder / 'labelled.jsonl'}", output="guard.json",
         reads=[folder / "labelled.jsonl"])  # fmt: skip
    with FakeServer(people) as server:
        llm = [f"llm.base_url={server.url}", "llm.model=m", f"llm.cache={folder / 'c.sqlite'}"]
        assert command(*wing(folder), *llm, f"output_dir={folder / 'study'}") == 0
    measured, talks = step(folder, "measurements"), step(folder, "esconv-continue")
    first, then = step(folder, "personas-measure"), step(folder, "persona-measure")
    tables = [
        make("traits correlate", "traits", "correlate", f"input={measured}", FEW,
             output="correlations.json", reads=[measured]),
        make("traits compare", "traits", "compare", f"input={then}", f"traits.before={first}", FEW,
             output="shifts.json", reads=[first, then]),
        make("traits strategies", "traits", "strategies", f"input={talks}", FEW,
             output="strategies.json", reads=[talks]),
        make("traits stats", "traits", "stats", f"input={talks}", FEW, output="stats.json",
             reads=[talks]),
    ]  # fmt: skip
    make("traits report", "traits", "report",
         f"report.include=[{', '.join(map(str, tables))}]", output="traits.html",
         reads=tables)  # fmt: skip
    with FakeServer(anybody) as server:
        llm = [f"llm.base_url={server.url}", "llm.model=m", f"llm.cache={folder / 'j.sqlite'}"]
        judged = [
            make(f"judge {kind}", "judge", kind, f"input={pes}", f"judging.systems={systems}",
                 *llm, FEW, output=f"{kind}.json", reads=both)
            for kind in ("pairs", "ratings")
        ]  # fmt: skip
        for kind in ("pairs", "ratings"):
            del made[f"judge {kind}"]  # nobody answers any more
    shown = [analysis, votes, *judged]
    make("report", "report", f"report.include=[{', '.join(map(str, shown))}]",
         output="report.html", reads=shown)  # fmt: skip
    make("study create", "study", "create", f"input={pes}", "study.kind=persona",
         output="study.db", reads=[pes])  # fmt: skip
    make("study export", "study", "export", f"input={folder / 'study.db'}", output="exported",
         reads=[folder / "study.db"])  # fmt: skip
    assert scores.exists()
    assert audit.exists()
    for _, reads, _ in made.values():
        reads += [f for p in reads if (f := p.with_name(p.name + ".run.json")).exists()]
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def test_a_command_reads_or_refuses_damaged_inputs(made, tmp_path, tally):
    run_damaged(made, range(QUICK), tmp_path, tally)
    assert tally["refused"] > QUICK // 4
    assert tally["read"] > QUICK // 20


@pytest.mark.campaign
def test_commands_read_or_refuse_many_damaged_inputs(made, tmp_path, tally):
    run_damaged(made, range(MANY), tmp_path, tally)
