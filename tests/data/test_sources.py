"""One set of dialogues, in every form that people have it in, reads to the same rows."""

import bz2
import csv
import gzip
import json
import logging
import lzma
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from pal.core.errors import CheckpointError, ConfigError, DataError, PalError
from pal.core.files import source_fingerprint
from pal.data.corpora import CorpusReader
from pal.data.esconv import load_esconv, write_pesconv
from pal.data.samples import load_samples
from pal.data.settings import DataSettings, SourceSettings
from pal.data.sources import check_model_place, has_splits, is_hub_id
from pal.data.splits import load_split
from tests.jobs import ESCONV, environment

TALKS = [
    {
        "situation": f"Shop {number} closes.",
        "dialog": [
            {"speaker": "usr", "text": f"I run shop {number}, and it closes."},
            {"speaker": "sys", "text": "How long, may I ask?", "strategy": "Question"},
            {"speaker": "usr", "text": "Nine “good” years;\tsince two thousand."},
            {"speaker": "sys", "text": "That is hard.", "strategy": "Reflection of feelings"},
        ],
    }
    for number in range(3)
]


def lines(talks=TALKS):
    return "".join(json.dumps(talk, ensure_ascii=False) + "\n" for talk in talks).encode()


def content(dataset):
    return [{key: value for key, value in row.items() if key != "id"} for row in dataset]


@pytest.fixture
def expected(tmp_path):
    (tmp_path / "expected.jsonl").write_bytes(lines())
    return content(load_esconv(tmp_path / "expected.jsonl"))


def parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def stream(path, rows):
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


def arrow_file(path, rows):
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def zst(path, contents):
    with pyarrow.CompressedOutputStream(str(path), "zstd") as out:
        out.write(contents)


HUB_ROWS = [{"text": json.dumps(talk)} for talk in TALKS]
INDENTED = "\n".join(json.dumps(talk, indent=2) for talk in TALKS).encode()
FORMS = {
    "lines": ("talks.jsonl", lambda path: path.write_bytes(lines())),
    "lines called txt": ("talks.txt", lambda path: path.write_bytes(lines())),
    "lines of no name": ("talks", lambda path: path.write_bytes(lines())),
    "Windows line ends": (
        "talks.jsonl", lambda path: path.write_bytes(lines().replace(b"\n", b"\r\n"))
    ),
    "a list": ("talks.json", lambda path: path.write_text(json.dumps(TALKS))),
    "an indented list": ("talks.json", lambda path: path.write_text(json.dumps(TALKS, indent=1))),
    "indented documents": ("talks.json", lambda path: path.write_bytes(INDENTED)),
    "gz": ("talks.jsonl.gz", lambda path: path.write_bytes(gzip.compress(lines()))),
    "gz by content": ("talks.jsonl", lambda path: path.write_bytes(gzip.compress(lines()))),
    "bz2": ("talks.json.bz2", lambda path: path.write_bytes(bz2.compress(lines()))),
    "xz": ("talks.txt.xz", lambda path: path.write_bytes(lzma.compress(lines()))),
    "zst": ("talks.jsonl.zst", lambda path: zst(path, lines())),
    "parquet": ("talks.parquet", lambda path: parquet(path, TALKS)),
    "the hub's parquet": ("talks.parquet", lambda path: parquet(path, HUB_ROWS)),
    "arrow": ("talks.arrow", lambda path: stream(path, TALKS)),
    "arrow's file form": ("talks.arrow", lambda path: arrow_file(path, HUB_ROWS)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_gives_the_same_rows_and_ids(form, expected, tmp_path):
    name, write = FORMS[form]
    write(tmp_path / name)
    dataset = load_esconv(tmp_path / name)
    assert content(dataset) == expected
    assert dataset["id"][:] == ["talks-00000", "talks-00001", "talks-00002"]


def test_one_indented_dialogue_is_one_dialogue(tmp_path, expected):
    (tmp_path / "one.json").write_text(json.dumps(TALKS[0], indent=2))
    assert content(load_esconv(tmp_path / "one.json")) == expected[:1]


# Tables with one row a turn.

HEADER = ["dialogue_id", "speaker", "text", "strategy", "situation"]
TURNS = [
    [str(n), turn["speaker"], turn["text"], turn.get("strategy", ""), talk["situation"]]
    for n, talk in enumerate(TALKS)
    for turn in talk["dialog"]
]


def write_table(path, rows, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize(
    ("name", "delimiter"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t"), ("t.txt", "\t")]
)
def test_a_table_of_turns_is_read(name, delimiter, tmp_path, expected):
    path = write_table(tmp_path / name, [HEADER, *TURNS], delimiter)
    dataset = load_esconv(path)
    assert content(dataset) == expected
    assert dataset["id"][:] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("told", "delimiter"), [("sep=;", ";"), ('"sep=|"', "|"), ("Sep=\t", "\t"), ("\r\nsep=,", ",")]
)
def test_excels_line_names_the_separator_of_a_table(told, delimiter, tmp_path, expected):
    path = write_table(tmp_path / "t.csv", [HEADER, *TURNS], delimiter)
    path.write_bytes(f"{told}\r\n".encode() + path.read_bytes())
    assert content(load_esconv(path)) == expected
    other = tmp_path / "t.txt"  # recognised by its header
    other.write_bytes(path.read_bytes())
    assert content(load_esconv(other)) == expected
    path.write_bytes(path.read_bytes() + b"x")
    number = told.count("\r") + 1 + 1 + len(TURNS) + 1  # that line and the header are lines too
    with pytest.raises(DataError, match=rf"line {number}: expected 5 cells"):
        load_esconv(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sep=,\ndialogue_id;speaker;text\n1;seeker;Hi, you\n",
         "t.csv: the first line names ',' as the separator, and the header has ';'; correct or "
         "delete the first line"),
        ("sep=,\ndialogue_id;speaker;text, as said\n1;seeker;Hi\n",
         "t.csv, line 3: expected 2 cells, as the header has, got 1; complete the row, or put "
         "cells that hold ',' into double quotes, or correct the first line, which names the "
         "separator"),
    ],
)  # fmt: skip
def test_a_wrong_separator_in_the_first_line_is_named(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        load_esconv(tmp_path / "t.csv")
    assert str(caught.value) == f"{tmp_path}/{message}"


def test_separators_within_quotes_of_a_header_separate_nothing(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(
        'dialogue_id;speaker;text;"who, when, where, and why"\n1;seeker;Hi;\n'
        "1;supporter;Hello, you;\n"
    )
    (row,) = load_esconv(path, requests=True)
    assert [turn["text"] for turn in row["dialog"]] == ["Hi", "Hello, you"]


def test_columns_of_a_dialogue_are_known_in_any_letter_case(tmp_path):
    header = ["Dialogue_ID", "Speaker", "Text", "Strategy", "Persona", "Situation", "Emotion_Type",
              "PROBLEM_TYPE", "Experience_Type", "Request"]  # fmt: skip
    said = ["1", "seeker", "Hi", "", "I am a cook.", "No job.", "sad", "job crisis", "Previous", ""]
    asked = ["1", "supporter", "Hello", "Question", *[""] * 5, "TRUE"]
    (row,) = load_esconv(write_table(tmp_path / "t.csv", [header, said, asked]), requests=True)
    kinds = ("situation", "emotion_type", "problem_type", "experience_type", "request")
    assert [row[key] for key in kinds] == ["No job.", "sad", "job crisis", "Previous", True]
    assert row["dialog"][0]["persona"] == ["I am a cook."]
    assert row["dialog"][1]["strategy"] == "Question"


def test_columns_without_a_name_are_no_columns_of_one_name(tmp_path, expected):
    rows = [["", *HEADER, ""], *([str(n), *cells, ""] for n, cells in enumerate(TURNS))]
    assert content(load_esconv(write_table(tmp_path / "t.csv", rows))) == expected


@pytest.mark.parametrize("write", [parquet, stream])
def test_a_table_of_turns_may_be_columnar(write, tmp_path, expected):
    rows = [dict(zip(HEADER, [int(n), *cells], strict=True)) for n, *cells in TURNS]
    write(tmp_path / "t.columns", rows)
    assert content(load_esconv(tmp_path / "t.columns")) == expected
    (tmp_path / "t.jsonl").write_bytes(lines(rows))
    assert content(load_esconv(tmp_path / "t.jsonl")) == expected
    assert content(load_esconv(datasets.Dataset.from_list(rows))) == expected


@pytest.mark.parametrize("told", [["TRUE", "", ""], ["", "", "True"], ["false", "false", "true"]])
def test_a_dialogue_in_a_table_is_marked_as_a_request_in_any_of_its_rows(told, tmp_path):
    asked = [[*cells, mark] for cells, mark in zip(TURNS[:3], told, strict=True)]
    others = [[*cells, "false"] for cells in TURNS[4:]]
    path = write_table(tmp_path / "t.csv", [[*HEADER, "request"], *asked, *others])
    assert load_esconv(path, requests=True)["request"][:] == [True, False, False]
    (sample, *_) = load_samples(str(path), None, SourceSettings())
    assert (sample.id, sample.turn, sample.situation) == ("0/3", 3, "Shop 0 closes.")
    with pytest.raises(DataError, match="a request for the next turn"):
        load_esconv(path)
    path.write_text(path.read_text().replace(told[-1] or "TRUE", "yes"))
    with pytest.raises(DataError, match=r"line 2 .*: 'request' must be true or false, got 'yes'"):
        load_esconv(path, requests=True)


@pytest.mark.parametrize(
    ("header", "last", "guess"),
    [
        ("chat,nr,who,what they said", "", "dialogue: …, speaker: who, text: what they said"),
        ("Dialogue ID,nr,who,said", "", "dialogue: Dialogue ID, speaker: who, text: said"),
        ("conv_id,nr,who,said: all", "", "dialogue: conv_id, speaker: who, text: …"),  # no YAML
        ("chat,nr,role,said", "4,1,Maria,Hello there", "dialogue: …, speaker: role, text: said"),
        ("conv_id,null,who,said", "", "dialogue: conv_id, speaker: who, text: said"),
        ("chat,nr,who,yes", "", "dialogue: …, speaker: who, text: …"),  # no text in YAML
        ("chat,nr,who,said", "4,1,Maria,Hello there", "dialogue: …, speaker: …, text: said"),
    ],
)
def test_columns_of_other_names_are_guessed_where_they_are_plain(tmp_path, header, last, guess):
    rows = [
        f"3,{n},{who},{'My work wears me out. ' * 3}" for n, who in enumerate(["Client", "sys"])
    ]
    (tmp_path / "t.csv").write_text("\n".join([header, *rows, last]))
    with pytest.raises(DataError) as caught:
        load_esconv(tmp_path / "t.csv")
    assert str(caught.value).endswith(f"data.columns='{{{guess}}}'")


def test_columns_of_other_names_are_named_in_the_settings(tmp_path, expected):
    header = ["conv", "who", "said", "move", "situation"]
    path = write_table(tmp_path / "t.csv", [header, *TURNS])
    with pytest.raises(
        DataError,
        match=r"no column has a usual name for the dialogue and the speaker and the text \(col.*"
        r"data.columns='\{dialogue: …, speaker: who, text: …\}'",
    ):
        load_esconv(path)
    columns = {"dialogue": "conv", "speaker": "who", "text": "said", "strategy": "move"}
    assert content(load_esconv(path, columns=columns)) == expected
    rows = load_samples(str(path), None, SourceSettings(columns=columns))
    assert [sample.strategy for sample in rows[:2]] == ["Question", "Reflection of feelings"]
    half = {"dialogue": "conv", "text": "said"}
    with pytest.raises(DataError, match=r"no column has a usual name for the speaker \(columns"):
        load_esconv(path, columns=half)
    with pytest.raises(DataError, match=r"no column 'sad', which data.columns.text names; did you"):
        load_esconv(path, columns={**columns, "text": "sad"})
    with pytest.raises(DataError, match="unknown part 'speakr'; did you mean 'speaker'"):
        load_esconv(path, columns={"speakr": "who"})


def test_rows_that_their_numbers_show_out_of_order_are_refused(tmp_path):
    path = tmp_path / "t.csv"

    def write(*rows):
        path.write_text("nr,dialogue,speaker,text\n" + "".join(f"{row}\n" for row in rows))

    write("1,a,seeker,Hi", "2,a,supporter,Hello", "2,a,supporter,there", "1,b,seeker,Bye")
    assert len(load_esconv(path, requests=True)) == 2
    write("x,a,seeker,Hi", ",a,supporter,Hello", "1,a,seeker,Bye")
    assert len(load_esconv(path, requests=True)) == 1
    write("2.0,a,supporter,Hello", "1.0,a,seeker,Hi")  # as pandas writes a column with a gap
    with pytest.raises(DataError, match=r"goes from 2 down to 1"):
        load_esconv(path, requests=True)
    write("2,a,supporter,Hello", "1,a,seeker,Hi")
    with pytest.raises(
        DataError, match=r"line 3: column 'nr' goes from 2 down to 1 within .*'a'; "
    ):
        load_esconv(path, requests=True)


def test_a_slip_of_what_lies_in_a_folder_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "facebook").mkdir()
    name = "facebook/blenderbot_small-90M"
    assert is_hub_id(name)
    check_model_place(name, "model=…", "give another")
    (tmp_path / "facebook" / "wav2vec").mkdir()
    assert is_hub_id(name)
    (tmp_path / "facebook" / "blenderbot_small-80M").mkdir()
    assert not is_hub_id(name)
    with pytest.raises(CheckpointError) as caught:
        check_model_place(name, "model=…", "give another")
    assert str(caught.value) == (
        "model=…: no such folder; did you mean 'facebook/blenderbot_small-80M'? "
        "(For one of the hub, run where no facebook/ lies.)"
    )
    with pytest.raises(DataError, match=r"did you mean .*80M'\? \(For one of the hub, run where"):
        load_esconv(name)
    assert is_hub_id("owner/name")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [HEADER, TURNS[0], TURNS[4], TURNS[1]],
            r"line 4: turns of dialogue '0' are not consecutive",
        ),
        ([HEADER, TURNS[0], TURNS[1][:3]], r"line 3: expected 5 cells, as the header has, got 3"),
        ([HEADER, TURNS[0], ["", *TURNS[1][1:]]], r"line 3: the dialogue's id in column 'dialog"),
        ([[*HEADER[:4], "text"], TURNS[0]], r"line 1: the column 'text' occurs twice"),
        (
            [["", *HEADER[1:3], "", ""], TURNS[0]],
            r"\(columns: column 1, speaker, text, column 4, c",
        ),
        (
            [HEADER, [*TURNS[0][:2], "a" * 140_000, "", ""]],
            r"line 2: a cell of more than 131,072 c",
        ),
        ([HEADER, [*TURNS[0][:2], "", "", ""]], r"line 2, column 'text': the cell is empty; fill"),
        ([HEADER], r"no dialogues;"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(rows, message, tmp_path):
    path = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(DataError, match=message) as caught:
        load_esconv(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("role", "bot", "column 'role': unknown speaker 'bot'; correct it"),
        ("role", "", "column 'role': the cell is empty; fill it in"),
        ("said", "", "column 'said': the cell is empty; fill it in"),
        ("said", " ", "column 'said': 'text' is empty, expected what the supporter says"),
        ("move", "Qestion", "column 'move': unknown strategy 'Qestion'; did you mean 'Question'"),
        ("move", "", "a supporter turn without strategy"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
def test_a_value_of_a_turn_is_named_by_its_row_and_column(column, cell, message, form, tmp_path):
    header = ["dialogue_id", "role", "said", "move"]
    rows = [dict(zip(header, cells[:4], strict=True)) for cells in TURNS]
    at = 3  # a supporter's turn
    rows[at][column] = cell
    path = tmp_path / f"t.{form}"
    if form == "csv":
        # Blank lines before the header, and a row of two lines.
        write_table(path, [header, *([*row.values()] for row in rows)])
        first, rest = path.read_bytes().split(b"\r\n", 1)
        path.write_bytes(b"\r\n\r\n" + first + b'\r\nx,sys,"a\r\nb",Question\r\n' + rest)
    else:
        rows = [{key: value or None for key, value in row.items()} for row in rows]
        {"jsonl": lambda p, r: p.write_bytes(lines(r)), "parquet": parquet,
         "json": lambda p, r: p.write_text(json.dumps(r))}[form](path, rows)  # fmt: skip
    place = {"csv": f"line {at + 6}", "jsonl": f"line {at + 1}"}.get(form, f"row {at}")
    columns = {"speaker": "role", "text": "said", "strategy": "move"}
    with pytest.raises(DataError, match=re.escape(f"{path}, {place}") + "(: |, )" + message):
        load_esconv(path, columns=columns)


@pytest.mark.parametrize("place", [0, 1])
def test_an_open_quote_is_one_line(place, tmp_path):
    rows = [",".join(HEADER[:4]) + ",", "0,usr,hello,,"]
    rows[place] += '"open'
    (tmp_path / "t.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match=rf"t.csv, line {place + 1}: not valid CSV"):
        load_esconv(tmp_path / "t.csv")


# Folders.


@pytest.mark.parametrize("valid", ["validation", "valid", "val", "dev"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json.gz"])
def test_a_folder_of_splits_takes_any_form(valid, ending, tmp_path, expected):
    pack = gzip.compress if ending.endswith(".gz") else bytes
    for number, name in enumerate(("train", valid, "test")):
        (tmp_path / f"{name}{ending}").write_bytes(pack(lines(TALKS[number : number + 1])))
    (tmp_path / "strategy.json").write_text("[]")
    assert content(load_esconv(tmp_path)) == expected
    assert content(load_esconv(tmp_path, "validation")) == expected[1:2]
    assert has_splits(tmp_path)


def test_a_clone_from_the_hub_is_a_folder_of_splits(tmp_path, expected):
    (tmp_path / "data").mkdir()
    for number in range(2):
        parquet(tmp_path / f"data/train-0000{number}-of-00002.parquet", HUB_ROWS[number:][:1])
    parquet(tmp_path / "data/test-00000-of-00001.parquet", HUB_ROWS[2:])
    dataset = load_esconv(tmp_path)
    assert content(dataset) == expected
    assert dataset["id"][:] == ["train-00000", "train-00001", "test-00000"]
    (tmp_path / "data/train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="1 of the 2 parts of train are there; fetch the others"):
        load_esconv(tmp_path)


def test_two_files_of_one_split_are_not_mixed(tmp_path, caplog):
    (tmp_path / "train.jsonl").write_bytes(lines(TALKS[:1]))
    (tmp_path / "train.txt").write_bytes(lines(TALKS))
    assert len(load_esconv(tmp_path)) == 1
    assert "train is read from train.jsonl, not from train.txt" in caplog.text


@pytest.mark.parametrize("rows", [TALKS, HUB_ROWS])
def test_what_save_to_disk_wrote_is_read(rows, tmp_path, expected):
    whole = datasets.Dataset.from_list(rows)
    whole.save_to_disk(tmp_path / "one")
    assert content(load_esconv(tmp_path / "one")) == expected
    assert not has_splits(tmp_path / "one")
    splits = datasets.DatasetDict(
        {name: whole.select([n]) for n, name in enumerate(("train", "validation", "test"))}
    )
    splits.save_to_disk(tmp_path / "three")
    assert content(load_esconv(tmp_path / "three")) == expected
    assert content(load_esconv(tmp_path / "three", "validation")) == expected[1:2]
    (tmp_path / "three/test/state.json").write_text("{")
    with pytest.raises(DataError, match="three: a saved data set that cannot be loaded"):
        load_esconv(tmp_path / "three")


# In memory.


def test_dialogues_in_memory_are_read(expected):
    whole = datasets.Dataset.from_list(TALKS)
    splits = datasets.DatasetDict(train=whole.select([0, 1]), test=whole.select([2]))
    for source in (TALKS, tuple(TALKS), whole, splits, HUB_ROWS):
        assert content(load_esconv(source)) == expected
    assert load_esconv(TALKS)["id"][:2] == ["dialogues-00000", "dialogues-00001"]
    assert content(load_esconv(splits, "test")) == expected[2:]
    assert has_splits(splits)
    assert not has_splits(TALKS)


def test_rows_that_were_read_can_be_read_again(tmp_path):
    request = {"id": "r", "dialog": [{"speaker": "usr", "text": "Hi"}], "persona": ["I am 40."]}
    (tmp_path / "a.jsonl").write_bytes(lines([*TALKS, request]))
    rows = load_esconv(tmp_path / "a.jsonl", requests=True)
    assert list(load_esconv(rows, requests=True)) == list(rows)
    assert list(load_esconv(list(rows), requests=True)) == list(rows)
    rows.to_parquet(tmp_path / "b.parquet")
    assert list(load_esconv(tmp_path / "b.parquet", requests=True)) == list(rows)
    assert list(load_esconv(load_esconv(ESCONV, "test"))) == list(load_esconv(ESCONV, "test"))


def test_a_list_of_files_is_read_in_order(tmp_path, expected):
    paths = []
    for number, talk in enumerate(TALKS):
        (tmp_path / str(number)).mkdir()
        paths.append(tmp_path / str(number) / "talks.jsonl")
        paths[-1].write_bytes(lines([talk]))
    dataset = load_esconv(paths)
    assert content(dataset) == expected
    assert dataset["id"][:] == ["talks-00000", "talks_2-00000", "talks_3-00000"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (["no.jsonl"], r"no.jsonl: no such file; give a list of files"),
        (["no.jsonl", TALKS[0]], "holds names of files too"),
        ([{"dialog": []}], r"dialogues, dialogue 0: the dialog is empty"),
        ([TALKS[0], 5], r"dialogues, dialogue 1: expected a JSON object, got int"),
        ([], "no dialogues;"),
        (None, "cannot be read from NoneType; give a file, a folder"),
        (TALKS[0], "cannot be read from dict"),
        (iter(TALKS), "cannot be read from list_iterator"),
        (b"talks.jsonl", "cannot be read from bytes"),
        ("a\0b", "no such file"),
        ("x" * 5000, "no such file"),
        ("/dev/null", "a device, not a file"),
    ],
)
def test_what_is_no_source_is_refused(source, message):
    with pytest.raises(DataError, match=message) as caught:
        load_esconv(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_only_what_has_splits_gives_one(tmp_path):
    for source in (TALKS, datasets.Dataset.from_list(TALKS)):
        with pytest.raises(DataError, match="they have no split 'test'"):
            load_esconv(source, "test")
    many = [{**talk, "id": f"{n}{i}"} for n in range(10) for i, talk in enumerate(TALKS)]
    assert [len(load_split(many, name)) for name in ("train", "validation", "test")] == [21, 6, 3]


# Files of other kinds.


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("contexts.tsv", b"1.0 0 0 hi there EOS 1.0 1 1 [Others] hello\n",
         "contexts for the release's own training script.*give the corpus"),
        ("moves.csv", b"Dialogue_History,Strategy_History,Next_Strategy\n<START>,1,7",
         "EmoDynamiX's table of decisions.*thu-coai/esconv"),
        ("moves.csv", b'sep=;\n"Dialogue_History"; Strategy_History;Next_Strategy\n<START>;1;7',
         "EmoDynamiX's table of decisions.*thu-coai/esconv"),
        ("a.txt", b"hello there\n", "an unknown format of dialogues: .*got 'hello there'"),
        ("a.zip", b"PK\x03\x04\x00\xff", "a zip archive or a workbook; unpack it"),
        ("a.pkl", b"\x80\x04\x95\xff", "a pickle, which is code and never loaded"),
        ("a.jsonl", b"\xff\xfeh\x00", "UTF-16 text; save it as UTF-8"),
        ("a.jsonl", b'{"a": "\xff"}', "not UTF-8 at byte 7; save it as UTF-8"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
         "a Git LFS pointer, not the file itself; run `git lfs pull`"),
        ("a.parquet", b"PAR1 and nothing", "as parquet .*download or write the file"),
        ("a.parquet", b"", "the file is empty"),
        ("a.arrow", b"ARROW1\0\0....", "cannot be read as arrow"),
        ("a.jsonl.gz", gzip.compress(lines(), mtime=0)[:-20], "a damaged gz file"),
        ("a.jsonl.gz", gzip.compress(b"  \n", mtime=0), "the file is empty"),
        ("a.xz", lzma.compress(lines())[:-20], "a damaged xz file"),
        ("a.bz2", bz2.compress(lines())[:-20], "a damaged bz2 file"),
        ("a.zst", b"\x28\xb5\x2f\xfd....", "a damaged zst file"),
    ],
)  # fmt: skip
def test_other_files_are_named_as_what_they_are(name, contents, message, tmp_path):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(DataError, match=message) as caught:
        load_esconv(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_half_written_file_names_its_cut(tmp_path):
    whole = lines()
    for cut in range(len(whole) - 1, 10, -37):
        (tmp_path / "a.jsonl").write_bytes(whole[:cut])
        if whole[cut - 1 : cut] == b"\n" or whole[cut : cut + 1] == b"\n":
            continue
        with pytest.raises(DataError, match=r"a.jsonl, line \d+: not valid JSON"):
            load_esconv(tmp_path / "a.jsonl")
    (tmp_path / "b.json").write_text(json.dumps(TALKS, indent=1)[:-30])
    with pytest.raises(DataError, match=r"b.json, line \d+: not valid JSON .* if it was cut off"):
        load_esconv(tmp_path / "b.json")


def test_training_reads_as_the_settings_say(tmp_path):
    from pal.training.preparation import response_samples

    header = ["conv", "speaker", "text", "strategy"]
    turns = [
        [n, who, text, "Ask" if move == "Question" else move] for n, who, text, move, _ in TURNS
    ]
    path = write_table(tmp_path / "t.csv", [header, *turns])
    how = {"columns": {"dialogue": "conv"}, "strategy_labels": {"Ask": "Question"}}
    train, validation = response_samples(
        DataSettings(train=str(path), validation=str(path), split="seeded", **how)
    )
    assert (len(train), len(validation)) == (6, 6)
    assert {sample.strategy for sample in train} == {"Question", "Reflection of feelings"}
    with pytest.raises(DataError, match="unknown strategy 'Ask'"):
        response_samples(
            DataSettings(train=str(path), validation=str(path), columns=how["columns"])
        )


# Readers of one's own.


class Bars(CorpusReader):
    """Turns of one dialogue a line, parted by bars."""

    def recognises(self, file):
        return False

    def read(self, file):
        for number, line in enumerate(file.text.splitlines(), start=1):
            turns = [{"speaker": "usr", "text": text} for text in line.split("|")]
            turns[-1].update(speaker="sys", strategy="Others")
            yield f"line {number}", {"dialog": turns}


def test_a_users_own_reader_is_named_in_the_settings(tmp_path):
    (tmp_path / "a.txt").write_text("hi|there\nwhat|now|bye\n")
    how = SourceSettings(reader="tests.data.test_sources:Bars")
    rows = load_split(str(tmp_path / "a.txt"), None, how=how)
    assert [len(row["dialog"]) for row in rows] == [2, 3]
    with pytest.raises(ConfigError, match="unknown reader 'jsn'; did you mean 'json'"):
        load_esconv(tmp_path / "a.txt", reader="jsn")


# Pipes.


@pytest.fixture
def fifo(tmp_path):
    """A named pipe, and a function that writes to it once in the background."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writers = []

    def write(contents):
        writers.append(threading.Thread(target=lambda: path.write_bytes(contents), daemon=True))
        writers[-1].start()
        return path

    yield write
    for writer in writers:
        writer.join(timeout=10)


@pytest.mark.parametrize("pack", [bytes, partial(gzip.compress, mtime=0)], ids=["plain", "gz"])
def test_a_pipe_is_read_once_and_hashed_by_what_came_through(fifo, pack, tmp_path, expected):
    path = fifo(pack(lines()))
    shutil.copy(tmp_path / "expected.jsonl", tmp_path / "copy.jsonl")
    before = source_fingerprint(path)
    rows = load_esconv(path)
    assert content(rows) == expected
    assert rows["id"][0] == "pipe-00000"
    (tmp_path / "same").write_bytes(pack(lines()))
    assert before == source_fingerprint(path) == source_fingerprint(tmp_path / "same")
    assert content(load_split(str(path), None)) == expected


def test_several_processes_cannot_share_a_pipe(fifo, tmp_path, monkeypatch):
    path = tmp_path / "pipe"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DataError, match="a pipe, which only one process can read; give a file"):
        load_esconv(path)


def test_standard_input_and_process_substitution_are_pipes(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines())
    code = (
        "import sys; from pal import load_esconv; from pal.core.files import source_fingerprint; "
        "print(len(source_fingerprint(sys.argv[1])), len(load_esconv(sys.argv[1])))"
    )
    for shell in ('"$0" -c "$1" <(cat "$2")', 'cat "$2" | "$0" -c "$1" /dev/stdin',
                  '"$0" -c "$1" /dev/stdin < "$2"'):  # fmt: skip
        done = subprocess.run(
            ["bash", "-c", shell, sys.executable, code, str(tmp_path / "a.jsonl")],
            capture_output=True, text=True, env=environment(), cwd=tmp_path,
        )  # fmt: skip
        assert done.stdout == "24 3\n", done.stderr


# A split of a single file.


def test_a_file_that_is_called_after_a_split_is_that_split(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="pal")
    for name in ("train.jsonl.gz", "valid.txt", "test-00000-of-00001.jsonl"):
        pack = gzip.compress if name.endswith(".gz") else bytes
        (tmp_path / name).write_bytes(pack(lines()))
        split = {"train": "train", "valid": "validation", "test-": "test"}[name[:5]]
        assert len(load_samples(str(tmp_path / name), split, SourceSettings())) == 6
        assert f"its name says that it is the {split} split" in caplog.text
        with pytest.raises(DataError, match="too few for a split"):
            load_split(str(tmp_path / name), split)
    with pytest.raises(DataError, match="too few for a split"):
        load_samples(str(tmp_path / "valid.txt"), "test", SourceSettings())
    with pytest.raises(DataError, match="too few for a split"):
        load_samples(str(tmp_path / "valid.txt"), "validation", SourceSettings(split="seeded"))


def test_training_cuts_its_validation_from_a_file_of_any_name(tmp_path):
    write_pesconv(tmp_path / "train.jsonl", load_esconv(ESCONV))
    parts = [
        set(load_split(str(tmp_path / "train.jsonl"), name)["id"])
        for name in ("train", "validation", "test")
    ]
    assert not parts[0] & parts[1]
    assert sum(map(len, parts)) == len(load_esconv(ESCONV))


def test_settings_that_cannot_be_used_are_one_line():
    with pytest.raises(ValueError, match="did you mean 'Question'"):
        SourceSettings(strategy_labels={"Ask": "Qestion"})
    assert SourceSettings(strategy_labels={"Ask": "questions"}).strategy_labels == {
        "Ask": "Question"
    }
    with pytest.raises(PalError, match="unknown strategy 'Qestion'"):
        load_esconv(TALKS, strategy_labels={"Ask": "Qestion"})
