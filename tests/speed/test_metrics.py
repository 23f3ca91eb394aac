"""``pal bench metrics``: a table, the same values on both sides, nothing of the texts kept."""

import json

import pytest

from pal.commands.bench import BenchMetricsSettings, bench_metrics
from pal.core.errors import DataError, OutputError, PalError
from pal.metrics import Predictions
from pal.speed import metrics as bench
from tests.jobs import command


@pytest.fixture(autouse=True)
def two_rounds(monkeypatch):
    monkeypatch.setattr(bench, "ROUNDS", 2)


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "predictions.jsonl"
    rows = [
        {"id": "a/1", "response": "I hear you. I hear you.", "reference": "Do you hear me?"},
        {"id": "a/3", "response": "", "reference": "That is a heavy secret."},
        {"id": "b/1", "response": "ok", "reference": "OK"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_prints_the_table_and_writes_the_seconds(tmp_path, capsys):
    output = tmp_path / "bench.json"
    assert command("bench", "metrics", "limit=30", f"output={output}") == 0
    table = capsys.readouterr().out
    written = json.loads(output.read_text())
    assert [row["name"] for row in written["rows"]] == [
        "ROUGE-L and Distinct together",
        "ROUGE-L",
        "Distinct",
        "word tokens (both sides the same)",
        "together, word tokens included",
    ]
    for row in written["rows"]:
        assert len(row["ours"]) == len(row["plain"]) == 2
        assert min(row["ours"] + row["plain"]) > 0
        assert f"| {row['name']} |" in table
        assert f"| {row['ratio']:.1f} |" in table
    together, rouge, distinct, tokens, included = written["rows"]
    assert tokens["ours"] == tokens["plain"]
    for one in range(2):
        assert together["plain"][one] == rouge["plain"][one] + distinct["plain"][one]
        for side in ("ours", "plain"):
            assert included[side][one] == pytest.approx(together[side][one] + tokens[side][one])
    assert "30 pairs" in table
    assert (written["pairs"], written["run"]["command"]) == (30, "bench metrics")
    assert written["run"]["cores"] > 0
    assert set(written["differences"]) == {
        *("distinct_1", "distinct_2", "distinct_3", "ead_1", "ead_2"),
        *("rouge_l", "rouge_l of each pair"),
    }
    assert max(written["differences"].values()) <= written["tolerance"]


def test_given_pairs_and_none_of_their_words_in_the_output(pairs, tmp_path):
    output = tmp_path / "bench.json"
    table = bench_metrics(BenchMetricsSettings(predictions=str(pairs), output=str(output)))
    assert "3 pairs, predictions.jsonl" in table
    assert "heavy secret" not in output.read_text() + table


def test_a_pair_without_reference(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "a/1", "response": "hi"}\n')
    with pytest.raises(DataError, match=r"x.jsonl: record 'a/1' has no text as 'reference', got N"):
        bench_metrics(BenchMetricsSettings(predictions=str(path)))


def test_an_older_measurement_is_kept(pairs, tmp_path):
    output = tmp_path / "bench.json"
    output.write_text("old")
    settings = BenchMetricsSettings(predictions=str(pairs), output=str(output))
    with pytest.raises(OutputError, match="overwrite=true"):
        bench_metrics(settings)
    assert output.read_text() == "old"
    bench_metrics(settings.model_copy(update={"overwrite": True}))
    assert json.loads(output.read_text())["kind"] == "bench"


def one_word_less(plain):
    return lambda first, second: max(0, plain(first, second) - 1)


def swap_two_pairs(plain):
    """The mean over pairs stays, the pairs do not."""
    return lambda predictions: plain(predictions)[::-1]


def off_by_little(plain):
    return lambda predictions: {**plain(predictions), "ead_2": plain(predictions)["ead_2"] + 1e-7}


def one_short(plain):
    return lambda predictions: {k: v for k, v in plain(predictions).items() if k != "distinct_3"}


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("plain_lcs", one_word_less, "rouge_l differs from plain Python's by [0-9.]+ percentage"),
        ("plain_rouge", swap_two_pairs, "rouge_l of each pair differs"),
        ("plain_distinct", off_by_little, "ead_2 differs from plain Python's by 1[.0-9]*e-07"),
        ("plain_distinct", one_short, "distinct_3 differs from plain Python's by nan"),
    ],
)
def test_different_values_are_not_compared(pairs, monkeypatch, name, broken, message):
    monkeypatch.setattr(bench, name, broken(getattr(bench, name)))
    with pytest.raises(PalError, match=message):
        bench_metrics(BenchMetricsSettings(predictions=str(pairs)))


def test_responses_without_any_token_have_the_same_missing_values():
    differences = bench.check_same_values(Predictions(["", ""], ["hello", ""]))
    assert differences == {"rouge_l": 0.0, "rouge_l of each pair": 0.0}


def test_the_plain_side_by_hand():
    assert bench.plain_lcs(["a", "b", "c", "d"], ["c", "a", "d", "b"]) == 2
    assert bench.plain_lcs([], ["a"]) == 0
    found = bench.plain_distinct(Predictions(["a b a b"], vocab_size=2))
    assert found == pytest.approx(
        {"distinct_1": 50, "distinct_2": 200 / 3, "distinct_3": 100,
         "ead_1": 100 * 2 / (2 * (1 - 0.5**4)), "ead_2": 100 * 2 / (2 * (1 - 0.5**3))}
    )  # fmt: skip


def test_synthetic_pairs_have_the_lengths_of_esconv():
    """ESConv's responses have 19.4 words on average, with a standard deviation of 14.4."""
    responses, references = bench.synthetic_pairs(2000, seed=1)
    assert (len(responses), len(references)) == (2000, 2000)
    lengths = [len(text.split()) for text in responses + references]
    assert sum(lengths) / len(lengths) == pytest.approx(19.4, abs=0.7)
    assert min(lengths) <= 2
    assert 72 < max(lengths) <= 166
    assert len(set(responses + references)) > 3000
    assert bench.synthetic_pairs(2000, seed=1)[0] == responses
    assert bench.synthetic_pairs(2000, seed=2)[0] != responses
