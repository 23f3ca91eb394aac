"""Settings: what a page shows."""

from pydantic import Field

from pal.core.settings import InputPath, Section


class PageSettings(Section):
    """The HTML page.

    Attributes:
        include: outputs to show: results.json, analysis.json, alpha.json, human.json, cases.json
            (``traits report``: the trait commands' JSON documents and JSONL records).
        cases: case studies at most, spread evenly over the test samples (``traits report``: three
            at most); 0 leaves texts out.
    """

    include: list[InputPath] = Field(default_factory=list)
    cases: int = Field(200, ge=0)
