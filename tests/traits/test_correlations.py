"""Correlations: library values, planted truths found again, no more finds than chance allows."""

import json
import logging

import numpy as np
import pytest
from scipy import stats

from pal.config import load_settings
from pal.core.errors import PalError
from pal.core.files import write_jsonl
from pal.stats.settings import StatisticsSettings
from pal.traits.correlation_tables import correlate_group, correlation
from pal.traits.correlations import correlate
from pal.traits.documents import paper
from tests.traits.planted import CSI, HEXACO, correlated, measure

FEW = StatisticsSettings(resamples=200)


def truth_of(size):
    """The theory's pairs at ±size, nothing else."""
    truth = np.zeros((6, 6))
    for row, tie in HEXACO.theory.items():
        place = list(HEXACO.dimensions).index(row), list(CSI.dimensions).index(tie.dimension)
        truth[place] = size * tie.sign
    return truth


def settings(tmp_path, rows, **more):
    write_jsonl(tmp_path / "in.jsonl", rows)
    given = {"input": str(tmp_path / "in.jsonl"), "output": str(tmp_path / "out.json"),
             "statistics": FEW.model_dump(), **more}  # fmt: skip
    return load_settings(given, command="traits correlate")


def test_against_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = x + rng.normal(size=40)
    expected = stats.pearsonr(x, y)
    interval = expected.confidence_interval(0.9)
    y_gap = np.append(y, [np.nan, 1.0])
    found, p = correlation(np.append(x, [2.0, np.nan]), y_gap, 0.9)
    assert (found["value"], p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["n"] == 40


def test_no_variance_and_too_few_are_undefined():
    for x, word in ((np.full(9, 3.0), "same for all"), (np.arange(3.0), "fewer than 4 personas")):
        found, p = correlation(x, np.arange(len(x)) * 1.0, 0.95)
        assert (found["value"], found["n"], p) == (None, len(x), None)
        assert word in found["reason"]


def test_copies_of_a_few_personas_are_no_sample():
    x, y = np.tile([1.0, 2.0, 4.0], 5), np.tile([2.0, 3.0, 4.0], 5)
    found, p = correlation(x, y, 0.95)
    assert (found["value"], found["n"], p) == (None, 15, None)
    assert "fewer than 4 different personas" in found["reason"]
    assert correlation(np.append(x, 3.0), np.append(y, 1.0), 0.95)[0]["value"] is not None


def test_planted_correlations_are_recovered():
    # Noise in 8 items lowers r by the scores' reliability; without structure the mean r is 0. Of
    # 20 seeds of 36 cells at 95 % about 684 should hold the truth of a person's scores.
    # That truth is taken from one large sample of the same making.
    truth = truth_of(0.6)
    large = _values(
        measure(correlated(truth, 4000, np.random.default_rng(99)), np.random.default_rng(98))
    )
    assert np.abs(large - truth).max() < 0.12
    held = pairs = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = correlate_group(measure(correlated(truth, 80, rng), rng), HEXACO, CSI, FEW)
        for i, row in enumerate(found["rows"]):
            for j, column in enumerate(found["columns"]):
                r = found["cells"][row][column]["r"]
                held += r["low"] <= large[i, j] <= r["high"]
        pairs += sum(p["largest_in_column"] and p["sign_as_expected"] for p in found["pairs"])
    assert 660 <= held <= 705  # ± 3.5 standard deviations of a binomial, a little more for ties
    assert pairs >= 115  # of 120


def _values(rows):
    found = correlate_group(rows, HEXACO, CSI, FEW)
    return np.array(
        [[one["r"]["value"] for one in line.values()] for line in found["cells"].values()]
    )


def test_without_structure_few_are_found():
    # The family of 36 is wrong at most 5 times in 100 after Holm, a single cell 5 times.
    family, cells = 0, []
    for seed in range(200):
        rng = np.random.default_rng(1000 + seed)
        scores = np.clip(3 + rng.normal(size=(30, 12)), 1, 5)
        rows = [
            {"id": str(i), "inventory": part.name,
             "scores": dict(zip(part.dimensions, line[half], strict=True))}
            for i, line in enumerate(scores)
            for part, half in ((HEXACO, slice(0, 6)), (CSI, slice(6, 12)))
        ]  # fmt: skip
        found = correlate_group(rows, HEXACO, CSI, StatisticsSettings(resamples=100))
        ps = [one for line in found["cells"].values() for one in line.values()]
        cells += [one["p"] < 0.05 for one in ps]
        family += any(one["p_holm"] < 0.05 for one in ps)
    assert 0.04 <= np.mean(cells) <= 0.06
    assert family <= 16  # 8 %


def test_the_command_writes_one_document(tmp_path):
    rng = np.random.default_rng(5)
    rows = measure(correlated(truth_of(0.7), 40, rng), rng, dataset="esconv")
    rows[0]["scores"]["H"] = None
    rows[0]["unanswered"] = {"H1": "refused"}
    del rows[0]["answers"]["H1"]
    for row in rows:
        if row["inventory"] == "csi":
            row["scores"]["IM"] = 3.0
    rows.append({"id": "p99", "dataset": "esconv", "failed": "refused"})
    given = settings(tmp_path, rows)
    shown = correlate(given)
    text = (tmp_path / "out.json").read_text(encoding="utf-8")
    document = json.loads(text)
    assert "NaN" not in text
    assert document["kind"] == "traits_correlation"
    assert document["failed"] == 1
    assert "Not included: 1 record without a result" in shown
    (group,) = document["groups"]
    assert group["cells"]["H"]["X"]["r"]["n"] == 39
    assert group["cells"]["E"]["IM"]["r"]["reason"]
    assert group["unanswered"]["hexaco"]["reasons"] == {"refused": 1}
    assert [one["table"] for one in group["paper"]] == [2, 3, 4]
    assert group["reliability"]["hexaco"]["H"]["alpha"]["n"] == 39
    pair = next(pair for pair in group["pairs"] if pair["row"] == "X")
    assert pair["largest_in_row"]
    assert pair["column_share"] > 0.9
    assert next(pair for pair in group["pairs"] if pair["row"] == "H")["sign_as_expected"] is None
    assert "undefined (n=40" in shown
    before = (tmp_path / "out.json").stat().st_mtime_ns
    assert correlate(given) == shown
    assert (tmp_path / "out.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[1].pop("scores"), ["line 2", "scores"]),
        (lambda rows: rows[1]["scores"].update(X=7), ["line 2", "scores.X", "7"]),
        (lambda rows: rows[0].update(version="9"), ["line 1", "version 9"]),
        (lambda rows: rows.append(rows[0]), ["line 9", "twice"]),
        (lambda rows: rows[1].update(scores=[3]), ["line 2", "scores"]),
        (lambda rows: rows[1]["answers"].update(Z1=3), ["line 2", "'Z1'"]),
        (lambda rows: rows[2].update(form="short"), ["line 3", "short form", "one form"]),
        (lambda rows: [row.update(inventory="other") for row in rows], ["'hexaco'", "'csi'"]),
    ],
)
def test_bad_measurements_are_told(tmp_path, change, words):
    rng = np.random.default_rng(6)
    rows = measure(rng.normal(size=(4, 12)), rng)
    change(rows)
    with pytest.raises(PalError) as caught:
        correlate(settings(tmp_path, rows))
    for word in words:
        assert word in str(caught.value)


def test_the_papers_tables_are_whole():
    tables = {one["table"]: one for one in paper()["correlations"]}
    assert sorted(tables) == [2, 3, 4, 10, 11, 12, 13, 14, 15]
    for one in tables.values():
        assert all(len(line) == 6 for line in one["rows"].values())
    # What the specification says of gpt-4o-mini: the theory pair is the largest in its column.
    for number in (2, 10, 13):
        rows, columns = tables[number]["rows"], tables[number]["columns"]
        for row, tie in HEXACO.theory.items():
            j = columns.index(tie.dimension)
            assert abs(rows[row][j]) == max(abs(line[j]) for line in rows.values())


def test_measurements_that_all_failed_say_so(tmp_path):
    rows = [{"id": f"c{n}", "failed": "the model refused"} for n in range(3)]
    with pytest.raises(PalError, match=r"all 3 failed \(the first: the model refused\)"):
        correlate(settings(tmp_path, rows))


def test_items_against_their_dimension_are_one_warning_an_inventory(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("pal"), "propagate", True)
    rng = np.random.default_rng(4)
    correlate(settings(tmp_path, measure(rng.normal(size=(4, 12)), rng, noise=3.0)))
    lines = dict.fromkeys(line for line in caplog.messages if "go against" in line)
    assert [line.split(",")[0] for line in lines] == ["inventory hexaco", "inventory csi"]
