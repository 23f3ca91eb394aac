"""What lies in files reads like what lies in memory, and a corpus is not held twice or at all."""

import json
import tracemalloc
from itertools import islice, pairwise

import numpy as np
import pyarrow
import pytest

from pal.core.errors import DataError, OutputError
from pal.data import spilled
from pal.data.dialogues import Dialogues
from pal.data.esconv import load_esconv
from pal.data.samples import CorpusSamples, build_samples
from pal.data.spilled import (
    RecentTexts,
    Repeated,
    SeenKeys,
    SeenNames,
    SpilledBlocks,
    SpilledTexts,
    column_of,
    in_parts,
    iterate_rows,
    table_of,
)
from pal.speed.synthetic import write_synthetic

COUNT = 4 * spilled.ROWS + 1  # more than stays in memory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    write_synthetic(path, COUNT, turns=4, seed=3)
    return path


@pytest.fixture(scope="module")
def dataset(corpus):
    return load_esconv(corpus)


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 4000, 4001, 6500])
def test_a_table_is_the_same_in_a_file(count):
    schema = pyarrow.schema([("id", pyarrow.string()), ("texts", pyarrow.list_(pyarrow.string()))])
    rows = [{"id": str(n), "texts": ["é"] * (n % 3)} for n in range(count)]
    table = table_of(iter(rows), schema)
    assert table.to_pylist() == rows
    assert table.schema == schema


def test_a_large_corpus_is_no_rows_in_memory(corpus):
    load_esconv([{"dialog": [{"speaker": "supporter", "text": "Hi", "strategy": "Question"}]}])
    tracemalloc.start()
    rows = load_esconv(corpus)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == COUNT
    assert peak < 12 * 2**20  # of one block of parsed rows; all of them are five times that
    assert held < 2**20


def test_large_corpora_are_known_by_their_contents(corpus, dataset, tmp_path):
    lines = corpus.read_text().splitlines()
    (tmp_path / "same.jsonl").write_text("\n".join(lines))
    (tmp_path / "other.jsonl").write_text("\n".join([*lines[:-1], lines[-1].replace("be", "bo")]))
    same, other = (load_esconv(tmp_path / f"{name}.jsonl") for name in ("same", "other"))
    assert same._fingerprint == dataset._fingerprint != other._fingerprint


def test_rows_in_a_file_are_those_of_the_corpus(corpus, dataset):
    lines = corpus.read_text().splitlines()
    for number in (0, 999, 1000, COUNT - 1):
        record, row = json.loads(lines[number]), dataset[number]
        assert row["id"] == record["id"]
        assert [t["text"] for t in row["dialog"]] == [t["text"] for t in record["dialog"]]
    assert [row["id"] for row in iterate_rows(dataset)] == dataset["id"][:]
    assert list(column_of(dataset, "situation")) == dataset["situation"][:]


def test_an_id_that_comes_again_after_many_is_refused(corpus, tmp_path):
    lines = corpus.read_text().splitlines()
    (tmp_path / "twice.jsonl").write_text("\n".join([*lines, lines[7]]))
    with pytest.raises(DataError, match=rf"line {COUNT + 1} .*the id 'd0000007' was used before"):
        load_esconv(tmp_path / "twice.jsonl")


@pytest.mark.parametrize("rule", ["training", "evaluation", "all"])
@pytest.mark.parametrize("limit", [None, 1, 250, 10**6])
def test_samples_made_again_are_those_in_memory(dataset, rule, limit):
    part = dataset.select(range(0, 3000, 7))
    expected = build_samples(part, rule)[:limit]
    samples = CorpusSamples(Dialogues(part), rule, limit=limit)
    assert len(samples) == len(expected)
    assert list(samples) == expected
    assert [one for found in samples.parts(64) for one in found] == expected
    places = [0, len(expected) - 1, len(expected) // 2, -1]
    assert [samples[place] for place in places] == [expected[place] for place in places]
    assert samples[3:600:50] == expected[3:600:50]
    answered = {sample.dialogue_id for sample in expected}
    if limit is not None:
        assert {row["id"] for row in samples.answered} == answered
    with pytest.raises(IndexError):
        samples[len(expected)]


def test_going_through_samples_holds_few(dataset):
    samples = CorpusSamples(Dialogues(dataset), "training")
    for _ in islice(samples, 10):
        pass
    tracemalloc.start()
    assert sum(1 for _ in samples) == len(samples)
    assert sum(map(len, samples.parts(500))) == len(samples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**20  # all of them take three times that


def test_names_are_new_once():
    seen = SeenNames()
    names = [f"name {number}" for number in range(3 * spilled.RECENT)]
    assert all(map(seen.add, names))
    assert not any(map(seen.add, names))
    assert seen.add("\ud800")
    assert not seen.add("\ud800")


def test_sorting_of_names_grows_as_their_number_does(monkeypatch):
    moved = []
    sort = np.sort
    monkeypatch.setattr(spilled.np, "sort", lambda found: moved.append(len(found)) or sort(found))
    monkeypatch.setattr(spilled, "RECENT", 16)
    seen, count = SeenNames(), 20_000
    for number in range(count):
        seen.add(str(number))
    assert sum(moved) < 2 * spilled.RECENT_SHARE * count  # every 16 names: 20 times that
    assert not any(seen.add(str(number)) for number in range(0, count, 7))


def test_texts_come_back(monkeypatch):
    monkeypatch.setattr(spilled, "WAITING", 50)
    texts = SpilledTexts()
    given = ["", "é 😀", "\ud800", "a" * 70, *map(str, range(40))]
    for number, text in enumerate(given):
        texts.append(text)
        assert texts[number] == text
    assert list(texts) == given
    assert texts[3:6] == given[3:6]
    assert len(texts) == len(given)
    with pytest.raises(IndexError):
        texts[len(given)]
    assert not SpilledTexts()


def test_numbers_are_known_once_they_are_added():
    seen, source = SeenKeys(), np.random.default_rng(1)
    known = set()
    for _ in range(60):
        keys = np.unique(source.integers(-500, 500, size=source.integers(0, 40)))
        expected = [key in known for key in keys.tolist()]
        found = seen.among(keys)
        assert found.tolist() == expected
        seen.add(keys[~found])
        known.update(keys.tolist())
    lengths = [len(part) for part in seen._sorted]
    assert sum(lengths) == len(known)
    assert all(one >= 2 * other for one, other in pairwise(lengths))


def test_arrays_come_back():
    blocks = SpilledBlocks()
    given = [np.arange(12).reshape(3, 4).T, np.ones((2, 5), dtype=np.uint32)]
    for one in given:
        blocks.append(one)
    for one, found in zip(given, blocks.blocks(), strict=True):
        assert found.dtype == one.dtype
        np.testing.assert_array_equal(found, one)


def test_a_full_disk_is_one_line(monkeypatch):
    class Full:
        def __init__(self):
            self.seek = self.flush = lambda *_: 0

        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(spilled.tempfile, "TemporaryFile", Full)
    with pytest.raises(OutputError, match="No space left on device; free space there, or set TMP"):
        SpilledBlocks().append(np.ones(3))


def test_parts_and_repetitions():
    assert list(in_parts(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_parts([], 2)) == []
    repeated = Repeated(lambda: iter([1, 2]))
    assert list(repeated) == list(repeated) == [1, 2]
    assert repeated
    assert not Repeated(lambda: iter([]))


def test_texts_are_forgotten_when_there_are_many(monkeypatch):
    monkeypatch.setattr(spilled, "TEXTS", 3)
    recent = RecentTexts()
    for number in range(10):
        recent[str(number)] = [number]
        assert recent[str(number)] == [number]
        assert len(recent) <= 3
