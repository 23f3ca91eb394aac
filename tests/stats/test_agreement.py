import math

import pytest

from pal.stats.agreement import count_rated, fleiss_kappa, sign_test

# Fleiss' formula on the worked example found in textbooks: 10 subjects, 14 raters, 5 categories.
PUBLISHED = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def test_the_published_example():
    kappa, reason = fleiss_kappa(PUBLISHED)
    assert kappa == pytest.approx(0.210, abs=5e-4)
    assert reason is None


def test_small_cases_by_hand():
    # Two raters, two items: agree on the first, differ on the second: P̄ = 1/2, shares 3/4 and 1/4,
    # P̄e = 10/16, κ = (1/2 − 5/8) / (3/8) = −1/3.
    assert fleiss_kappa([[2, 0], [1, 1]])[0] == pytest.approx(-1 / 3)
    # Full agreement over two categories; full disagreement, where P̄ = 0 and P̄e = 1/2.
    assert fleiss_kappa([[3, 0], [0, 3]])[0] == pytest.approx(1)
    assert fleiss_kappa([[1, 1], [1, 1]])[0] == pytest.approx(-1)
    # An unused category changes nothing.
    assert fleiss_kappa([[2, 0, 0], [1, 0, 1]])[0] == pytest.approx(-1 / 3)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([], "no answers"),
        ([[1, 0], [0, 1]], "one answer per item"),
        ([[0, 0], [0, 0]], "no answers"),
        ([[3, 0], [3, 0]], "all answers are the same"),
    ],
)
def test_no_kappa_and_why(counts, reason):
    kappa, found = fleiss_kappa(counts)
    assert kappa is None
    assert reason in found


def test_one_blank_by_one_rater_leaves_kappa_defined():
    """Three raters; one left the last item blank: its pair is that of the other two."""
    counts = [[3, 0], [0, 3], [2, 1], [1, 1]]
    # P̄ = (1 + 1 + 1/3 + 0) / 4 = 7/12; shares of the first category 1, 0, 2/3, 1/2, mean 13/24.
    expected = (13 / 24) ** 2 + (11 / 24) ** 2
    kappa, reason = fleiss_kappa(counts)
    assert kappa == pytest.approx((7 / 12 - expected) / (1 - expected))
    assert reason is None
    assert count_rated(counts) == 4


def test_items_that_one_rater_answered_take_no_part():
    counts = [[2, 0], [1, 1], [1, 0], [0, 0]]
    assert fleiss_kappa(counts)[0] == pytest.approx(fleiss_kappa(counts[:2])[0])
    assert count_rated(counts) == 2
    assert count_rated([]) == 0


def test_sign_test_by_hand():
    # 9 of 10: 2 · (1 + 10) / 1024; the same for the other side; ties never enter.
    assert sign_test(9, 1) == pytest.approx(22 / 1024)
    assert sign_test(1, 9) == sign_test(9, 1)
    assert sign_test(5, 5) == pytest.approx(1)
    assert sign_test(0, 0) is None
    # 68 % to 26 % of 50 items (the paper's Table 4 on Coherence): 34 to 13.
    assert math.isclose(sign_test(34, 13), 0.00307, abs_tol=5e-5)
