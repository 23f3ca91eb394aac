"""One name for split, samples and labels; what results say of it; what does not compare."""

import json
from pathlib import Path

import pytest

from pal.core.errors import ConfigError, DataError
from pal.core.settings import bundled
from pal.data import splits
from pal.data.audit import audit_sources, audited_sources
from pal.data.esconv import load_esconv, write_pesconv
from pal.data.protocols import (
    PROTOCOLS,
    check_mergeable,
    describe_stamp,
    dialogue_key,
    hash_dialogues,
    read_id_list,
    stamp_beside,
    stamp_of,
)
from pal.data.samples import build_samples, load_samples, load_stamped_samples
from pal.data.settings import (
    AuditDataSettings,
    AuditOptions,
    DataSettings,
    ReadingSettings,
    SourceSettings,
)
from pal.data.splits import load_split
from pal.speed.synthetic import write_synthetic
from pal.training.preparation import response_dialogues, response_samples

SAMPLE = str(bundled("sample", "esconv"))


def list_file(tmp_path, **ids):
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(ids))
    return str(path)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("name", ["hub", "all_turns", "not_first", "paper_712"])
def test_a_protocol_has_the_counts_and_the_hash_of_the_real_corpus(shared_data, name, split):
    protocol, source = PROTOCOLS[name], str(shared_data / "esconv")
    facts, how = protocol.facts[split], SourceSettings(protocol=name)
    rows = list(load_split(source, split, how=how))
    rule = protocol.training if split == "train" else protocol.evaluation
    assert (len(rows), len(build_samples(rows, rule))) == (facts.dialogues, facts.samples)
    assert hash_dialogues(rows) == facts.hash
    if split == "test":
        samples, stamp = load_stamped_samples(source, split, how)
        assert (len(samples), stamp["name"], stamp["split"]) == (facts.samples, name, "test")


def test_the_seeded_split_is_the_same_from_the_releases_one_file(shared_data):
    how = SourceSettings(protocol="paper_712")
    rows = load_split(str(shared_data / "esconv" / "ESConv.json"), "test", how=how)
    assert hash_dialogues(rows) == PROTOCOLS["paper_712"].facts["test"].hash


@pytest.mark.parametrize(
    ("given", "samples", "name"),
    [
        ({}, "evaluation", "hub"),
        ({}, "training", "not_first"),
        ({"split": "seeded"}, "evaluation", "paper_712"),
        ({"split": "seeded"}, "training", None),
    ],
)
def test_the_earlier_keys_have_their_names(given, samples, name):
    found, stamp = load_stamped_samples(SAMPLE, "test", SourceSettings(**given), rule=samples)
    assert stamp["name"] == name
    if name:
        under_its_name = load_samples(SAMPLE, "test", SourceSettings(protocol=name))
        assert [sample.id for sample in under_its_name] == [sample.id for sample in found]


def test_a_part_cut_off_one_file_is_not_called_the_hubs():
    _, stamp = load_stamped_samples(f"{SAMPLE}/train.jsonl", "test", SourceSettings())
    assert stamp["name"] == "paper_712"
    _, whole = load_stamped_samples(f"{SAMPLE}/test.jsonl", "test", SourceSettings())
    assert whole["name"] == "hub"


def test_all_turns_has_first_turns_which_know_nothing():
    how = SourceSettings(protocol="all_turns")
    first = [sample for sample in load_samples(SAMPLE, "test", how) if sample.turn == 0]
    everyone = load_esconv(SAMPLE, "test")
    opened = [row for row in everyone if row["dialog"][0]["speaker"] == "supporter"]
    assert len(first) == len(opened) > 0
    assert all((sample.context, sample.persona) == ((), ()) for sample in first)


def test_training_and_validation_follow_the_protocol():
    plain = response_samples(DataSettings(train=SAMPLE))
    all_turns = response_samples(DataSettings(train=SAMPLE, protocol="all_turns"))
    not_first = response_samples(DataSettings(train=SAMPLE, protocol="not_first"))
    assert [len(part) for part in not_first] > [len(part) for part in plain]
    assert len(not_first[0]) == len(plain[0]) < len(all_turns[0])
    assert len(plain[1]) < len(not_first[1]) <= len(all_turns[1])


# ----------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"protocol": "hub", "split": "seeded"}, "leave data.split out"),
        ({"protocol": "paper_712", "split": "published"}, "leave data.split out"),
        ({"protocol": "file"}, "data.ids"),
        ({"protocol": "hub", "ids": "x.json"}, "data.protocol=file"),
        ({"protocol": "hup"}, "'hub'"),
    ],
)
def test_settings_that_contradict_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        ReadingSettings(**given)


def test_a_list_alone_names_its_protocol():
    assert ReadingSettings(ids="x.json").protocol == "file"


def test_a_split_that_agrees_may_be_given():
    assert ReadingSettings(protocol="paper_712", split="seeded").split == "seeded"
    settings = ReadingSettings(protocol="paper_712")
    assert ReadingSettings(**settings.model_dump()) == settings


def test_a_rule_that_contradicts_is_refused():
    with pytest.raises(ConfigError, match=r"data\.protocol=not_first"):
        load_samples(SAMPLE, "test", SourceSettings(protocol="hub"), rule="training")
    how = SourceSettings(protocol="not_first")
    assert load_samples(SAMPLE, "test", how, rule="training") == load_samples(SAMPLE, "test", how)


def test_a_file_without_splits_has_no_published_one():
    how = SourceSettings(protocol="hub")
    with pytest.raises(ConfigError, match="has none"):
        load_samples(f"{SAMPLE}/train.jsonl", "test", how)
    assert load_samples(f"{SAMPLE}/test.jsonl", "test", how)


# ----------------------------------------------------------------------------- the user's own list


def test_a_list_chooses_dialogues_whatever_their_split(tmp_path):
    ids = list_file(tmp_path, train=["sample-41", "sample-03"], test=["sample-00"], why="x")
    data = DataSettings(train=SAMPLE, protocol="file", ids=ids)
    assert load_split(SAMPLE, "train", how=data)["id"][:] == ["sample-03", "sample-41"]
    samples, stamp = load_stamped_samples(SAMPLE, "test", data)
    assert {sample.dialogue_id for sample in samples} == {"sample-00"}
    assert (stamp["name"], stamp["split"], stamp["dialogues"]) == ("file", None, 1)


def test_a_list_holds_for_several_files(tmp_path):
    ids = list_file(tmp_path, train=["sample-03"], validation=["sample-35"])
    train, validation = f"{SAMPLE}/train.jsonl", f"{SAMPLE}/validation.jsonl"
    data = DataSettings(train=train, validation=validation, protocol="file", ids=ids)
    found = response_dialogues(data)
    names = [[row["id"] for row in rows] for rows in found]
    assert names == [["sample-03"], ["sample-35"]]


def test_splits_of_one_file_are_cut_from_one_reading(tmp_path, monkeypatch):
    source = str(tmp_path / "corpus.jsonl")
    write_synthetic(Path(source), 20, turns=4, seed=1)
    read = []
    load = splits.load_esconv
    monkeypatch.setattr(splits, "load_esconv", lambda *a, **k: read.append(a) or load(*a, **k))
    data = DataSettings(train=source, split="seeded")
    found = response_dialogues(data)
    assert len(read) == 1
    for rows, name in zip(found, ("train", "validation"), strict=True):
        assert list(rows) == list(load_split(source, name, how=data))
    read.clear()
    audited = AuditDataSettings(train=source, split="seeded")
    audit_sources(audited_sources(audited), audited, AuditOptions())
    assert len(read) == 1


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"train": ["nobody"]}, "1 of the 1 ids for train are not in"),
        ({"test": ["test-00000"]}, "no ids for train"),
        ({"train": ["train-00000", "train-00000"]}, "twice"),
        ({"train": "train-00000"}, "must be a list"),
        ({"trian": ["train-00000"]}, "expected an object"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path, ids, message):
    how = SourceSettings(protocol="file", ids=list_file(tmp_path, **ids))
    with pytest.raises(DataError, match=message):
        load_samples(SAMPLE, "train", how)


def test_a_list_needs_a_split(tmp_path):
    ids = list_file(tmp_path, test=["sample-40"])
    assert list(read_id_list(ids)) == ["test"]
    with pytest.raises(ConfigError, match="give split"):
        load_samples(SAMPLE, None, SourceSettings(protocol="file", ids=ids))


# ----------------------------------------------------------------------------- what results say


def test_a_dialogue_is_the_same_with_another_id_and_personas(tmp_path):
    rows = list(load_esconv(SAMPLE, "test"))
    turned = [
        {**row, "id": f"x{number}", "dialog": [{**t, "persona": ["I am."]} for t in row["dialog"]]}
        for number, row in enumerate(reversed(rows))
    ]
    write_pesconv(tmp_path / "p.jsonl", turned)
    assert hash_dialogues(load_esconv(tmp_path / "p.jsonl")) == hash_dialogues(rows)
    changed = {**rows[0], "dialog": rows[0]["dialog"][:-1]}
    assert dialogue_key(changed) != dialogue_key(rows[0])


def test_a_stamp_says_what_was_read():
    _, stamp = load_stamped_samples(SAMPLE, "test", SourceSettings(), limit=3)
    assert (stamp["samples"], stamp["dialogues"], stamp["split"]) == (3, 1, None)
    assert "supporter turns that follow a seeker turn" in describe_stamp(stamp)
    mapped = SourceSettings(strategy_labels={"Greetings": "Others"})
    assert "another set" in load_stamped_samples(SAMPLE, "test", mapped)[1]["labels"]


def test_other_dialogues_under_a_protocols_name_are_warned_of(caplog):
    load_stamped_samples(SAMPLE, "test", SourceSettings())
    assert "not a split of that protocol" not in caplog.text
    load_stamped_samples(SAMPLE, "test", SourceSettings(protocol="hub"))
    assert "not a split of that protocol" in caplog.text


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"protocol": "all_turns"}, "protocols hub and all_turns"),
        ({"split": "seeded"}, "dialogues"),
        ({"strategy_labels": {"Greetings": "Others"}}, "labels"),
    ],
)
def test_results_of_different_protocols_do_not_merge(given, why):
    stamps = []
    for settings in ({}, given):
        how = SourceSettings(**settings)
        stamps.append(load_stamped_samples(SAMPLE, "test", how)[1])
    check_mergeable([("a.json", stamps[0]), ("b.json", None), ("c.json", stamps[0])])
    with pytest.raises(DataError, match=f"a.json and b.json are of different protocols.*{why}"):
        check_mergeable([("a.json", stamps[0]), ("b.json", stamps[1])])


def test_the_record_beside_responses_says_it(tmp_path):
    path = tmp_path / "r.jsonl"
    assert stamp_beside(path) is None
    rows = load_esconv(SAMPLE, "test")
    stamp = stamp_of(rows, SourceSettings(), samples=5)
    (tmp_path / "r.jsonl.run.json").write_text(json.dumps({"protocol": stamp}))
    assert stamp_beside(path) == stamp
