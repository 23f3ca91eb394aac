"""Settings of the contents of a page."""

from pydantic import Field

from pal.core.settings import InputPath, Section


class PageSettings(Section):
    """The HTML page.

    Attributes:
        include: outputs to show: results.json, analysis.json, alpha.json, human.json, cases.json,
            scores of ``pal eval``, judgements of ``pal judge`` (``traits report``: the trait
            commands' JSON documents and JSONL records).
        cases: maximum number of case studies, spread evenly over the test samples (at most three in
            traits report); 0 leaves dialogue texts out.
    """

    include: list[InputPath] = Field(default_factory=list)
    cases: int = Field(200, ge=0)
