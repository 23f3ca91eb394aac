"""Files of other projects that do not determine dialogues: recognised and refused with a remedy."""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from pal.data.corpora import CorpusFile, CorpusReader
from pal.data.corpora.tables import header_names

_CONTEXT = re.compile(r"\d+\.\d+ \d+ \d+ ")
_EMODYNAMIX = {"Dialogue_History", "Strategy_History", "Next_Strategy"}


class ReleaseContextsReader(CorpusReader):
    """Refuses ``trainWithStrategy_short.tsv``, contexts of the release with repeated turns."""

    def recognises(self, file: CorpusFile) -> bool:
        """Return whether lines start with a weight and two numbers."""
        return bool(_CONTEXT.match(file.first_line))

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Raise the error that says what the file is."""
        _refuse(file, "contexts for the release's own training script, every one of them a line")


class EmoDynamixReader(CorpusReader):
    """Refuses EmoDynamiX's table of strategies, each with the turns before it."""

    def recognises(self, file: CorpusFile) -> bool:
        """Return whether the header has the columns of that table."""
        return header_names(file.beginning) >= _EMODYNAMIX

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Raise the error that says what the file is."""
        _refuse(file, "EmoDynamiX's table of decisions, which names no dialogue")


def _refuse(file: CorpusFile, what: str) -> NoReturn:
    raise file.fail(
        f"{what}, from which dialogues would have to be guessed; give the corpus that it was made "
        "from: the release's ESConv.json, or thu-coai/esconv"
    )
