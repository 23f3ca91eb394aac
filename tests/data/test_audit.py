"""Duplicates that are planted are found, and nothing else; the real split; files of windows."""

import json
import logging
import random
import re
import tracemalloc

import pytest

from pal.core.errors import ConfigError, DataError
from pal.core.settings import bundled
from pal.data import audit, near
from pal.data.audit import (
    CorpusAudit,
    audit_sources,
    audited_sources,
    describe_audit,
    summarise_audit,
)
from pal.data.near import NearIndex, Shingles, shared_share, split_words
from pal.data.settings import AuditDataSettings, AuditOptions
from pal.speed.synthetic import synthetic_dialogues
from tests.data import planted
from tests.jobs import command

SAMPLE = bundled("sample", "esconv")


def read(name):
    lines = (SAMPLE / f"{name}.jsonl").read_text().splitlines()
    return [{**json.loads(line), "id": f"{name}-{n}"} for n, line in enumerate(lines)]


def spoken(dialogues):
    return [
        (d["id"], d.get("situation"), [
            ({"usr": "seeker", "sys": "supporter"}[t["speaker"]], t["text"]) for t in d["dialog"]
        ])
        for d in dialogues
    ]  # fmt: skip


def compare(train, test, **options):
    audit = CorpusAudit(AuditOptions(**{"examples": 1000, **options}))
    audit.read("train", "train.jsonl", spoken(train), rule="not_first")
    audit.read("test", "test.jsonl", spoken(test), rule="after_seeker")
    return audit, audit.report()


def found_in(report, level, key="between"):
    (row,) = [
        row for row in report[key]
        if row["level"] == level and (row["of"], row["in"]) == (
            ("test", "train") if key == "between" else ("train", "train"))
    ]  # fmt: skip
    return {example["id"]: example["kind"] for example in row["examples"]}, row


def hunt(train, test, seed):
    """Return planted items that were missed, those of another kind, and false alarms."""
    wanted, besides = planted.plant(train, test, seed)
    _, report = compare(train, test)
    missed, mistaken, alarms = [], [], []
    for level in planted.LEVELS:
        found, _ = found_in(report, level)
        here = {ident: kind for (where, kind), ident in wanted.items() if where == level}
        missed += [(seed, level, kind) for ident, kind in here.items() if ident not in found]
        mistaken += [
            (seed, level, kind, found[ident])
            for ident, kind in here.items() if found.get(ident, kind) != kind
        ]  # fmt: skip
        alarms += [(seed, level, ident) for ident in found if ident not in {*here, *besides[level]}]
    return missed, mistaken, alarms


@pytest.mark.parametrize("seed", range(20))
def test_every_planted_duplicate_is_found_under_its_kind_and_nothing_else(seed):
    everyone = read("train") + read("validation") + read("test")
    random.Random(seed).shuffle(everyone)
    assert hunt(everyone[:28], everyone[28:], seed) == ([], [], [])


def test_a_corpus_without_duplicates_has_none():
    report = compare(read("train"), read("test"))[1]
    assert [row["duplicates"] for row in report["between"]] == [0, 0, 0, 0]
    assert report["affected"][0]["affected"] == 0
    assert "0 of" in describe_audit(report)


# ----------------------------------------------------------------------------- the real corpus


def test_the_hub_split_shares_two_situations_and_nothing_else(shared_data):
    data = AuditDataSettings(train=str(shared_data / "esconv"))
    _, report = audit_sources(audited_sources(data), data, AuditOptions())
    rows = {(row["level"], row["of"], row["in"]): row for row in report["between"]}
    assert len(rows) == 12
    assert {key for key, row in rows.items() if row["duplicates"]} == {
        ("situations", "test", "train")
    }
    shared = rows["situations", "test", "train"]
    assert (shared["exact"], shared["normalised"], shared["near"]) == (2, 0, 0)
    assert [(e["id"], e["other"]) for e in shared["examples"]] == [
        ("test-00114", "train-00364"), ("test-00188", "train-00675"),
    ]  # fmt: skip
    assert report["splits"]["test"]["samples"] == 2295
    (affected,) = [x for x in report["affected"] if (x["of"], x["in"]) == ("test", "train")]
    assert affected["affected"] == affected["by"]["situations"] == 20
    within = {(r["level"], r["of"]): r["duplicates"] for r in report["within"] if r["duplicates"]}
    assert within == {("situations", "train"): 3}


def test_planted_duplicates_are_found_among_real_dialogues(shared_data):
    parts = []
    for name in ("train", "test"):
        lines = (shared_data / "esconv" / f"{name}.jsonl").read_text().splitlines()
        parts.append([{**json.loads(x), "id": f"{name}-{n}"} for n, x in enumerate(lines)])
    train, test = parts
    missed, mistaken, alarms = hunt(train, test, 7)
    assert (missed, mistaken) == ([], [])
    assert {ident for _, _, ident in alarms} <= {"test-114", "test-188"}


def windows_of(dialogues, size=10):
    """Cut dialogues as MISC does: one window a supporter turn after the seeker's first."""
    made = []
    for dialogue in dialogues:
        seen = False
        for place, turn in enumerate(dialogue["dialog"]):
            if turn["speaker"] == "sys" and seen:
                start = max(0, place + 1 - size)
                parts = [
                    f"3 {int(t['speaker'] == 'sys')} {start + n} "
                    + (f"[{t['strategy']}] " if t["speaker"] == "sys" else "") + t["text"]
                    for n, t in enumerate(dialogue["dialog"][start : place + 1])
                ]  # fmt: skip
                made.append((" EOS ".join(parts), dialogue["situation"] or "none"))
            seen = seen or turn["speaker"] == "usr"
    return made


def write_windows(folder, windows):
    for name, part in windows.items():
        lines = [[window[0] for window in part], [window[1] for window in part]]
        for ending, texts in zip(("WithStrategy_short.tsv", "Situation.txt"), lines, strict=True):
            (folder / f"{name}{ending}").write_text("\n".join(texts) + "\n")


def audit_windows(folder, **options):
    names = [str(folder / f"{name}WithStrategy_short.tsv") for name in ("train", "test")]
    data = AuditDataSettings(train=names[0], test=names[1])
    return audit_sources(audited_sources(data), data, AuditOptions(**options))


def test_a_split_by_windows_leaks_as_miscs_does(shared_data, tmp_path):
    texts = (shared_data / "esconv" / "ESConv.json").read_text()
    dialogues = [
        {"situation": " ".join(d["situation"].split()), "dialog": [
            {"text": " ".join(t["content"].split()), "strategy": "Others",
             "speaker": "sys" if t["speaker"] == "supporter" else "usr"} for t in d["dialog"]
        ]}
        for d in json.loads(texts)
    ]  # fmt: skip
    windows = windows_of(dialogues)
    assert len(windows) == 17645  # as many as in MISC's three files
    random.Random(13).shuffle(windows)
    write_windows(tmp_path, {"train": windows[:14117], "test": windows[-1764:]})
    _, report = audit_windows(tmp_path)
    assert report["splits"]["test"]["holds"] == "windows"
    rows = {row["level"]: row for row in report["between"]}
    assert rows["situations"]["share"] == 1.0
    assert rows["situations"]["items"] == 1764
    targets, ordinary = rows["targets"], rows["targets"]["ordinary"]
    assert targets["items"] + ordinary["items"] == 1764
    assert (targets["exact"] + targets["normalised"] + ordinary["shared"]) / 1764 > 0.85
    assert report["affected"][0]["share"] == 1.0


# ----------------------------------------------------------------------------- other files


def test_windows_of_a_dialogue_level_split_share_nothing(tmp_path):
    parts = {name: windows_of(read(name)) for name in ("train", "test")}
    write_windows(tmp_path, parts)
    audit, report = audit_windows(tmp_path)
    assert [row["duplicates"] for row in report["between"]] == [0, 0, 0, 0]
    assert report["splits"]["train"]["samples"] == len(parts["train"])
    assert report["splits"]["train"]["situations"] == len(parts["train"])
    with pytest.raises(ConfigError, match="holds windows of turns"):
        audit.clean_ids()


LONG = (
    "I really do think that you should give yourself a lot more credit for everything that you "
    "have already managed to do this year, one small step after another."
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", f"hi there\n{LONG}\n"),
        ("a.txt", f"hi there __eou__ {LONG} __eou__\nbye __eou__ see you __eou__\n"),
        ("a.tsv.txt", f"hi there\t{LONG}\nbye\tsee you\n"),
        ("a.tsv", f"1.0 0 0 hi EOS 1.0 1 1 [Question] {LONG}\n"),
        ("a.csv", "Dialogue_History,Strategy_History,Speaker_Turn,Gold_Standard,Next_Strategy\n"
                  f'<START> </s> hi,"[-1, -1]",None seeker,"{LONG}",3\n'),
        ("a.csv", "sep=;\n\"Dialogue_History\"; Speaker_Turn;Gold_Standard\n"
                  f'<START> </s> hi;None seeker;"{LONG}"\n'),
        ("a.jsonl", json.dumps({"dialog": [{"speaker": "usr", "text": "hi"}, {
            "speaker": "sys", "text": LONG, "strategy": "A label of another set"}]})),
    ],
)  # fmt: skip
def test_files_of_other_projects_are_read(tmp_path, name, text):
    other = tmp_path / name
    other.write_text(text)
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps({"dialog": [
        {"speaker": "usr", "text": "hello"},
        {"speaker": "sys", "text": LONG.lower(), "strategy": "Question"},
    ]}))  # fmt: skip
    data = AuditDataSettings(train=str(train), test=str(other))
    _, report = audit_sources(audited_sources(data), data, AuditOptions())
    assert found_in(report, "targets")[1]["normalised"] == 1


@pytest.mark.parametrize(("before", "row", "message"), [
    ("", 'hi,seeker,"why?', r"a\.csv, line 2: not valid CSV"),
    ("sep=;\n", "hi,seeker,why?", r"a\.csv: the first line names ';' as the separator"),
])  # fmt: skip
def test_a_damaged_table_of_decisions_is_named(tmp_path, before, row, message):
    path = tmp_path / "a.csv"
    path.write_text(f"{before}Dialogue_History,Speaker_Turn,Gold_Standard\n{row}\n")
    data = AuditDataSettings(train=str(path))
    with pytest.raises(DataError, match=message):
        audit_sources(audited_sources(data), data, AuditOptions())


def test_a_file_that_is_no_text_is_refused(tmp_path, caplog):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(128, 256)))
    data = AuditDataSettings(train=str(path))
    with pytest.raises(DataError, match=r"a\.bin"):
        audit_sources(audited_sources(data), data, AuditOptions())
    assert "within it" not in caplog.text  # of a file that was not read, this says nothing


def test_seeded_and_listed_splits_are_compared_as_they_are_read(tmp_path):
    data = AuditDataSettings(train=str(SAMPLE / "train.jsonl"), protocol="paper_712")
    assert list(audited_sources(data)) == ["train", "validation", "test"]
    _, report = audit_sources(audited_sources(data), data, AuditOptions())
    assert [part["dialogues"] for part in report["splits"].values()] == [24, 7, 3]
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps({"train": ["sample-41"], "test": ["sample-03"]}))
    data = AuditDataSettings(train=str(SAMPLE), ids=str(ids))
    _, report = audit_sources(audited_sources(data), data, AuditOptions())
    assert {n: part["dialogues"] for n, part in report["splits"].items()} == {"train": 1, "test": 1}


def test_one_file_is_compared_with_itself_and_says_so(tmp_path, caplog):
    path = tmp_path / "all.jsonl"
    twice = [*read("test"), {**read("test")[0], "id": "again"}]
    path.write_text("".join(json.dumps(d) + "\n" for d in twice))
    data = AuditDataSettings(train=str(path))
    audit, report = audit_sources(audited_sources(data), data, AuditOptions())
    assert "within it" in caplog.text
    assert found_in(report, "dialogues", "within")[0] == {"again": "exact"}
    assert audit.clean_ids()["train"] == [d["id"] for d in twice[:-1]]


# ----------------------------------------------------------------------------- the clean list


def test_the_clean_list_is_read_by_its_protocol_and_is_clean(tmp_path, capsys):
    train, test = read("train"), read("test")
    wanted, _ = planted.plant(train, test, seed=3)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, part in (("train", train), ("test", test)):
        (corpus / f"{name}.jsonl").write_text("".join(json.dumps(d) + "\n" for d in part))
    source, output = f"data.train={corpus}", f"output={tmp_path / 'audit.json'}"
    assert command("audit", source, output, "fix=true") == 0
    table = capsys.readouterr().out
    assert "and repeat none of their own split: train" in table
    assert "of 20 words or more which have 60 % or more of their pairs of neighbouring" in table
    assert re.search(r"; of \d+ such targets of test, \d+ also occur in train", table)
    ids = tmp_path / "audit.ids.json"
    kept = json.loads(ids.read_text())
    assert kept["test"] == [d["id"] for d in test]
    assert len(train) > len(kept["train"]) >= len(train) - len(wanted)
    again = f"output={tmp_path / 'again.json'}"
    assert command("audit", source, f"data.ids={ids}", again) == 0
    report = json.loads((tmp_path / "again.json").read_text())
    assert report["splits"]["train"]["dialogues"] == len(kept["train"])
    assert [row["duplicates"] for row in report["between"]] == [0, 0, 0, 0]
    capsys.readouterr()
    assert command("audit", source, output, "fix=true") == 0
    assert capsys.readouterr().out == table
    assert {p.stat().st_mode & 0o077 for p in (tmp_path / "audit.json", tmp_path / "audit.md")} == {
        0
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.train=x.jsonl", "fix=true"], "give output="),
        (["data.train=x.jsonl", "output=a.txt"], "give a .json name"),
        ([], "give data.train="),
        (["data.train=nowhere.jsonl"], "no such file"),
        (["data.train=bundled:esconv", "audit.near=0.1"], "audit.near"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, capsys):
    assert command("audit", *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_list_that_would_be_empty_is_refused():
    audit, _ = compare(read("test"), read("test"))
    with pytest.raises(DataError, match="nothing would be left"):
        audit.clean_ids()


def test_the_numbers_without_the_texts():
    _, report = compare(read("test"), read("test"))
    bare = json.dumps(summarise_audit(report))
    assert "examples" not in json.loads(bare)["between"][0]
    assert all(d["dialog"][-1]["text"] not in bare for d in read("test"))


# ----------------------------------------------------------------------------- what is alike


def test_words_are_letters_without_case_marks_and_forms():
    assert split_words("It’s \uff26\uff29\uff2e\uff25\u2014now!") == ["it", "s", "fine", "now"]
    assert split_words("我很累 ok") == ["我", "很", "累", "ok"]


def test_similar_texts_are_found_with_the_probability_that_bands_give():
    rng, found, alike = random.Random(5), 0, 0
    index, shingles, texts = NearIndex(rows=5, bands=24, keeps_sketches=True), Shingles(2), []
    for _ in range(300):
        words = [f"w{rng.randrange(5000)}" for _ in range(40)]
        texts += [words, [w if rng.random() > 0.08 else f"n{rng.randrange(9999)}" for w in words]]
    for words in texts:
        index.add(shingles.of(words))
    pairs = {tuple(pair) for pair in index.pairs().tolist()}
    for one in range(0, len(texts), 2):
        if shared_share(texts[one], texts[one + 1], 2) >= 0.6:
            alike += 1
            found += (one, one + 1) in pairs
    assert alike > 150
    assert found / alike > 0.95
    strangers = [pair for pair in pairs if pair[0] // 2 != pair[1] // 2]
    assert not strangers
    kept = index.pairs()
    estimates = index.similarities(kept)
    truth = [shared_share(texts[a], texts[b], 2) for a, b in kept.tolist()]
    assert max(abs(estimates - truth)) < 0.2
    assert abs((estimates - truth).mean()) < 0.02


def test_what_was_read_is_logged(caplog):
    caplog.set_level(logging.INFO)
    compare(read("train"), read("test"))
    assert "train: 34 dialogues read from " in caplog.text


def synthetic(count):
    for row in synthetic_dialogues(count, turns=6, seed=1):
        turns = [(turn["speaker"], turn["text"]) for turn in row["dialog"]]
        yield row["id"], row["situation"], turns


def held_by_an_audit(count):
    """The memory at its highest, bytes, from the first dialogue to the report."""
    tracemalloc.start()
    try:
        whole = CorpusAudit(AuditOptions())
        whole.read("train", "synthetic", synthetic(count), rule="not_first")
        whole.report()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_audit_holds_numbers_and_no_texts(monkeypatch):
    for module, name in ((near, "WORDS"), (near, "BLOCK"), (audit, "WAITING")):
        monkeypatch.setattr(module, name, 256)  # what does not grow is small
    held_by_an_audit(10)
    few, many = map(held_by_an_audit, (500, 1500))
    # The texts of a dialogue of six turns alone are 600 bytes; held with their sets it was 1,250.
    assert (many - few) / 1000 < 700
