"""The trait report's figures on plain arrays."""

import re

import pytest

from pal.traits.report.figures import distributions, heat, histogram, scatter, shares


def test_a_heat_cell_tells_sign_strength_and_what_is_undefined():
    assert (heat(-0.5, "x").kind, heat(-0.5, "x").share, heat(-0.5, "x").text) == (
        "minus", 0.5, "−0.50",
    )  # fmt: skip
    assert heat(0.25, "x", marked=True).marked
    cell = heat(None, "undefined, n = 3")
    assert (cell.text, cell.kind, cell.title) == ("–", "none", "undefined, n = 3")


def test_a_histogram_holds_every_value_once():
    outline = histogram([1.0, 1.1, 3.0, 5.0])
    tops = dict.fromkeys(outline[1:-1:2])  # one corner a bin
    assert sum(share for _, share in tops) == pytest.approx(100)
    assert outline[1] == (1.0, 50.0)  # 1.0 and 1.1 share the first quarter
    assert outline[-2][1] == 25.0  # 5.0 is in the last one
    assert {share for _, share in histogram([])} == {0.0}


def test_distributions_share_one_legend():
    figure = distributions(
        [("Openness", {"before": [2.0, 2.0], "after": [4.0]}, "Δ +2.00"),
         ("Emotionality", {"before": [], "after": []}, "undefined")],
        "d",
    )  # fmt: skip
    assert [name for _, name in figure.legend] == ["before", "after"]
    assert [panel.text for panel in figure.panels] == ["Δ +2.00", "undefined"]
    assert figure.panels[0].plot.count('class="line') == 2
    assert "nan" not in "".join(str(panel.plot) for panel in figure.panels).lower()


def test_a_scatter_marks_the_centres():
    figure = scatter({"with": [(0.0, 0.0), (2.0, 0.0)], "without": []}, ("PC 1", "PC 2"), "s")
    plot = str(figure.panels[0].plot)
    assert plot.count('class="mark') == 1
    assert "with: centre of 2" in plot
    assert len(figure.legend) == 2


def test_shares_draw_a_bar_and_an_interval_a_group():
    groups = {"none": {"Question": (30.0, 25.0, 35.0)}, "both": {"Question": (40.0, None, None)}}
    plot = str(shares(groups, ["Question", "Others"], "x").panels[0].plot)
    widths = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', plot)]
    assert widths[1] / widths[0] == pytest.approx(4 / 3, rel=0.01)
    assert plot.count("30.0 %, 25.0 to 35.0") == 2  # the bar and its marker
    assert plot.count('class="line') == 1
