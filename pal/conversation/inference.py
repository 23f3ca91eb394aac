"""The persona of a seeker, inferred turn by turn while they talk, as PESConv's was."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from pal.core.job import process_state
from pal.persona.cleaning import add_personas, annotated_prefixes
from pal.persona.extractor import load_extractor, make_extractor
from pal.persona.settings import PersonaSettings

REMEMBERED = 4096  # prefixes whose sentences are kept in memory


class PersonaInference:
    """Infers personas with a trained extractor; what a prefix of turns gave is computed once.

    Args:
        extractor: from :func:`pal.persona.extractor.make_extractor`.
        settings: as of ``pal annotate``.
        batch_tokens: positions read at once, at most.
        rows: prefixes read at once, at most.
    """

    def __init__(
        self, extractor: Any, settings: PersonaSettings, *, batch_tokens: int = 12288,
        rows: int = 64,
    ):  # fmt: skip
        self.extractor, self.settings = extractor, settings
        self.batch_tokens, self.rows = batch_tokens, rows
        self._known: OrderedDict[tuple[str, ...], list[str]] = OrderedDict()

    @classmethod
    def load(cls, source: str, settings: PersonaSettings, dtype: str) -> "PersonaInference":
        """Load a trained extractor.

        Args:
            source: folder or hub id.
            settings: as of ``pal annotate``.
            dtype: number format of the weights.

        Raises:
            PalError: it is no persona extractor, or the settings do not fit it.
        """
        model, tokenizer = load_extractor(source, dtype, key="extractor")
        model.to(process_state().device)
        rows = 64
        extractor = make_extractor(
            model, tokenizer, num_beams=settings.num_beams, max_new=settings.max_new_tokens,
            rows=rows,
        )  # fmt: skip
        return cls(extractor, settings, rows=rows)

    def annotate(self, dialogues: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return dialogues with the persona known at every turn.

        Args:
            dialogues: rows of :func:`pal.load_esconv`; personas that they hold are replaced.
        """
        start = self.settings.start
        prefixes = dict.fromkeys(
            prefix for row in dialogues
            for prefix in annotated_prefixes(row["dialog"], start).values()
        )  # fmt: skip
        self._infer([prefix for prefix in prefixes if prefix not in self._known])
        found = [
            add_personas(row, self._known, start, self.settings.min_support) for row in dialogues
        ]
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    def _infer(self, prefixes: Sequence[tuple[str, ...]]) -> None:
        sources = [self.extractor.encode_source(prefix) for prefix in prefixes]
        if not sources:
            return
        for batch in self.extractor.plan(sources, tokens=self.batch_tokens, rows=self.rows):
            answers = self.extractor([list(sources[index]) for index in batch])
            for index, sentences in zip(batch, answers, strict=True):
                self._known[prefixes[index]] = sentences
