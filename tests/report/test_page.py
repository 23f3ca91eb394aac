"""The frame of a page on its own: sections, notices, numbers, and what it is written by."""

import ast
import stat
from pathlib import Path

import pytest

import pal.report
from pal.core.errors import ConfigError, DataError
from pal.core.job import Job
from pal.core.settings import CommandSettings, InputPath, OutputPath
from pal.report.page import PageSection, lay_out, page_output, write_report
from pal.report.parts import Part, check_part
from pal.report.tables import MISSING, number_grid, show, show_p


class ShowSettings(CommandSettings):
    """Show a file."""

    input: InputPath
    output: OutputPath
    overwrite: bool = False


def page(folder, text="{{ data.text }}, {{ word }}", **options):
    (folder / "one.html").write_text(text)
    section = PageSection("one", "One", "one.html", Part(kind="x"), {"text": "<i>a</i>"})
    return lay_out(
        "Title", [section], [], facts=["3 samples"], templates=[folder],
        context={"word": "a word"}, **options,
    )  # fmt: skip


def test_a_wing_brings_templates_words_styles_and_scripts(tmp_path):
    (tmp_path / "own.css").write_text(".mine { color: red; }")
    (tmp_path / "own.js").write_text("const mine = 1;")
    text = page(tmp_path, notices=["First <read> this."])
    assert "&lt;i&gt;a&lt;/i&gt;, a word" in text
    assert ".mine { color: red; }" in text
    assert "const mine = 1;" in text
    assert "First &lt;read&gt; this." in text
    assert text.index("First") < text.index("Contents")
    assert text.endswith("</html>\n")
    assert page(tmp_path, notices=["First <read> this."]) == text


def test_a_page_without_notices_has_no_empty_box(tmp_path):
    assert 'aria-label="Notices"' not in page(tmp_path)


def test_a_page_is_written_once_and_again_when_its_input_changes(tmp_path):
    source, output = tmp_path / "a.json", tmp_path / "a.html"
    source.write_text("1")
    drawn = []

    def draw():
        drawn.append(1)
        return source.read_text()

    def write(**more):
        settings = ShowSettings(input=str(source), output=str(output), **more)
        return write_report(Job("show", settings, output, versions=()), draw)

    assert write() == output
    assert write() == output
    assert len(drawn) == 1
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    source.write_text("2")
    with pytest.raises(Exception, match="overwrite=true"):
        write()
    write(overwrite=True)
    assert output.read_text() == "2"


def test_the_name_of_a_page_and_what_it_shows_are_checked():
    assert page_output("a.HTM", ["x"], "x.json") == Path("a.HTM")
    with pytest.raises(ConfigError, match=r"give report\.include=\[x\.json, …\]"):
        page_output("a.html", [], "x.json")
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        page_output("a.json", ["x"], "x.json")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "expected an object of kind x, got a NoneType"),
        ({"kind": "y" * 500, "format": 1}, "expected an object of kind x, got kind"),
        ({"kind": "x", "format": 7}, "only format 1 can be read"),
        ({"kind": "x", "format": 1, "run": []}, "run: expected keys with values, got []"),
    ],
)
def test_a_part_that_cannot_be_shown_is_one_short_line(value, message):
    with pytest.raises(DataError) as error:
        check_part(value, "a.json", {"x": Part})
    text = str(error.value)
    assert text.startswith("a.json: ")
    assert message in text
    assert len(text) < 300
    assert "\n" not in text


def test_numbers_as_text():
    assert [show(None), show(-0.0001), show(-1234.5, 1), show(0.5)] == [
        MISSING, "0.00", "−1,234.5", "0.50",
    ]  # fmt: skip
    assert [show_p(None), show_p(0.00099), show_p(0.05)] == [MISSING, "< 0.001", "0.050"]
    grid = number_grid(
        {"a": lambda row: row[0], "b": lambda row: row[1], "c": lambda row: None},
        [("one", "kind", (1, 0.25)), ("two", "kind", (20, None))],
    )
    assert grid.columns == ["a", "b"]
    assert [cells for _, _, cells in grid.rows] == [["1", "0.250"], ["20", MISSING]]


def test_the_frame_knows_no_benchmark_and_no_traits():
    for path in Path(pal.report.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [
                alias.name for alias in node.names
            ] if isinstance(node, ast.Import) else []  # fmt: skip
            rooms = {name.split(".")[1] for name in names if name.startswith("pal.")}
            assert rooms <= {"core", "report"}, path
