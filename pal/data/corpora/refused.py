"""Files of other projects from which dialogues would have to be guessed: named, with a remedy."""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from pal.data.corpora import CorpusFile, CorpusReader

_CONTEXT = re.compile(r"\d+\.\d+ \d+ \d+ ")
_EMODYNAMIX = {"Dialogue_History", "Strategy_History", "Next_Strategy"}


class ReleaseContextsReader(CorpusReader):
    """``trainWithStrategy_short.tsv``: the release's contexts, the same turns again and again."""

    def recognises(self, file: CorpusFile) -> bool:
        """Whether lines open with a weight and two numbers."""
        return bool(_CONTEXT.match(file.first_line))

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Say what the file is."""
        _refuse(file, "contexts for the release's own training script, every one of them a line")


class EmoDynamixReader(CorpusReader):
    """EmoDynamiX's table: the last turns before each strategy, and the strategy's number."""

    def recognises(self, file: CorpusFile) -> bool:
        """Whether the header has its columns."""
        return set(re.split(r"[,\t]", file.first_line.strip())) >= _EMODYNAMIX

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Say what the file is."""
        _refuse(file, "EmoDynamiX's table of decisions, which names no dialogue")


def _refuse(file: CorpusFile, what: str) -> NoReturn:
    raise file.fail(
        f"{what}, from which dialogues would have to be guessed; give the corpus that it was made "
        "from: the release's ESConv.json, or thu-coai/esconv"
    )
