"""Shifts and spread: library values, planted truths found again, nominal rates without."""

import json

import numpy as np
import pytest
from scipy import stats

from pal.config import load_settings
from pal.core.errors import PalError
from pal.core.files import write_jsonl
from pal.stats.settings import StatisticsSettings
from pal.traits.concentration import compare_spread
from pal.traits.consistency import compare_measurements
from pal.traits.shifts import compare_group, compare_scores, sign_flip_p
from tests.traits.planted import HEXACO, scored

FEW = StatisticsSettings(resamples=300)
SHIFT = np.array([0.0, 0.5, -0.4, 0.0, 0.0, 0.0])  # emotionality rises, extraversion falls


def pairs_of(before, after):
    return list(zip(scored(before), scored(after), strict=True))


def test_figures_by_hand_and_library():
    rng = np.random.default_rng(0)
    before = rng.normal(3, 0.5, size=30)
    after = before + rng.normal(0.3, 0.4, size=30)
    found = compare_scores(before, after, StatisticsSettings(resamples=4000))
    test = stats.ttest_rel(after, before)
    interval = test.confidence_interval(0.95)
    assert found["delta"]["value"] == pytest.approx((after - before).mean())
    assert (found["delta"]["low"], found["delta"]["high"]) == pytest.approx(
        (interval.low, interval.high)
    )
    assert found["dz"]["value"] == pytest.approx(test.statistic / np.sqrt(30))
    assert found["dz"]["low"] < found["dz"]["value"] < found["dz"]["high"]
    assert found["ks"] == pytest.approx(stats.ks_2samp(before, after).statistic)
    assert found["p"] < 0.01


def test_sign_flips_against_scipy():
    difference = np.random.default_rng(2).normal(0.25, 1, size=25)
    exact = stats.permutation_test(
        (difference,), np.sum, permutation_type="samples", n_resamples=9999, rng=0
    ).pvalue
    assert sign_flip_p(difference, StatisticsSettings()) == pytest.approx(exact, abs=0.02)


def test_equal_differences_have_no_dz():
    found = compare_scores(np.array([2.0, 3, 4]), np.array([2.5, 3.5, 4.5]), FEW)
    assert found["dz"]["value"] is None
    assert found["dz"]["reason"]
    assert found["delta"]["value"] == 0.5


def test_planted_shifts_are_recovered():
    # 20 seeds of 6 dimensions at 95 %: 114 of 120 intervals should hold the shift.
    held, shown = 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        before = rng.normal(3, 0.4, size=(60, 6))
        after = before + SHIFT + rng.normal(0, 0.3, size=(60, 6))
        found = compare_group(pairs_of(before, after), [HEXACO], FEW)
        for one, shift in zip(found, SHIFT, strict=True):
            held += one["delta"]["low"] <= shift <= one["delta"]["high"]
        shown.append([one["shift"] for one in found])
    assert 106 <= held <= 120
    assert all(line[1:3] == ["rises", "falls"] for line in shown)
    assert sum(word != "not shown" for line in shown for word in (line[0], *line[3:])) <= 4


def test_without_a_shift_few_are_found():
    ps, families = [], 0
    for seed in range(200):
        rng = np.random.default_rng(500 + seed)
        before = rng.normal(3, 0.4, size=(30, 6))
        after = before + rng.normal(0, 0.3, size=(30, 6))
        found = compare_group(pairs_of(before, after), [HEXACO], FEW)
        ps += [one["p"] for one in found]
        families += any(one["p_holm"] < 0.05 for one in found)
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.08
    assert families <= 16


def test_a_planted_concentration_is_recovered():
    # Standard deviations 1 and 0.6: variances have the ratio 2.78, distances 1.67.
    held = found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        one, two = rng.normal(size=(80, 6)), 0.6 * rng.normal(size=(60, 6)) + 1
        spread = compare_spread(one, two, FEW)
        total, distance, general = (entry["ratio"] for entry in spread["statistics"])
        held += total["low"] <= 1 / 0.36 <= total["high"]
        held += distance["low"] <= 1 / 0.6 <= distance["high"]
        held += general["value"] > 1.5
        found += all(entry["p_holm"] < 0.05 for entry in spread["statistics"])
    assert held >= 53  # of 60
    assert found == 20


def test_equal_spread_is_seldom_rejected_wherever_the_clouds_lie():
    ps = []
    for seed in range(200):
        rng = np.random.default_rng(700 + seed)
        one, two = rng.normal(size=(40, 6)), rng.normal(size=(30, 6)) + 2
        found = compare_spread(one, two, StatisticsSettings(resamples=199))
        ps.append([entry["p"] for entry in found["statistics"]])
    rates = (np.array(ps) < 0.05).mean(0)
    assert (rates >= 0.02).all()
    assert (rates <= 0.08).all()


def test_components_are_those_of_the_pooled_covariance():
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(20, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(15, 4))
    found = compare_spread(one, two, FEW)
    pooled = stats.zscore(np.concatenate([one, two]))
    values = np.linalg.eigvalsh(np.cov(pooled, rowvar=False))[::-1]
    assert found["explained"] == pytest.approx((values / values.sum())[:2].tolist())
    points = np.concatenate([found["points"]["with"], found["points"]["without"]])
    assert points.var(0, ddof=1) == pytest.approx(values[:2])


def test_no_spread_is_undefined():
    flat = np.full((10, 6), 3.0)
    assert "dimensions vary" in compare_spread(flat, flat, FEW)["reason"]
    assert "fewer than 4" in compare_spread(flat[:2], flat, FEW)["reason"]
    varied = np.random.default_rng(0).normal(size=(10, 6))
    for entry in compare_spread(varied, flat, FEW)["statistics"]:
        assert entry["ratio"]["value"] is None
        assert entry["p"] is None


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(3)
    before = rng.normal(3, 0.4, size=(25, 6))
    after = scored(before + SHIFT + rng.normal(0, 0.2, size=(25, 6)), prefix="d")
    for number, row in enumerate(after):
        row["card"] = f"p{number}"
    after[0]["scores"]["A"] = None
    without = scored(rng.normal(3, 0.1, size=(12, 6)), dataset="none", prefix="w")
    paths = {}
    for name, rows in (("before", scored(before)), ("after", after), ("without", without)):
        paths[name] = str(tmp_path / f"{name}.jsonl")
        write_jsonl(paths[name], [*rows, {"id": "x", "failed": "refused"}])
    return paths


def settings(files, tmp_path, **traits):
    given = {
        "input": files["after"], "output": str(tmp_path / "out.json"),
        "statistics": FEW.model_dump(), "traits": {"inventories": ["hexaco"], **traits},
    }  # fmt: skip
    return load_settings(given, command="traits compare")


def test_the_command_writes_one_document(files, tmp_path):
    shown = compare_measurements(
        settings(files, tmp_path, before=files["before"], without=files["without"])
    )
    text = (tmp_path / "out.json").read_text(encoding="utf-8")
    document = json.loads(text)
    assert "NaN" not in text
    assert document["failed"] == 3
    assert "Not included: 3 records without a result" in shown
    (group,) = document["groups"]
    by_dimension = {one["dimension"]: one for one in group["dimensions"]}
    assert by_dimension["A"]["delta"]["n"] == 24
    assert [by_dimension[d]["shift"] for d in "EX"] == ["rises", "falls"]
    assert len(by_dimension["E"]["before"]) == len(by_dimension["E"]["after"]) == 25
    (spread,) = document["concentration"]
    assert (spread["n_with"], spread["n_without"]) == (24, 12)
    assert spread["statistics"][0]["ratio"]["low"] > 1
    assert "rises" in shown
    assert "total variance" in shown


def test_files_that_do_not_meet_are_told(files, tmp_path):
    rows = [{**row, "form": "short"} for row in scored(np.full((4, 6), 3.0))]
    write_jsonl(tmp_path / "short.jsonl", rows)
    with pytest.raises(PalError, match="one form with itself"):
        compare_measurements(settings(files, tmp_path, before=str(tmp_path / "short.jsonl")))
    with pytest.raises(PalError, match="no persona of it is in"):
        compare_measurements(settings(files, tmp_path, before=files["without"]))
    with pytest.raises(PalError, match=r"traits\.before"):
        compare_measurements(settings(files, tmp_path))
