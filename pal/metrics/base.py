"""The interface of metrics: :class:`Predictions`, :class:`Metric`, :class:`Scores`.

N is the number of samples. A metric value over the corpus is one of three kinds, which intervals
and tests distinguish: the mean of its ``per_sample`` values; a function of sums over the samples
(:class:`~pal.stats.pooled.Pooled`: BLEU, perplexity, macro F1); or a function of the number of
distinct items in the samples (:class:`~pal.stats.pooled.Types`: Distinct-n, EAD), which is no sum.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
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
# Texts to the vectors of their tokens, [t, d], and the weights of those, [t], 0 of special tokens
TokenEncoder = Callable[[list[str]], list[tuple[np.ndarray, np.ndarray]]]
# Pairs (premise, hypothesis) to probabilities of entailment, neutral and contradiction, [n, 3]
NliModel = Callable[[list[tuple[str, str]]], np.ndarray]

VOCAB_SIZE = 54_956  # Blenderbot-small's 54,944 entries and the 12 tokens PAL adds

UNSPACED_SHARE = 0.05  # proportion of the texts above which word tokens mislead

_TEXT_FIELDS = ("responses", "references")
_STRATEGY_FIELDS = ("strategies", "predicted_strategies")
_NUMBER_FIELDS = (
    "strategy_probs", "token_nll", "token_count", "strategy_nll", "strategy_count", "word_count",
)  # fmt: skip
_SAMPLE_FIELDS = (*_TEXT_FIELDS, "personas", *_STRATEGY_FIELDS, *_NUMBER_FIELDS)
MODEL_FIELDS = ("embedder", "token_encoder", "nli")


@dataclass
class Predictions:
    """All data on N samples; a metric is left out if a field that it needs is None.

    Args:
        responses: generated texts.
        references: gold responses of the corpus, one per sample.
        personas: persona sentences of each sample, an empty list without persona.
        strategies: gold strategy ids, 0 to 7.
        predicted_strategies: predicted ids; the arg-max of ``strategy_probs`` when left out.
        strategy_probs: probability (or logit) of each strategy, [N, 8].
        token_nll: negative log-likelihood of each target with its strategy token, nats, [N].
        token_count: number of tokens that ``token_nll`` is summed over, [N].
        strategy_nll: part of ``token_nll`` that belongs to the strategy, nats, [N].
        strategy_count: number of tokens that ``strategy_nll`` is summed over, [N]; one each when
            left out. Decoder-only models write a strategy as text.
        word_count: number of words of each target, [N]; those of ``references`` when left out.
        vocab_size: vocabulary size V of the model, for EAD, tokens.
        embedder: function from n texts to vectors, [n, d]; see :func:`pal.metrics.load_embedder`.
        token_encoder: function from texts to vectors and weights of their tokens; see
            :func:`pal.metrics.load_token_encoder`.
        nli: function from pairs (premise, hypothesis) to probabilities of entailment, neutral and
            contradiction, [n, 3]; see :func:`pal.metrics.load_nli`.
        synonyms: function from the stem of a word to its synonyms, for METEOR; WordNet's when left
            out, where NLTK's data is installed.
        tokenizer: ``words``, or ``characters`` for scripts without spaces between words.
        reasons: why a field is None, for fields that need an explanation.

    Raises:
        PalError: there are no samples, fields have different lengths, or a value is invalid.
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
    strategy_count: np.ndarray | None = None
    word_count: np.ndarray | None = None
    vocab_size: int = VOCAB_SIZE
    embedder: Embedder | None = None
    token_encoder: TokenEncoder | None = None
    nli: NliModel | None = None
    synonyms: Callable[[str], Collection[str]] | None = None
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
                    "give one per sample"
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
        """Return a field by name, or None if it is not known."""
        return getattr(self, name)

    def __len__(self) -> int:
        """Return N."""
        return next(len(v) for name in _SAMPLE_FIELDS if (v := self.get(name)) is not None)

    @cached_property
    def response_tokens(self) -> list[tuple[str, ...]]:
        """Lower-cased word tokens of every response, computed once for all metrics."""
        return self._tokenize(self.responses)

    @cached_property
    def reference_tokens(self) -> list[tuple[str, ...]]:
        """Lower-cased word tokens of every reference, computed once for all metrics."""
        return self._tokenize(self.references)

    @property
    def word_tokenizer(self) -> str | None:
        """Name of the word tokenizer, None if nothing was tokenised yet."""
        if not {"response_tokens", "reference_tokens"} & vars(self).keys():
            return None
        from pal.metrics.text import word_tokenizer

        words = word_tokenizer()
        return words if self.tokenizer == "words" else f"characters of unspaced scripts, {words}"

    def notes(self) -> list[str]:
        """Return notes on the tokens for the reader of the scores."""
        if self.word_tokenizer is None or self.tokenizer != "words":
            return []
        from pal.metrics.text import is_unspaced

        texts = [*(self.responses or ()), *(self.references or ())]
        found = sum(map(is_unspaced, texts))
        if found <= UNSPACED_SHARE * len(texts):
            return []
        return [
            f"{found} of {len(texts)} responses and references are in a script without spaces "
            "between words, which the word tokenizer does not split: every score of words, such as "
            "BLEU, Distinct and length, treats whole sentences as words; give "
            "metrics.tokenizer=characters"
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
    """The result of a metric. Every key of the metric is in ``corpus`` or in ``undefined``.

    Args:
        corpus: the value of each key over the corpus.
        per_sample: values of single samples, in their order; their mean is the corpus value unless
            the key is in ``pooled``.
        pooled: corpus value as a function of sums over samples, if it is not a mean.
        types: corpus value as a function of counts of distinct items, if it is neither.
        rows: indices, 0 to N − 1, of the samples that ``corpus``, ``per_sample`` and ``pooled``
            cover, for keys that leave some out.
        undefined: the reason why a key has no value.
        details: further results, such as a confusion matrix.
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
    """One family of metrics: an entry of the table ``METRICS``, or a plug-in.

    Args:
        name: name of the family.
        direction: the better direction of each key: "higher", "lower" or "none".
        unit: unit of all values, except those of ``units``.
        needs: names of the required fields of :class:`Predictions`.
        compute: function of predictions and the variant, "correct" or "authors".
        version: version number, increased whenever values change.
        authors_differ: keys whose "authors" variant may differ from the correct one.
        units: the unit of each key that has another one.
    """

    name: str
    direction: Mapping[str, Direction]
    unit: str
    needs: tuple[str, ...]
    compute: Callable[[Predictions, Variant], Scores]
    version: str = "1.0"
    authors_differ: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        allowed = {f.name for f in fields(Predictions)}
        if not self.direction or not set(self.needs) <= allowed:
            raise PalError(
                f"metric {self.name!r}: give at least one key, and needs among {sorted(allowed)}"
            )
        if unknown := sorted(set(self.units) - set(self.direction)):
            raise PalError(f"metric {self.name!r}: units of {unknown}, which are none of its keys")

    @property
    def keys(self) -> tuple[str, ...]:
        """Metric keys of the family, such as ``bleu_2``."""
        return tuple(self.direction)

    def unit_of(self, key: str) -> str:
        """Return the unit of one key."""
        return self.units.get(key, self.unit)
