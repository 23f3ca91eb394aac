"""Whatever a file or a setting holds, it is read as what it is or refused in one line.

    pytest tests/campaign/test_fuzz.py                 # about 300 inputs
    pytest -m campaign tests/campaign/test_fuzz.py     # 20,000; PAL_FUZZ changes it

Inputs are drawn with a seed (PAL_SEED); a failure names the number of its input.
"""

import bz2
import csv
import gzip
import io
import json
import math
import os
import random
import types
import typing
from functools import cache
from itertools import pairwise

import pyarrow
import pyarrow.parquet
import pytest

from pal.commands import TASKS, all_settings, load_settings
from pal.commands.help import resolved_yaml
from pal.core.errors import PalError
from pal.core.files import read_json, read_jsonl
from pal.core.job import decisive, redact
from pal.core.reader import Reader
from pal.core.settings import bundled, fields_of
from pal.core.yaml_files import read_yaml
from pal.data.cards import read_card_personas
from pal.data.esconv import features, load_esconv, write_pesconv, write_released
from pal.data.personachat import load_personachat
from pal.data.predictions import read_outside, read_predictions
from pal.data.records import HIGHEST_SCORE
from pal.data.samples import build_samples
from pal.data.settings import ReadingSettings
from pal.data.strategies import STRATEGIES
from pal.data.texts import normalise_text
from pal.human_eval.sheets import read_answers, read_key
from pal.metrics.similarity import load_word_vectors
from pal.traits.documents import read_measurements
from pal.traits.inventories import load_inventory
from pal.traits.readers import load_personas, load_posts, read_cards
from pal.traits.talks import read_talks
from tests.campaign.conftest import SEED
from tests.campaign.damaging import check_refusal
from tests.campaign.mutations import ODD_VALUES, ODD_YAML, damage_text, damage_values, dump
from tests.jobs import ESCONV, PERSONACHAT

QUICK = 150  # inputs of each kind
MANY = int(os.environ.get("PAL_FUZZ", "20000")) // 2

campaign = pytest.mark.campaign


# ------------------------------------------------------------------------------- what is read


@cache
def dialogues():
    rows = load_esconv(ESCONV, "test").select([0, 1])
    records = [json.loads(line) for line in (ESCONV / "test.jsonl").read_text().splitlines()[:2]]
    for record in records:
        record["dialog"] = record["dialog"][:5]
    released = [
        {
            "dialog": [
                {"speaker": turn["speaker"], "annotation": {"strategy": turn["strategy"]},
                 "content": turn["text"]}
                for turn in row["dialog"][:6]
            ],
            "persona": "<input>I fly.<persona>I rent.",
            "persona_list": ["<input>I fly.<persona>I rent."],
            "survey_score": {"seeker": {"empathy": "4"}, "supporter": {"relevance": "5"}},
        }
        for row in rows
    ]  # fmt: skip
    request = {"id": 42, "dialog": [{"speaker": "seeker", "text": "I am sad."}], "persona": ["I."]}
    return [*records, *released, request]


def check_dialogues(rows):
    assert rows.features == features()
    for row in rows:
        assert isinstance(row["id"], str)
        assert row["id"]
        for score in row["survey"].values():
            assert score is None or (math.isfinite(score) and 0 <= score <= HIGHEST_SCORE)
        for turn in row["dialog"]:
            assert turn["speaker"] in ("seeker", "supporter")
            assert turn["text"]
            assert turn["text"] == normalise_text(turn["text"])
            assert turn["strategy"] is None or turn["strategy"] in STRATEGIES
            assert all(sentence == normalise_text(sentence) for sentence in turn["persona"])
    build_samples(rows, "evaluation")


def read_dialogues(path):
    rows = load_esconv(path, requests=True)
    check_dialogues(rows)
    folder = path.parent / "again"
    folder.mkdir(exist_ok=True)
    write_pesconv(folder / "ours.jsonl", rows)
    write_released(folder / "released.json", rows)
    for name in ("ours.jsonl", "released.json"):
        assert list(load_esconv(folder / name, requests=True)) == list(rows)


def read_for_training(path):
    rows = load_esconv(path, strategy_labels={"x": None, "true": "Others"})
    check_dialogues(rows)
    assert all(t["strategy"] for row in rows for t in row["dialog"] if t["speaker"] == "supporter")


def read_conversations(path):
    for row in load_personachat(path):
        assert row["utterances"]
        assert row["persona"]
        assert all(map(str.strip, [*row["utterances"], *row["persona"]]))


def read_scored(path):
    for record in read_predictions(path):
        assert isinstance(record["id"], str)
        assert isinstance(record["response"], str)
        probabilities = record.get("strategy_probs")
        if probabilities is not None:
            assert all(type(p) in (int, float) and 0 <= p <= 1.01 for p in probabilities.values())


@cache
def samples():
    rows = load_esconv(ESCONV, "test").select([0])
    return build_samples(rows, "evaluation")[:3]


def read_from_outside(path):
    assert len(read_outside(path, samples())) == 3


def predictions():
    return [
        {"id": s.id, "strategy": "Question", "response": "Why?", "reference": s.response,
         "strategy_probs": dict.fromkeys(STRATEGIES, 0.125), "persona": ["I fly."],
         "reference_strategy": s.strategy, "alpha": 0.0, "tokens": 3}
        for s in samples()
    ]  # fmt: skip


CARDS = [
    {"id": f"test-0000{n}", "dataset": "d", "age": "30s", "gender": "female", "occupation": "pilot",
     "description": "A pilot of thirty. She rents.", "problem": "work", "keep": True}
    for n in range(3)
]  # fmt: skip
KEY = {
    "kind": "human-key", "format": 1, "questions": ["fluency", "empathy"],
    "items": {"i1": {"sample": "s", "A": "a", "B": "b", "texts": "t"}},
    "pairs": [{"a": "a", "b": "b", "items": 1, "samples": 1, "same": 0}],
}  # fmt: skip
SHEET = [
    {"item": "i1", "context": "Hi", "A": "Why?", "B": "Oh.", "fluency": "A", "empathy": "tie",
     "rater": "r"}
]  # fmt: skip
CSI = ["csi"]


def measurements():
    inventory = load_inventory("csi")
    answers = {item.id: 3 for item in inventory.items}
    return [
        {"id": f"p{n}", "dataset": "d", "inventory": "csi", "version": inventory.version,
         "model": "m", "form": "full", "answers": answers, "unanswered": {},
         "scores": dict.fromkeys(inventory.dimensions, 3.0)}
        for n in range(2)
    ]  # fmt: skip


def read_sheets(path):
    votes = read_answers([path], KEY)
    assert votes is not None


def read_sealed_key(path):
    (path.parent / "key.json").write_bytes(path.read_bytes())
    read_key(path.parent)


# -- forms of files


def as_lines(records, rng):
    return "\n".join(dump(record, rng) for record in records).encode("utf-8", "surrogatepass")


def as_list(records, rng):
    return dump(records, rng).encode("utf-8", "surrogatepass")


def as_one(records, rng):
    return dump(records[0] if records else None, rng).encode("utf-8", "surrogatepass")


def as_gz(records, rng):
    return gzip.compress(as_lines(records, rng))


def as_bz2(records, rng):
    return bz2.compress(as_lines(records, rng))


def as_parquet(records, rng):
    sink = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), sink)
    except Exception:  # mixed types, which no parquet file has
        return as_lines(records, rng)
    return sink.getvalue()


def as_csv(records, rng):
    return as_table(records, rng, ",")


def as_table(records, rng, delimiters=",;\t"):
    out = io.StringIO()
    names = list(dict.fromkeys(key for r in records if isinstance(r, dict) for key in r))
    writer = csv.writer(out, delimiter=rng.choice(delimiters))
    writer.writerow(names)
    for record in records:
        record = record if isinstance(record, dict) else {}
        writer.writerow([record.get(name, "") for name in names])
    return out.getvalue().encode("utf-8", "surrogatepass")


def turn_rows():
    return [
        {"dialogue": n, **turn} for n, record in enumerate(dialogues()[:2])
        for turn in record["dialog"]
    ]  # fmt: skip


PARLAI = (PERSONACHAT / "validation.txt").read_bytes()[:1500].rsplit(b"\n", 1)[0]
FIELDS = (
    b"text:your persona: i swim.\\nhi\tlabels:hello|x\ntext:why\tlabels:so\tepisode_done:True\n"
)
SYNTHETIC = [
    {"user 1 personas": "I swim.\nI run.", "user 2 personas": "I paint.",
     "Best Generated Conversation": "User 1: Hi!\nUser 2: Hello.\nUser 1: Bye."}
] * 2  # fmt: skip
SELF = [{"train": [{"personality": ["i swim."], "utterances": [
    {"candidates": ["a", "b"], "history": ["hi"]},
    {"candidates": ["c"], "history": ["hi", "b", "so"]}]}]}]  # fmt: skip
VECTORS = b"3 2\nhello 0.1 0.2\nyou 1 2\nme -1 0.5\n"

# Reader: (file name, records or bytes, form of the file, what reads it).
SUBJECTS = {
    "dialogues": ("d.jsonl", dialogues, as_lines, read_dialogues),
    "a list of dialogues": ("d.json", dialogues, as_list, read_dialogues),
    "one dialogue": ("d.json", dialogues, as_one, read_dialogues),
    "dialogues for training": ("d.txt", dialogues, as_lines, read_for_training),
    "compressed dialogues": ("d.jsonl.gz", dialogues, as_gz, read_dialogues),
    "other compressed dialogues": ("d.bz2", dialogues, as_bz2, read_dialogues),
    "parquet": ("d.parquet", lambda: dialogues()[:2], as_parquet, read_dialogues),
    "a table of turns": ("d.csv", turn_rows, as_table, read_dialogues),
    "turns": ("d.jsonl", turn_rows, as_lines, read_dialogues),
    "ParlAI": ("p.txt", PARLAI, None, read_conversations),
    "ParlAI's fields": ("p.txt", FIELDS, None, read_conversations),
    "synthetic conversations": ("p.csv", SYNTHETIC, as_table, read_conversations),
    "self_original": ("p.json", SELF, as_one, read_conversations),
    "cards as personas": ("c.jsonl", CARDS, as_lines, read_card_personas),
    "cards": ("c.jsonl", CARDS, as_lines, read_cards),
    "predictions": ("r.jsonl", predictions, as_lines, read_scored),
    "predictions from outside": ("r.json", predictions, as_list, read_from_outside),
    "a table of predictions": ("r.csv", predictions, as_csv, read_from_outside),
    "measurements": ("m.jsonl", measurements, as_lines,
                     lambda path: read_measurements(path, [load_inventory("csi")])),
    "talks": ("t.jsonl", dialogues, as_lines,
              lambda path: read_talks({None: str(path)}, None, ReadingSettings())),
    "talks of predictions": ("t.jsonl", predictions, as_lines,
                             lambda path: read_talks({None: str(path)}, None, ReadingSettings())),
    "posts": ("p.csv", CARDS, as_csv, lambda path: load_posts(str(path), "description", "d", 9)),
    "one-line personas": ("p.jsonl", [{"persona": "i swim."}] * 2, as_lines,
                          lambda path: load_personas(str(path), "d", None)),
    "a key": ("k.json", [KEY], as_one, read_sealed_key),
    "sheets": ("s.csv", SHEET, as_csv, read_sheets),
    "word vectors": ("v.vec", VECTORS, None, load_word_vectors),
    "JSON lines": ("j.jsonl", CARDS, as_lines, lambda path: list(read_jsonl(path))),
    "JSON": ("j.json", CARDS, as_list, read_json),
}  # fmt: skip


def damaged_file(number, folder):
    """Write one damaged file; return its subject and path."""
    rng = random.Random(f"{SEED} file {number}")
    subject = list(SUBJECTS)[number % len(SUBJECTS)]
    name, contents, form, _ = SUBJECTS[subject]
    contents = contents() if callable(contents) else contents
    if form is not None:
        kind = rng.randrange(4)
        records = contents if kind == 3 else damage_values(list(contents), rng)
        contents = form(records, rng)
    else:
        kind = 3
    if kind >= 2:
        contents = damage_text(contents, rng)
    path = folder / f"{number}{name}"
    path.write_bytes(contents)
    return subject, path


def read_damaged_files(numbers, folder, outcomes):
    for number in numbers:
        subject, path = damaged_file(number, folder)
        try:
            SUBJECTS[subject][3](path)
            outcomes["read"] += 1
        except PalError as error:
            check_refusal(error, number)
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"input {number} ({subject}, {path}): {error!r}") from error
        outcomes["inputs"] += 1
        path.unlink()


def test_a_damaged_file_is_read_or_refused(tmp_path, tally):
    read_damaged_files(range(QUICK), tmp_path, tally)
    assert tally["refused"] > QUICK // 4
    assert tally["read"] > QUICK // 20


def test_what_is_damaged_is_read_when_it_is_whole(tmp_path):
    rng = random.Random(SEED)
    for subject, (name, contents, form, read) in SUBJECTS.items():
        contents = contents() if callable(contents) else contents
        if subject in ("dialogues for training", "talks"):
            contents = contents[:-1]  # which is a request, with a number for its id
        path = tmp_path / f"{len(subject)}{name}"
        path.write_bytes(contents if form is None else form(list(contents), rng))
        read(path)


@campaign
def test_many_damaged_files(tmp_path, tally):
    read_damaged_files(range(MANY), tmp_path, tally)


def test_damaged_dialogues_in_memory_are_read_or_refused():
    for number in range(QUICK // 3):
        rng = random.Random(f"{SEED} memory {number}")
        try:
            check_dialogues(load_esconv(damage_values(dialogues(), rng), requests=True))
        except PalError as error:
            check_refusal(error, number)


# ------------------------------------------------------------------------------- settings


@cache
def configs():
    return {path.stem: path.read_text() for path in sorted(bundled("configs").glob("*.yaml"))}


def damaged_yaml(rng):
    """Return the text of a settings file in which some values are others."""
    lines = rng.choice(list(configs().values())).split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        index = rng.randrange(len(lines))
        head, colon, _ = lines[index].partition(":")
        kind = rng.randrange(6)
        odd = rng.choice(ODD_YAML)
        if kind <= 2 and colon:
            lines[index] = f"{head}: {odd}"
        elif kind == 3:
            lines.insert(index, rng.choice((lines[index], odd, f"{odd}: 1", f"  {head}: {odd}")))
        elif kind == 4:
            lines[index] = rng.choice(("", " " + lines[index], lines[index].lstrip()))
        else:
            del lines[index]
            lines = lines or [""]
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    return damage_text(text, rng, times=1) if rng.random() < 0.2 else text


def damaged_overrides(cls, rng):
    keys = [key for key, _, _ in fields_of(cls)]
    found = []
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        key = rng.choice(keys)
        kind = rng.randrange(8)
        if kind == 0:
            key = rng.choice(
                (f"{key}.x", key.rpartition(".")[2], key + "x", "", ".", key[:-1], "\0")
            )
        elif kind == 1:
            key = rng.choice((key.split(".")[0], f"response.{key}", f"nobody.{key}"))
        value = rng.choice((rng.choice(ODD_YAML), str(rng.choice(ODD_VALUES))))
        found.append(rng.choice((f"{key}={value}",) * 9 + (key, value)))
    return found


def check_settings(command, cls, settings):
    """Everything has the type that its field says, can be recorded, and comes back from YAML."""
    tree = settings.model_dump()
    again = cls.model_validate(tree, strict=True)
    assert again.model_dump() == tree
    json.dumps(tree, allow_nan=False, ensure_ascii=False).encode()
    decisive(settings)
    text = resolved_yaml(command, settings)
    back = Reader(cls, command, all_settings(), TASKS).read(read_yaml(text, "resolved"))
    if redact(tree) == tree:
        assert back.model_dump() == tree


def read_damaged_settings(numbers, folder, outcomes):
    classes = all_settings()
    for number in numbers:
        rng = random.Random(f"{SEED} settings {number}")
        command = list(classes)[number % len(classes)]
        cls = classes[command]
        path = folder / f"{number}.yaml"
        config = None
        if rng.random() < 0.7:
            path.write_bytes(damaged_yaml(rng))
            config = str(path)
        overrides = damaged_overrides(cls, rng)
        try:
            settings = Reader(cls, command, classes, TASKS).read(config, overrides)
            outcomes["read"] += 1
            check_settings(command, cls, settings)
        except PalError as error:
            check_refusal(error, number)
            outcomes["refused"] += 1
        except Exception as error:
            shown = path.read_bytes()[:2000] if config else None
            raise AssertionError(
                f"input {number}: {command} {overrides!r:.500} {error!r:.2000}\n{shown}"
            ) from error
        outcomes["inputs"] += 1
        path.unlink(missing_ok=True)


def test_damaged_settings_are_read_or_refused(tmp_path, tally):
    read_damaged_settings(range(QUICK), tmp_path, tally)
    assert tally["refused"] > QUICK // 4
    assert tally["read"] > QUICK // 20


NO_NUMBERS = ("nan", ".nan", "inf", "-.inf", "1e999", "true", "no", "[1]", "{a: 1}", "x", "''",
              "2020-13-45", "0x1f", "9" * 5000, "1 2", "\0")  # fmt: skip


def alternatives(annotation):
    """Return the types that a field takes, without lists and their like."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        return alternatives(arguments[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [kind for part in arguments for kind in alternatives(part)]
    return [annotation]


@pytest.mark.parametrize("command", all_settings())
def test_what_is_no_number_is_refused_wherever_a_number_is_wanted(command):
    cls = all_settings()[command]
    for key, field, _ in fields_of(cls):
        kinds = {kind for kind in alternatives(field.annotation) if kind is not type(None)}
        if not kinds or not kinds <= {int, float}:
            continue
        for text in NO_NUMBERS + (("1.5", "1e-3") if kinds == {int} else ()):
            with pytest.raises(PalError) as caught:
                Reader(cls, command, all_settings(), TASKS).read(None, [f"{key}={text}"])
            assert key in str(caught.value), (key, text)
            check_refusal(caught.value, f"{key}={text[:20]}")


@campaign
def test_many_damaged_settings(tmp_path, tally):
    read_damaged_settings(range(MANY), tmp_path, tally)


@pytest.mark.parametrize("value", ["true", "nan", "inf", "1e999", "9" * 5000, "[1]", "{a: 1}"])
@pytest.mark.parametrize("key", ["learning_rate", "num_train_epochs", "warmup_steps", "max_steps"])
def test_what_is_no_number_is_no_option_of_training(key, value):
    with pytest.raises(PalError, match=f"training.{key}: "):
        load_settings("train", None, [f"training.{key}={value}"])


def test_anchors_may_repeat_but_not_contain_themselves(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("training: {learning_rate: &rate 0.1, weight_decay: *rate}\n")
    training = load_settings("train", str(path)).training
    assert training["learning_rate"] == training["weight_decay"] == 0.1
    doubled = "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrstuvwxyz")
    )
    for text in ("training: &a {x: *a}", "training: &a [*a]", f"a: &a [1, 2]\n{doubled}"):
        path.write_text(text)
        with pytest.raises(PalError, match=r"not valid YAML .more than 100000 values"):
            load_settings("train", str(path))
