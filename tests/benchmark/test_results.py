"""What results are made of, apart from the commands that make them."""

import pytest

from pal.benchmark.notices import is_bundled, notices_of, toy_notice
from pal.benchmark.results import join_seeds, markdown_results
from pal.core.files import write_json
from pal.core.settings import bundled
from pal.data.strategies import STRATEGIES
from tests.benchmark import pages


def strategies_of(top, count, f1, n=10):
    confusion = [[0] * 8 for _ in range(8)]
    confusion[0][1] = count
    row = {"strategy": STRATEGIES[0], "n_gold": n, "n_predicted": count, "f1": f1, "length": 12.0}
    return {
        "label": "PAL", "n": n, "top": [top] * 8, "confusion": confusion,
        "distribution": {STRATEGIES[1]: count}, "per_strategy": [row],
    }  # fmt: skip


def test_seeds_are_joined_as_sums_of_counts_and_means_of_scores():
    joined = join_seeds(
        [
            {"gold": {"Question": 4}, "systems": {"pal": strategies_of(30.0, 3, 20.0)}},
            {"gold": {"Question": 4}, "systems": {"pal": strategies_of(50.0, 5, None)}},
        ]
    )
    assert joined["gold"] == {"Question": 4}
    pal = joined["systems"]["pal"]
    assert pal["n"] == 20
    assert pal["top"] == [40.0] * 8
    assert pal["confusion"][0][1] == 8
    assert pal["distribution"] == {STRATEGIES[1]: 8}
    row = pal["per_strategy"][0]
    assert (row["n_gold"], row["n_predicted"], row["f1"], row["length"]) == (20, 8, 20.0, 12.0)


def test_a_system_with_one_run_stays_as_it_is():
    one = strategies_of(30.0, 3, 20.0)
    without = {**strategies_of(1.0, 1, 1.0), "top": None, "confusion": None, "per_strategy": []}
    joined = join_seeds(
        [{"gold": None, "systems": {"pal": one, "theirs": without}},
         {"gold": None, "systems": {"pal": one}}]
    )  # fmt: skip
    assert joined["systems"]["theirs"] == without
    assert joined["systems"]["pal"]["n"] == 20
    assert join_seeds([]) is None


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (str(bundled("sample", "esconv")), True),
        (str(bundled("sample", "esconv", "test.jsonl")), True),
        ("/opt/venv/lib/pal/_bundled/sample/esconv", True),
        ("data/sample/esconv", True),
        ("thu-coai/esconv", False),
        ("/home/me/data/samples/esconv", False),
    ],
)
def test_the_bundled_corpus_is_known_wherever_it_lies(source, found):
    assert is_bundled(source) is found


@pytest.mark.parametrize(
    ("parameters", "from_scratch", "toys"),
    [(90_000_000, None, False), (19_999_999, None, True), (90_000_000, {"d_model": 512}, True),
     (None, None, False)],
)  # fmt: skip
def test_models_are_toys_by_their_size_or_their_beginning(tmp_path, parameters, from_scratch, toys):
    settings = {"architecture": {"from_scratch": from_scratch}}
    write_json(tmp_path / "run.json", {"parameters": parameters, "settings": settings})
    assert notices_of([], [tmp_path]) == ([toy_notice(parameters)] if toys else [])


def test_further_scores_are_a_table_of_their_own_with_intervals():
    part = pages.results()
    text = markdown_results(part)
    first, _, further = text.partition("Further scores, with 95 % intervals")
    assert "preference_bias" not in first
    lines = further.partition("Differences")[0].strip().splitlines()
    assert "| system | preference_bias ↓ | meteor ↑ | repetition_4 ↓ | persona_words ↑ |" in lines
    assert "top_1" not in further.partition("Differences")[0]
    pal = part["systems"]["pal"]["summary"]["meteor"]
    (row,) = [line for line in lines if line.startswith("| PAL |")]
    assert f"{pal['mean']:.4g} ± {pal['sd']:.2g} ({pal['low']:.3g} to {pal['high']:.3g})" in row
    part["metrics"] = {key: part["metrics"][key] for key in ("bleu_2", "top_1")}
    assert "Further scores" not in markdown_results(part)
