"""Every metric against values from elsewhere: ``cases/<family>.json``, described in its README."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pal.metrics import METRICS, Predictions, compute_metrics

FOLDER = Path(__file__).parent / "cases"
VARIANTS = ("correct", "authors")


def read_cases(folder):
    return [
        (path.stem, case)
        for path in sorted(folder.glob("*.json"))
        for case in json.loads(path.read_text(encoding="utf-8"))["cases"]
    ]


def expected_values(case, variant):
    """The authors' scripts give the same where a case does not say otherwise."""
    return case["expected"] | (case.get("authors", {}) if variant == "authors" else {})


def make(inputs):
    inputs = dict(inputs)
    if "synonyms" in inputs:
        words = inputs["synonyms"]
        inputs["synonyms"] = lambda word: words.get(word, ())
    if "token_encoder" in inputs:
        known = inputs["token_encoder"]
        inputs["token_encoder"] = lambda texts: [
            tuple(map(np.array, known[text])) for text in texts
        ]
    if "nli" in inputs:
        judged = inputs["nli"]
        inputs["nli"] = lambda pairs: np.array([judged[" => ".join(pair)] for pair in pairs])
    if vectors := inputs.get("embedder"):
        inputs = {**inputs, "embedder": lambda texts: np.array([vectors[text] for text in texts])}
    elif "embedder" in inputs:
        inputs = {**inputs, "embedder": lambda texts: pytest.fail(f"asked for {texts}")}
    return Predictions(**inputs)


def check(family, case):
    for variant in VARIANTS:
        predictions = make(case["inputs"])
        report = compute_metrics(predictions, [family], variant)
        expected = expected_values(case, variant)
        close = partial(pytest.approx, abs=case["tolerance"], rel=0)
        assert expected.keys() == set(METRICS[family].keys)
        for key, value in expected.items():
            same = value if value is None else close(value)
            assert report.values.get(key) == same, (variant, key)
        for key, values in case.get("per_sample", {}).items():
            assert report.per_sample[key] == close(values), (variant, key)
        for name, texts in case.get("tokens", {}).items():
            ours = getattr(predictions, f"{name.removesuffix('s')}_tokens")
            assert [" ".join(tokens) for tokens in ours] == texts


def gaps(folder, metrics):
    """Tell what the table of metrics has and the case files do not, or the other way round."""
    files = {path.stem for path in folder.glob("*.json")}
    found = [f"{name}: a case file of no family" for name in sorted(files - metrics.keys())]
    found += [f"{name}: no case file" for name in metrics if name not in files]
    cases = read_cases(folder)
    for name, metric in metrics.items():
        mine = [case for family, case in cases if family == name and name in files]
        for key in metric.keys if mine else ():
            values = [[expected_values(c, v).get(key) for v in VARIANTS] for c in mine]
            if all(correct is None for correct, _ in values):
                found.append(f"{name}: no case with a value of {key}")
            differ = any(correct != authors for correct, authors in values)
            if differ != (key in metric.authors_differ):
                found.append(f"{name}: the authors' {key} differs in the table or here, not both")
    for family, case in cases:
        where = f"{family}, {case['name']}"
        if not re.search(
            r"By hand|Lin 2004|(sacrebleu|rouge-score|scikit-learn|nltk|choix) \d", case["source"]
        ):
            found.append(f"{where}: the source names no tool, paper or hand calculation")
        if not 0 < case["tolerance"] <= 1e-6:
            found.append(f"{where}: a tolerance of {case['tolerance']} shows nothing")
    return found


@pytest.mark.parametrize(
    ("family", "case"),
    [pytest.param(*pair, id=f"{pair[0]}: {pair[1]['name']}") for pair in read_cases(FOLDER)],
)
def test_values_from_elsewhere(family, case):
    check(family, case)


def test_every_family_and_key_has_a_case():
    found = gaps(FOLDER, METRICS)
    assert not found, f"{found}; tests/metrics/cases/README.md says what a case file holds"


@pytest.mark.parametrize("family", METRICS)
def test_a_wrong_value_is_seen(family):
    """Every expected number counts: each is moved by a little, and the check must fail."""
    for case in [case for name, case in read_cases(FOLDER) if name == family]:
        for field in ("expected", "authors", "per_sample"):
            for key, value in case.get(field, {}).items():
                if field == "per_sample":
                    moved = [value[0] + 1e-5, *value[1:]]
                else:
                    moved = 0.0 if value is None else value + 1e-5
                with pytest.raises(AssertionError):
                    check(family, {**case, field: {**case[field], key: moved}})


def test_wrong_tokens_are_seen():
    case = next(case for name, case in read_cases(FOLDER) if name == "length")
    with pytest.raises(AssertionError):
        check("length", {**case, "tokens": {"responses": ["i'm so sorry"]}})


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(FOLDER, tmp_path / "cases"))


def change(folder, family, edit):
    path = folder / f"{family}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for case in content["cases"]:
        edit(case)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_missing_cases_are_seen(copy):
    (copy / "bleu.json").unlink()
    change(copy, "strategy", lambda case: case["expected"].pop("top_3"))
    change(copy, "distinct", lambda case: case["authors"].pop("ead_2"))
    change(copy, "rouge", lambda case: case.update(tolerance=0.5))
    change(copy, "f1", lambda case: case.update(source="our own code"))
    had = gaps(FOLDER, METRICS)
    found = [gap for gap in gaps(copy, METRICS) if gap not in had]
    assert len(found) > 4
    assert found[:3] == [
        "bleu: no case file",
        "strategy: no case with a value of top_3",
        "distinct: the authors' ead_2 differs in the table or here, not both",
    ]
    assert {text.partition(", ")[0] for text in found[3:]} == {"rouge", "f1"}
    assert "new: no case file" in gaps(copy, {**METRICS, "new": METRICS["f1"]})
