"""Every command that writes something, on inputs small enough to be run hundreds of times.

:func:`prepared` makes the inputs, :func:`works` names the commands, and :class:`Bench` runs one of
them again and again in forked processes. The file is long because it lists every
command, and the campaign's parts choose from one list.
"""

import csv
import json
import re
import shutil
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from pal.human_eval.choice import PAL_QUESTIONS
from tests.benchmark.test_stages import TINY
from tests.campaign.outputs import contents
from tests.commands.authors import authors_weights, write_config
from tests.jobs import (
    ESCONV,
    TINY_EXTRACTOR,
    TINY_RESPONSE,
    TRAIN_EXTRACTOR,
    TRAIN_LANGUAGE,
    TRAIN_RESPONSE,
)
from tests.llm.server import FakeServer
from tests.metrics.test_similarity import save_bert
from tests.modeling.languages import chat_tokenizer, tiny
from tests.traits.fakes import World, answer, planted

STEPS = ["training.save_strategy=steps", "training.save_steps=3", "training.eval_strategy=steps",
         "training.eval_steps=3"]  # fmt: skip
QUICK = [*TINY_RESPONSE, *(f"persona_extractor.{given}" for given in TINY_EXTRACTOR),
         "training.num_train_epochs=1", "annotate.max_new_tokens=8",
         "decoding.max_new_tokens=12"]  # fmt: skip


# ----------------------------------------------------------------------- who answers


def people(body):
    """Answer the prompts of the traits wing."""
    return answer(World(planted(12)))(body)


def anybody(body):
    """Answer any prompt as its schema wants, always alike."""
    asked = body.get("response_format", {})
    schema = asked.get("json_schema", asked).get("schema")
    seed = zlib.crc32(json.dumps(body["messages"]).encode())
    return _value(schema, seed) if schema else f"I hear you, that is number {seed % 97}."


def _value(schema, seed):
    if "enum" in schema:
        return schema["enum"][seed % len(schema["enum"])]
    kind = schema.get("type")
    if kind == "object":
        return {
            name: _value(inside, zlib.crc32(f"{seed} {name}".encode()))
            for name, inside in schema["properties"].items()
        }
    if kind == "array":
        return [_value(schema["items"], seed)]
    if kind == "boolean":
        return False
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", 1), schema.get("maximum", 5)
        return low + seed % (high - low + 1)
    return f"I work as number {seed % 97}."


# ----------------------------------------------------------------------- what is looked at


def whole_study(place):
    """Return what an output holds, without what workers logged; see :func:`without_moments`."""
    return {name: kept for name, kept in without_moments(place).items() if "/logs/" not in name}


def without_moments(place):
    """Return what an output holds; its page shows when and how its documents were made."""
    found = contents(place)
    for name in [name for name in found if name.endswith("report.html")]:
        found[name] = re.sub(MOMENT, b"then", found[name])
        found.pop(f"{name}.run.json", None)
    return found


def figures(value):
    """Return a measurement without its figures, which no two runs share."""
    if isinstance(value, dict):
        return {key: figures(item) for key, item in value.items()}
    return [figures(item) for item in value] if isinstance(value, list) else type(value).__name__


def measured(place):
    """Return the form of a measurement."""
    return figures(contents(place))


# ----------------------------------------------------------------------- the commands


MOMENT = rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d[+-]\d{4})?|overwrite&#34;: \w+"

# Names of what lies beside results: locks, caches, logs.
BESIDE_RESULTS = r"\.lock$|c\.sqlite|__pycache__|/logs(/|$)"


@dataclass(frozen=True)
class Work:
    """A command without its output.

    Attributes:
        arguments: of the command.
        output: name of what it writes, in a folder of its own.
        key: the setting that says where.
        answers: who answers at the endpoint, for commands that ask one.
        look: returns what an output holds that two runs share.
        done: exit code where all is done already; some commands refuse to replace what is there.
    """

    arguments: list[Any]
    output: str = "out.jsonl"
    key: str = "output"
    answers: Callable[[dict], Any] | None = None
    look: Callable[[Path], Any] = contents
    done: int = 0


def prepared(folder, fork):
    """Make all that the commands read in a folder: models, personas, responses, measurements."""

    def made(*arguments):
        found = fork(*arguments)
        assert found["code"] == 0, fork.log.read_text()[-2000:]

    made("train", *TRAIN_RESPONSE, f"output_dir={folder / 'model'}")
    made("train", *TRAIN_EXTRACTOR, f"output_dir={folder / 'extractor'}")
    made("annotate", f"model={folder / 'extractor'}", f"input={ESCONV}", "split=test",
         "annotate.num_beams=2", "annotate.max_new_tokens=12",
         f"output={folder / 'pes.jsonl'}")  # fmt: skip
    for name, seed in (("out", 42), ("other", 7)):
        made("generate", f"model={folder / 'model'}", f"input={folder / 'pes.jsonl'}",
             f"seed={seed}", "decoding.max_new_tokens=12",
             f"output={folder / f'{name}.jsonl'}")  # fmt: skip
    tiny("llama", initializer_range=0.08).save_pretrained(folder / "base")
    chat_tokenizer().save_pretrained(folder / "base")
    made(*language(folder), f"output_dir={folder / 'language'}")
    cards = [
        {"id": f"p{n}", "dataset": "d", "description": f"Case {n}. A person.", "problem": "x",
         "age": "young", "gender": "female", "occupation": "cook", "keep": True}
        for n in range(12)
    ]  # fmt: skip
    write_rows(folder / "cards.jsonl", cards)
    made("tune-alpha", f"model={folder / 'model'}", f"input={folder / 'pes.jsonl'}",
         "tune_alpha.trials=4", "tune_alpha.objectives=[bleu_2, distinct_2]", "limit=12",
         "metrics.embedder=null", "decoding.max_new_tokens=8",
         f"output={folder / 'alpha.json'}")  # fmt: skip
    made("analyze", f"input={folder / 'pes.jsonl'}", "metrics.embedder=null",
         f"analyze.systems={{a: {folder / 'out.jsonl'}}}",
         f"output={folder / 'analysis.json'}")  # fmt: skip
    made("human-eval", "export", f"input={folder / 'pes.jsonl'}", "human_eval.items=10",
         f"human_eval.systems={{a: {folder / 'out.jsonl'}, b: {folder / 'other.jsonl'}}}",
         f"output={folder / 'export'}")  # fmt: skip
    fill_in(folder / "export" / "for_raters" / "sheet.csv", folder / "sheet.csv")
    save_file(authors_weights(), folder / "theirs.safetensors")
    write_config(folder / "theirs.json")
    write_rows(folder / "people.jsonl", [{"persona": f"Case {n}. A clerk."} for n in range(6)])
    write_rows(folder / "labelled.jsonl", [
        {"text": text, "label": label, "source": f"s{n}"}
        for n in range(6) for text, label in (("I want to die.", "crisis"), ("I swim.", "none"))
    ])  # fmt: skip
    (folder / "encoder").mkdir(exist_ok=True)
    save_bert(folder / "encoder", ["i", "want", "to", "die", "swim", "."])
    (folder / "situations.txt").write_text("".join(f"The rent of {n} is due.\n" for n in range(6)))
    made("study", "create", f"input={folder / 'pes.jsonl'}", "study.kind=persona", "study.raters=2",
         f"output={folder / 'study.db'}")  # fmt: skip
    with FakeServer(people) as server:
        made(*wing(folder), *endpoint(server), f"output_dir={folder / 'study'}",
             f"llm.cache={folder / 'study.sqlite'}")  # fmt: skip


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def fill_in(sheet, to):
    """Write a sheet on which a rater has chosen, by turns."""
    with sheet.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    for number, row in enumerate(rows):
        for place, question in enumerate(PAL_QUESTIONS):
            row[question.name] = ("A", "B", "Tie")[(number + place) % 3]
        row["rater"] = "someone"
    with to.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def endpoint(server):
    return [f"llm.base_url={server.url}", "llm.model=m", "llm.backoff=0.01"]


def language(folder):
    return ["train", *TRAIN_LANGUAGE, f"architecture.base={folder / 'base'}"]


def wing(folder):
    return ["traits", "run", "split=test", "limit=4", f"traits.personas={folder / 'people.jsonl'}",
            f"traits.corpora={{esconv: {{input: {ESCONV}}}}}", "traits.form=short",
            "traits.conditions=[none, both]", "statistics.resamples=199"]  # fmt: skip


def step(folder, name):
    """Return the file that a step of the study wrote."""
    found = [p for p in folder.glob(f"study/{name}-*.json*") if not p.name.endswith(".run.json")]
    return found[0] if found else folder / "study" / name


def works(folder):
    """Return the commands by name."""
    model, pes, out = folder / "model", folder / "pes.jsonl", folder / "out.jsonl"
    systems = f"{{a: {out}, b: {folder / 'other.jsonl'}}}"
    cards, described = step(folder, "esconv-cards"), step(folder, "esconv-describe")
    measurements, talks = step(folder, "esconv-measure"), step(folder, "esconv-continue")
    few = "statistics.resamples=199"
    tuning = ["tune_alpha.objectives=[bleu_2, distinct_2]", "metrics.embedder=null",
              "decoding.max_new_tokens=12"]  # fmt: skip
    reproduce = ["reproduce", *TINY, "reproduce.systems=[joint, pal]", "reproduce.seeds=[13]"]

    def trait(*arguments, **how):
        return Work(["traits", *arguments], answers=people, **how)

    def table(*arguments):
        return Work(list(arguments), "out.json")

    return {
        "train by epoch": Work(["train", *TRAIN_RESPONSE], "out", "output_dir"),
        "train by steps": Work(["train", *TRAIN_RESPONSE, *STEPS], "out", "output_dir"),
        "train the extractor": Work(["train", *TRAIN_EXTRACTOR, *STEPS], "out", "output_dir"),
        "train a decoder-only model": Work(language(folder), "out", "output_dir"),
        "annotate": Work(["annotate", f"model={folder / 'extractor'}", f"input={ESCONV}",
                          "split=train", "limit=8", "annotate.num_beams=2",
                          "annotate.max_new_tokens=24", "batch_rows=8"]),
        "annotate by an endpoint": Work(["annotate", "annotate.extractor=llm", f"input={ESCONV}",
                                         "split=test", "limit=4"], answers=anybody),
        "generate": Work(["generate", f"model={model}", f"input={pes}", "batch_rows=2",
                          "decoding.max_new_tokens=40"]),
        "generate, decoder-only": Work(["generate", f"model={folder / 'language'}", f"input={pes}",
                                        "batch_rows=2", "limit=12",
                                        "decoding.max_new_tokens=24"]),
        "answer": Work(["answer", f"input={pes}", "supporter.strategy_first=true", "limit=12"],
                       answers=anybody),
        "eval": table("eval", f"model={model}", f"input={pes}", f"predictions={out}",
                      "metrics.embedder=null"),
        "tune-alpha": table("tune-alpha", f"model={model}", f"input={pes}", "tune_alpha.trials=12",
                            *tuning),
        "analyze": table("analyze", f"input={pes}", f"analyze.systems={{a: {out}}}",
                         "metrics.embedder=null"),
        "audit": table("audit", f"data.train={ESCONV}", "fix=true"),
        "export": Work(["export", f"model={model}"], "out", done=2),
        "export-task": Work(["export-task", f"input={pes}"], "out", done=2),
        "convert-authors": Work(["convert-authors", folder / "theirs.safetensors",
                                 f"config={folder / 'theirs.json'}"], "out", done=2),
        "human-eval export": Work(["human-eval", "export", f"input={pes}",
                                   f"human_eval.systems={systems}"], "out"),
        "human-eval personas": Work(["human-eval", "personas", f"input={pes}",
                                     "human_eval.items=10"], "out"),
        "human-eval score": table("human-eval", "score", f"input={folder / 'export'}",
                                  f"human_eval.answers=[{folder / 'sheet.csv'}]"),
        "study export": Work(["study", "export", f"input={folder / 'study.db'}", "overwrite=true"],
                             "out"),
        "judge pairs": Work(["judge", "pairs", f"input={pes}", f"judging.systems={systems}",
                             few], "out.json", answers=anybody),
        "judge ratings": Work(["judge", "ratings", f"input={pes}", f"judging.systems={systems}",
                               few], "out.json", answers=anybody),
        "simulate": Work(["simulate", f"input={folder / 'cards.jsonl'}", f"model={model}",
                          f"extractor={folder / 'extractor'}", "simulation.exchanges=2",
                          "simulation.least=1", "decoding.max_new_tokens=12", "limit=4"],
                         answers=anybody),
        "guard train": Work(["guard", "train", f"head.messages={folder / 'labelled.jsonl'}",
                             f"head.encoder={folder / 'encoder'}", "head.background=bundled:esconv",
                             "limit=40", "overwrite=true"], "out"),
        "guard eval": table("guard", "eval", f"input={folder / 'labelled.jsonl'}"),
        "report": Work(["report", f"report.include=[{folder / 'analysis.json'}, "
                        f"{folder / 'alpha.json'}]"], "out.html"),
        "quickstart": Work(["quickstart", "--config", "quickstart", *QUICK], "out", "output_dir",
                           look=without_moments),
        "reproduce": Work(reproduce, "out", "output_dir", look=whole_study),
        "reproduce, two at once": Work([*reproduce, "reproduce.executor=local",
                                        "reproduce.workers=2"], "out", "output_dir",
                                       look=whole_study),
        "bench metrics": Work(["bench", "metrics", "limit=300", "overwrite=true"], "out.json",
                              look=measured),
        "traits measure": trait("measure", f"input={folder / 'cards.jsonl'}", "traits.form=short"),
        "traits cards": trait("cards", f"input={ESCONV}", "split=test"),
        "traits filter": trait("filter", f"input={cards}"),
        "traits describe": trait("describe", f"input={cards}"),
        "traits expand": trait("expand", f"input={folder / 'people.jsonl'}"),
        "traits synthesize": trait("synthesize", f"input={described}"),
        "traits continue": trait("continue", f"input={ESCONV}", "split=test", "limit=4",
                                 f"traits.cards={described}",
                                 f"traits.measurements={measurements}",
                                 "traits.conditions=[none, both]"),
        "traits correlate": table("traits", "correlate",
                                  f"input={step(folder, 'measurements')}", few),
        "traits compare": table("traits", "compare", f"input={step(folder, 'persona-measure')}",
                                f"traits.before={step(folder, 'personas-measure')}", few),
        "traits strategies": table("traits", "strategies", f"input={talks}", few),
        "traits stats": table("traits", "stats", f"input={talks}", few),
        "traits report": Work(["traits", "report", "report.include="
                               f"[{step(folder, 'correlations')}, {step(folder, 'strategies')}]"],
                              "out.html"),
        "traits run": Work(wing(folder), "out", "output_dir", answers=people, look=whole_study),
    }  # fmt: skip


class Bench:
    """One command, run again and again in a folder that is emptied between the rounds.

    Args:
        work: the command.
        folder: where it works; outputs name their paths, so that it is the same in every round.
        fork: what runs it, :class:`tests.campaign.forked.Forked`.
        server: who answers it, if anybody does.
        more: further arguments.
    """

    def __init__(self, work, folder, fork, server=None, more=()):
        self.work, self.folder, self.fork = work, folder, fork
        self.place = folder / work.output
        asked = [*endpoint(server), f"llm.cache={folder / 'c.sqlite'}"] if server else []
        self.call = [*work.arguments, *asked, *more, f"{work.key}={self.place}"]

    def run(self, **how):
        """Run the command and return its exit code, −9 where it was killed; see ``fork``.

        Messages of a command that ends otherwise than well are one line and no traceback.
        """
        self.folder.mkdir(exist_ok=True)
        self.took = self.fork(*self.call, **how)
        self.said = self.fork.log.read_text(errors="replace")
        code = self.took["code"]
        assert code in (0, 2, -9), f"{code}: {self.said[-3000:]}"
        assert "Traceback" not in self.said, self.said[-3000:]
        assert "Exception ignored" not in self.said, self.said[-3000:]
        if code == 2:
            start = "" if "writers" in how else "(?m)^"  # two write to one log
            errors = re.findall(f"{start}pal: error: ", self.said)
            assert len(errors) == 1, self.said[-3000:]
        return code

    def clean(self):
        """Empty the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def look(self):
        """Return what the output holds, by file, and "names": of all that lies in the folder."""
        names = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
        names = {name for name in names if not re.search(BESIDE_RESULTS, name)}
        return {"names": names, **self.work.look(self.place)}

    def differences(self, expected):
        """Return what is not as expected: name of the file, then and now."""
        found = self.look()
        keys = [k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)]
        if "names" in keys:
            keys.remove("names")
            keys += [f"{name} (there or not)" for name in expected["names"] ^ found["names"]]
        return [(key, repr(expected.get(key))[:300], repr(found.get(key))[:300]) for key in keys]


@contextmanager
def answering(work, **options):
    """Yield a server that answers a command's questions, or None where it asks none."""
    if work.answers is None:
        yield None
        return
    with FakeServer(work.answers, **options) as server:
        yield server
