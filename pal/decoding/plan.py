"""The decoding plan: the origin of strategies, the α of each, and how tokens are chosen.

All code that decodes (``pal generate``, ``model.generate``, the search for α) or checks settings
resolves them here, so that a strategy's name or a mapping of α has the same meaning everywhere.

Example:
    >>> alpha_of({"Questions": 1}, own=(0.0, 0.75, 0.0, 0.0, 0.75, 0.75, 0.75, 0.375))
    (1.0, 0.75, 0.0, 0.0, 0.75, 0.75, 0.75, 0.375)
    >>> DecodingPlan.from_settings(DecodingSettings(strategy="Question"), model.config).given
    0
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pal.core.errors import ConfigError, DataError, PalError
from pal.data.strategies import ESCONV, StrategySet
from pal.decoding.settings import DecodingSettings, SamplingOptions

# How a strategy is predicted, and its other origins besides a name.
Choice = Literal["argmax", "sample"]
WAYS = ("argmax", "sample", "gold")

# The origin of a record's strategy. Accuracy is defined only for strategies of the model.
StrategyFrom = Literal["model", "gold", "given"]


@dataclass(frozen=True)
class DecodingPlan:
    """How the responses of a model are decoded: checked settings with every default resolved.

    Attributes:
        options: how tokens are chosen.
        alpha: contrast weight of each strategy, in the order of the strategy set.
        strategy_alpha: contrast weight of the strategy step.
        choice: how a strategy is predicted.
        strategy_from: ``model``: predicted; ``gold``: the sample's own; ``given``: ``given`` for
            all.
        given: id of the strategy for all.
        strategies: the strategy set that ids and names are of.
        plausibility: tokens less probable with persona than this share of the best are dropped
            where there is a contrast; 0 drops none.
    """

    options: SamplingOptions
    alpha: tuple[float, ...]
    strategy_alpha: float
    choice: Choice = "argmax"
    strategy_from: StrategyFrom = "model"
    given: int | None = None
    strategies: StrategySet = ESCONV
    plausibility: float = 0.0

    @classmethod
    def from_settings(
        cls, decoding: DecodingSettings, config: Any, *, strategies: StrategySet = ESCONV
    ) -> "DecodingPlan":
        """Resolve settings for a model.

        Args:
            decoding: the settings.
            config: configuration of the model, which gives the values that settings leave null.
            strategies: strategy set of the model.

        Raises:
            ConfigError: settings contradict each other or the model.
        """
        check_decoding(decoding, strategies=strategies)
        alpha = alpha_of(decoding.alpha, own=config.alpha, strategies=strategies)
        strategy_alpha = decoding.strategy_alpha
        if strategy_alpha is None:
            strategy_alpha = float(config.strategy_alpha)
        if not can_contrast(config):
            none = [0.0] * len(strategies)
            if any(alpha_of(decoding.alpha, own=none, strategies=strategies)):
                raise ConfigError(
                    "decoding.alpha contrasts with and without persona, and this model's "
                    f"persona_mode is {config.persona_mode!r}; give decoding.alpha=null"
                )
            alpha, strategy_alpha = tuple(none), 0.0
        check_kind(decoding, language=is_language(config))
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and decoding.max_new_tokens + 2 > positions:
            raise ConfigError(
                f"decoding.max_new_tokens={decoding.max_new_tokens} and two start tokens do not "
                f"fit the model's {positions} positions"
            )
        named = decoding.strategy not in WAYS
        open_end = decoding.min_new_tokens is None and is_language(config)
        least = 1 if open_end else decoding.least
        return cls(
            options=decoding.model_copy(update={"min_new_tokens": least}),
            alpha=alpha,
            strategy_alpha=strategy_alpha,
            choice="sample" if decoding.strategy == "sample" else "argmax",
            strategy_from="given" if named else "gold" if decoding.strategy == "gold" else "model",
            given=strategies.id(decoding.strategy) if named else None,
            strategies=strategies,
            plausibility=decoding.plausibility,
        )

    def of_call(
        self,
        samples: Sequence[Any],
        strategies: Sequence[int] | None = None,
        *,
        alpha: float | None = None,
        words: bool = True,
    ) -> "tuple[DecodingPlan, Sequence[int] | None]":
        """Return the plan of one call, and the strategy ids of its samples; None to predict them.

        Args:
            samples: the samples of the call.
            strategies: strategy ids, in place of the settings' choice.
            alpha: contrast weight for all strategies, in place of the settings'.
            words: False predicts the strategies alone, with responses of one token.

        Raises:
            DataError: gold strategies are asked for, and a sample has none.
        """
        plan = self
        if strategies is None:
            strategies = plan.strategies_of(samples)
        else:
            plan = replace(plan, strategy_from="given")
        if alpha is not None:
            plan = replace(plan, alpha=alpha_of(alpha, own=plan.alpha))
        if not words:
            least: Any = {"min_new_tokens": 0, "max_new_tokens": 1}
            plan = replace(plan, options=plan.options.model_copy(update=least))
        return plan, strategies

    def strategies_of(self, samples: Sequence[Any]) -> list[int] | None:
        """Return the strategy ids of samples, or None if the model predicts them.

        Raises:
            DataError: gold strategies are requested, and a sample has none.
        """
        if self.strategy_from == "model":
            return None
        if self.given is not None:
            return [self.given] * len(samples)
        for sample in samples:
            if sample.strategy is None:
                raise DataError(
                    f"{sample.id}: decoding.strategy=gold, but the sample has no gold strategy"
                )
        return [self.strategies.id(sample.strategy) for sample in samples]


def is_language(config: Any) -> bool:
    """Whether a model is decoder-only, by its configuration."""
    return getattr(config, "pal_task", None) is not None


def can_contrast(config: Any) -> bool:
    """Whether a model has something to contrast: a persona that is fused in, or notes in a text."""
    return bool(config.persona_mode == ("prompt" if is_language(config) else "fusion"))


def check_decoding(decoding: DecodingSettings, *, strategies: StrategySet = ESCONV) -> None:
    """Check for settings that no model can be decoded with.

    Args:
        decoding: the settings.
        strategies: strategy set of the models.

    Raises:
        ConfigError: a strategy is unknown, α is neither one number nor eight nor a mapping, or
            beam search is combined with sampling.
    """
    try:
        if decoding.strategy not in WAYS:
            strategies_of(decoding.strategy, strategies=strategies)
    except ValueError as error:
        ways = ", ".join(WAYS)
        raise ConfigError(f"decoding.strategy: {error}, or a way to choose: {ways}") from None
    try:
        alpha_of(decoding.alpha, own=[0.0] * len(strategies), strategies=strategies)
    except ValueError as error:
        raise ConfigError(f"decoding.alpha: {error}") from None
    if decoding.do_sample and decoding.num_beams > 1:
        raise ConfigError(
            "decoding.num_beams > 1 is beam search, decoding.do_sample=true is sampling; choose one"
        )


def check_kind(decoding: DecodingSettings, *, language: bool) -> None:
    """Check for settings that are for the other kind of model.

    Args:
        decoding: the settings.
        language: whether the model is decoder-only.

    Raises:
        ConfigError: a decoder-only model is to search beams, or an encoder-decoder to drop
            implausible tokens.
    """
    if decoding.plausibility and not language:
        raise ConfigError(
            "decoding.plausibility is for decoder-only models, and this one has an encoder; "
            "leave it out"
        )
    if decoding.num_beams > 1 and language:
        raise ConfigError(
            f"decoding.num_beams={decoding.num_beams}: a decoder-only model samples or takes "
            "the most probable token; give num_beams=1"
        )


def alpha_of(
    alpha: Any, *, own: Sequence[float], strategies: StrategySet = ESCONV
) -> tuple[float, ...]:
    """Return the contrast weight of each strategy.

    Args:
        alpha: one number for all strategies, one for each (a sequence, array or tensor), a
            mapping of strategy names, or None for ``own``.
        own: α of the model, for strategies that a mapping leaves out.
        strategies: the strategy set.

    Raises:
        ValueError: the number of weights is wrong, a strategy is unknown or named twice, or a
            weight is not a number.
    """
    alpha = alpha.tolist() if hasattr(alpha, "tolist") else alpha
    if alpha is None:
        return tuple(float(weight) for weight in own)
    if isinstance(alpha, Mapping):
        table = dict(enumerate(own))
        ids = [_id_of(name, strategies) for name in alpha]
        if len(set(ids)) != len(ids):
            raise ValueError(f"a strategy is named twice in {', '.join(map(str, alpha))}")
        table |= {index: _weight(weight) for index, weight in zip(ids, alpha.values(), strict=True)}
        return tuple(float(table[index]) for index in range(len(own)))
    if isinstance(alpha, Sequence) and not isinstance(alpha, str):
        if len(alpha) != len(own):
            raise ValueError(f"expected a number or {len(own)} of them, got {len(alpha)}")
        return tuple(_weight(weight) for weight in alpha)
    return (_weight(alpha),) * len(own)


def _weight(value: Any) -> float:
    try:
        if not isinstance(value, bool | str) and math.isfinite(number := float(value)):
            return number
    except OverflowError:  # an integer of hundreds of digits
        value = "an integer that is too large"
    raise ValueError(f"expected a finite number, got {value!r:.80}")


def strategies_of(given: Any, rows: int = 1, *, strategies: StrategySet = ESCONV) -> list[int]:
    """Return the id of the strategy of every row.

    Args:
        given: a name, alias or id for all rows, or one for each row (a sequence, array or
            tensor).
        rows: number of rows.
        strategies: the strategy set.

    Raises:
        ValueError: a strategy is unknown, or the number of strategies is wrong.
    """
    given = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(given, str) or not isinstance(given, Sequence):
        return [_id_of(given, strategies)] * rows
    if len(given) != rows:
        raise ValueError(f"got {len(given)} strategies for {rows} rows")
    return [_id_of(one, strategies) for one in given]


def _id_of(strategy: Any, strategies: StrategySet) -> int:
    if isinstance(strategy, str):
        try:
            return strategies.id(strategy)
        except PalError as error:
            raise ValueError(str(error)) from None
    if isinstance(strategy, bool) or not isinstance(strategy, int):
        raise ValueError(f"expected a strategy's name or id, got {strategy!r}")
    if not 0 <= strategy < len(strategies):
        raise ValueError(f"expected a strategy id from 0 to {len(strategies) - 1}, got {strategy}")
    return strategy
