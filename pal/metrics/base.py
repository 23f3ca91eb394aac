"""What every metric reads and returns: :class:`Predictions`, :class:`Metric`, :class:`Scores`.

N samples throughout. A metric value over the corpus is one of three kinds, and intervals and tests
need to know which: the mean of its ``per_sample`` values; a function of sums over the samples
(:class:`~pal.stats.pooled.Pooled`: BLEU, perplexity, macro F1); or a function of how many different
things the samples hold (:class:`~pal.stats.pooled.Types`: Distinct-n, EAD), which do not add up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from pal.core.errors import PalError
from pal.data.strategies import STRATEGIES
from pal.stats.pooled import Pooled, Types

Variant = Literal["correct", "authors"]
Tokenizer = Literal["words", "characters"]
Direction = Literal["higher", "lower", "none"]
Embedder = Callable[[list[str]], np.ndarray]

VOCAB_SIZE = 54_956  # Blenderbot-small's 54,944 entries and the 12 tokens PAL adds

UNSPACED_SHARE = 0.05  # of the texts, above which word tokens mislead

_TEXT_FIELDS = ("responses", "references")
_STRATEGY_FIELDS = ("strategies", "predicted_strategies")
_NUMBER_FIELDS = ("strategy_probs", "token_nll", "token_count", "strategy_nll")
_SAMPLE_FIELDS = (*_TEXT_FIELDS, "personas", *_STRATEGY_FIELDS, *_NUMBER_FIELDS)


@dataclass
class Predictions:
    """Everything known about N samples; a metric is left out where its needs are None.

    Args:
        responses: generated texts.
        references: the corpus's own responses, one a sample.
        personas: sentences known about the seeker, an empty list where none is.
        strategies: gold strategy ids, 0 to 7.
        predicted_strategies: predicted ids; the arg-max of ``strategy_probs`` when left out.
        strategy_probs: probability (or logit) of each strategy, [N, 8].
        token_nll: negative log-likelihood of a whole target, strategy token included, nats, [N].
        token_count: number of tokens ``token_nll`` is summed over, [N].
        strategy_nll: the strategy token's share of ``token_nll``, nats, [N].
        vocab_size: the model's vocabulary size V of EAD, tokens.
        embedder: turns n texts into vectors, [n, d]; see :func:`pal.metrics.load_embedder`.
        tokenizer: what texts are cut into: ``words``, or ``characters`` where a script has no
            spaces between words.
        reasons: why a field is None, for those where more is to say than that it is.

    Raises:
        PalError: no samples, fields of different lengths, or values of the wrong kind.
    """

    responses: list[str] | None = None
    references: list[str] | None = None
    personas: list[list[str]] | None = None
    strategies: list[int] | None = None
    predicted_strategies: list[int] | None = None
    strategy_probs: np.ndarray | None = None
    token_nll: np.ndarray | None = None
    token_count: np.ndarray | None = None
    strategy_nll: np.ndarray | None = None
    vocab_size: int = VOCAB_SIZE
    embedder: Embedder | None = None
    tokenizer: Tokenizer = "words"
    reasons: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {
            name: len(values) for name in _SAMPLE_FIELDS if (values := self.get(name)) is not None
        }
        if not any(lengths.values()):
            raise PalError("nothing to measure: give at least one sample")
        first = next(iter(lengths))
        for name, length in lengths.items():
            if length != lengths[first]:
                raise PalError(
                    f"predictions: {name} has {length} values, {first} has {lengths[first]}; "
                    "give one a sample"
                )
        if self.tokenizer not in get_args(Tokenizer):
            raise PalError(
                f"predictions: unknown tokenizer {self.tokenizer!r}; give words or characters"
            )
        self._check_lists()
        self._check_numbers()
        if self.predicted_strategies is None and self.strategy_probs is not None:
            self.predicted_strategies = self.strategy_probs.argmax(axis=1).tolist()

    def get(self, name: str) -> Any:
        """Return a field by name, None where it is not known."""
        return getattr(self, name)

    def __len__(self) -> int:
        """Return N."""
        return next(len(v) for name in _SAMPLE_FIELDS if (v := self.get(name)) is not None)

    @cached_property
    def response_tokens(self) -> list[tuple[str, ...]]:
        """Lower-cased word tokens of every response, made once for all metrics."""
        return self._tokenize(self.responses)

    @cached_property
    def reference_tokens(self) -> list[tuple[str, ...]]:
        """Lower-cased word tokens of every reference, made once for all metrics."""
        return self._tokenize(self.references)

    @property
    def word_tokenizer(self) -> str | None:
        """What cut the texts into tokens, None while nothing was tokenised."""
        if not {"response_tokens", "reference_tokens"} & vars(self).keys():
            return None
        from pal.metrics.text import word_tokenizer

        words = word_tokenizer()
        return words if self.tokenizer == "words" else f"characters of unspaced scripts, {words}"

    def notes(self) -> list[str]:
        """Return what a reader of the scores must know of the tokens made so far."""
        if self.word_tokenizer is None or self.tokenizer != "words":
            return []
        from pal.metrics.text import is_unspaced

        texts = [*(self.responses or ()), *(self.references or ())]
        found = sum(map(is_unspaced, texts))
        if found <= UNSPACED_SHARE * len(texts):
            return []
        return [
            f"{found} of {len(texts)} responses and references are in a script without spaces "
            "between words, which the word tokenizer does not split: BLEU, ROUGE-L, F1, Distinct, "
            "EAD and length take whole sentences for words; give metrics.tokenizer=characters"
        ]

    def _tokenize(self, texts: Sequence[str] | None) -> list[tuple[str, ...]]:
        from pal.metrics.text import find_tokenizer

        tokenize = find_tokenizer(self.tokenizer)
        return [tokenize(text) for text in texts or ()]

    def _check_lists(self) -> None:
        for name in _TEXT_FIELDS:
            for index, text in enumerate(self.get(name) or ()):
                if not isinstance(text, str):
                    raise PalError(f"predictions: {name}[{index}] is {text!r}; give a text")
        for index, persona in enumerate(self.personas or ()):
            if not isinstance(persona, list) or not all(isinstance(text, str) for text in persona):
                raise PalError(
                    f"predictions: personas[{index}] is {persona!r}; give a list of sentences"
                )
        for name in _STRATEGY_FIELDS:
            for index, strategy in enumerate([] if self.get(name) is None else self.get(name)):
                if strategy not in range(len(STRATEGIES)):
                    raise PalError(
                        f"predictions: {name}[{index}] is {strategy!r}; "
                        f"give an id from 0 to {len(STRATEGIES) - 1}"
                    )

    def _check_numbers(self) -> None:
        for name in _NUMBER_FIELDS:
            if self.get(name) is None:
                continue
            values = np.asarray(self.get(name), dtype=float)
            shape = (len(self), len(STRATEGIES)) if name == "strategy_probs" else (len(self),)
            if values.shape != shape:
                raise PalError(f"predictions: {name} has shape {values.shape}, expected {shape}")
            if not np.isfinite(values).all():
                index = int(np.argwhere(~np.isfinite(values))[0][0])
                raise PalError(
                    f"predictions: {name}[{index}] is {values[index]}; give finite values"
                )
            setattr(self, name, values)
        if self.token_count is not None and (self.token_count < 1).any():
            index = int(np.argmax(self.token_count < 1))
            raise PalError(
                f"predictions: token_count[{index}] is {self.token_count[index]:g}; "
                "every target has at least one token"
            )


@dataclass
class Scores:
    """What a metric returns. Every key of the metric is in ``corpus`` or in ``undefined``.

    Args:
        corpus: the value of each key.
        per_sample: values of single samples, in the samples' order; their mean is the corpus value
            unless the key is in ``pooled``.
        pooled: how the corpus value follows from sums over samples, where it is no mean.
        types: how the corpus value follows from counts of different items, where it is neither.
        rows: the samples, 0 to N−1, that ``corpus``, ``per_sample`` and ``pooled`` are over, for
            keys that leave some out.
        undefined: why a key has no value.
        details: anything else worth showing, such as a confusion matrix.
    """

    corpus: dict[str, float] = field(default_factory=dict)
    per_sample: dict[str, np.ndarray] = field(default_factory=dict)
    pooled: dict[str, Pooled] = field(default_factory=dict)
    types: dict[str, Types] = field(default_factory=dict)
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def add_mean(self, key: str, values: Sequence[float] | np.ndarray) -> None:
        """Add a key whose corpus value is the mean of these values of single samples, [N]."""
        self.per_sample[key] = np.asarray(values, dtype=float)
        self.corpus[key] = float(self.per_sample[key].mean())

    def add_pooled(self, key: str, pooled: Pooled) -> None:
        """Add a key whose corpus value follows from sums over the samples."""
        self.pooled[key] = pooled
        self.corpus[key] = float(pooled.value())


@dataclass(frozen=True)
class Metric:
    """One family of metrics: a row of the table ``METRICS``, or a plug-in from elsewhere.

    Args:
        name: the family's name.
        direction: for each key it gives, whether more is better ("higher", "lower" or "none").
        unit: unit of all its values.
        needs: names of the :class:`Predictions` fields it cannot do without.
        compute: the work; takes predictions and the variant, "correct" or "authors".
        version: raised whenever values change.
        authors_differ: keys whose "authors" variant may differ from the correct one.
    """

    name: str
    direction: Mapping[str, Direction]
    unit: str
    needs: tuple[str, ...]
    compute: Callable[[Predictions, Variant], Scores]
    version: str = "1.0"
    authors_differ: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        allowed = {f.name for f in fields(Predictions)}
        if not self.direction or not set(self.needs) <= allowed:
            raise PalError(
                f"metric {self.name!r}: give at least one key, and needs among {sorted(allowed)}"
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """The metric keys it gives, such as ``bleu_2``."""
        return tuple(self.direction)
