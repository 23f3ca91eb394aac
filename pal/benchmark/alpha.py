"""The search for the contrast weight α of each strategy on validation dialogues.

The paper sets α by hand and leaves a search to future work (section 3.4 and appendix D). A response
depends only on the α of its own strategy, so every (strategy, α) is generated and scored once, and
trials combine the results at almost no cost. Encoder states and strategies do not depend on α and
are computed once (a decoder-only model reads the dialogues again for every α).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pal.core.errors import ConfigError
from pal.core.job import counted
from pal.core.journal import Journal
from pal.data.strategies import PAPER_ALPHA, STRATEGIES
from pal.decoding.states import EncodedInputs
from pal.metrics import Embedder, build_predictions, compute_metrics, find_metric
from pal.metrics.base import Tokenizer, Variant
from pal.modeling.responder import Responder
from pal.stats.pooled import Pooled, Types

logger = logging.getLogger(__name__)

STATES_BYTES = 4 * 2**30  # maximum size of stored encoder states; others are encoded for each α
RULE = (
    "of the front, the point whose worst objective is best, each objective scaled to 0-1 "
    "over the front"
)


class AlphaGrid:
    """Responses to the samples of every strategy at any α, each made once and stored in a journal.

    Args:
        responder: the responder that answers the samples.
        samples: samples of the validation dialogues.
        journal: journal of finished batches.
        done: present contents of the journal.
        batch_tokens: maximum number of encoder positions in a batch.
        batch_rows: maximum number of rows in a batch.
    """

    def __init__(
        self,
        responder: Responder,
        samples: Sequence[Any],
        journal: Journal,
        done: dict[str, Any],
        *,
        batch_tokens: int,
        batch_rows: int,
    ):
        self.responder, self.samples = responder, samples
        self.journal, self.done = journal, done
        self.batch_tokens, self.batch_rows = batch_tokens, batch_rows
        self.encoded = responder.encode(samples)
        self.batches: dict[int, list[list[int]]] = {}
        self._states: dict[tuple[int, int], EncodedInputs] = {}
        self._bytes = 0

    def predict_strategies(self) -> None:
        """Predict the strategy of each sample, and plan batches of the samples of each strategy."""
        from tqdm.auto import tqdm

        chosen: dict[int, int] = {}
        plan = self._plan(range(len(self.samples)))
        for number, batch in enumerate(tqdm(plan, desc="strategies", unit="batch", leave=False)):
            key = f"strategies/{number}"
            if key not in self.done:
                samples, states = [self.samples[i] for i in batch], self._encode(batch)
                records = self.responder(samples, states, words=False)
                self._keep(key, [STRATEGIES.index(record["strategy"]) for record in records])
            chosen.update(zip(batch, self.done[key], strict=True))
        for strategy in range(len(STRATEGIES)):
            mine = [i for i in range(len(self.samples)) if chosen[i] == strategy]
            if mine:
                self.batches[strategy] = self._plan(mine)

    def records(self, strategy: int, alpha: float) -> list[dict[str, Any]]:
        """Return the responses to a strategy's samples at one α, generating missing ones."""
        found: dict[int, dict[str, Any]] = {}
        for number, batch in enumerate(self.batches[strategy]):
            key = f"{strategy}/{alpha:g}/{number}"
            if key not in self.done:
                records = self.responder(
                    [self.samples[i] for i in batch],
                    self._states_of(strategy, number),
                    strategies=[strategy] * len(batch),
                    alpha=alpha,
                )
                self._keep(key, [record["response"] for record in records])
            for index, response in zip(batch, self.done[key], strict=True):
                sample = self.samples[index]
                found[index] = {
                    "response": response,
                    "reference": sample.response,
                    "persona": list(sample.persona),
                }
        return [found[index] for index in sorted(found)]

    def _keep(self, key: str, value: Any) -> None:
        self.journal.append(key, value)
        self.done[key] = value

    def _plan(self, indices: Sequence[int]) -> list[list[int]]:
        plan = self.responder.plan_batches(
            [self.samples[i] for i in indices], [self.encoded[i] for i in indices],
            tokens=self.batch_tokens, rows=self.batch_rows,
        )  # fmt: skip
        return [[indices[i] for i in batch] for batch in plan]

    def _encode(self, batch: Sequence[int]) -> EncodedInputs:
        return self.responder.encode_states([self.encoded[i] for i in batch])

    def _states_of(self, strategy: int, number: int) -> EncodedInputs:
        if (strategy, number) in self._states:
            return self._states[strategy, number]
        states = self._encode(self.batches[strategy][number])
        size = sum(getattr(part, "nbytes", 0) for part in states)
        if self._bytes + size <= STATES_BYTES:
            self._bytes += size
            self._states[strategy, number] = states
        return states


def objective_directions(objectives: Sequence[str]) -> dict[str, str]:
    """Return the better direction of each objective.

    Raises:
        ConfigError: a key is unknown, does not depend on responses, or has no better direction.
    """
    directions = {}
    for key in objectives:
        metric = find_metric(key)
        if key not in metric.keys or "responses" not in metric.needs:
            raise ConfigError(
                f"tune_alpha.objectives: {key!r} is not a metric of responses; give keys such as "
                "bleu_2, distinct_2, cos_sim"
            )
        if metric.direction[key] == "none":
            raise ConfigError(f"tune_alpha.objectives: more {key!r} is neither better nor worse")
        directions[key] = str(metric.direction[key])
    return directions


def search_alpha(
    grid: AlphaGrid,
    directions: Mapping[str, str],
    *,
    sampler: Literal["tpe", "cmaes"],
    trials: int,
    highest: float,
    step: float,
    seed: int,
    embedder: Embedder | None,
    variant: Variant = "correct",
    tokenizer: Tokenizer = "words",
) -> dict[str, Any]:
    """Try α vectors with optuna and return baselines, trials and the choice.

    Args:
        grid: the grid of responses.
        directions: direction of each objective, from :func:`objective_directions`.
        sampler: ``tpe`` (all objectives at once) or ``cmaes`` (on their mean relative gain over
            α = 0).
        trials: number of α vectors to try.
        highest: maximum α.
        step: step size of α.
        seed: seed of the sampler.
        embedder: sentence encoder for cos_sim.
        variant: variant of the metrics.
        tokenizer: tokenizer of the metrics.

    Raises:
        ConfigError: an objective has no value on these samples.
    """
    import optuna
    from tqdm.auto import tqdm

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parts: dict[tuple[int, float], dict[str, Pooled | Types]] = {}

    def measure(alpha: Sequence[float]) -> dict[str, float]:
        several = []
        for strategy in grid.batches:
            at = (strategy, alpha[strategy])
            if at not in parts:
                size = {"vocab_size": grid.responder.model.config.vocab_size}
                predictions = build_predictions(
                    grid.records(*at), size, embedder, tokenizer=tokenizer
                )
                report = compute_metrics(predictions, list(directions), variant)
                for note in report.notes if not parts else ():
                    logger.warning("%s", note)
                parts[at] = report.by_group(np.zeros(len(predictions), dtype=int))
            several.append(parts[at])
        return {key: _combined(key, several) for key in directions}

    steps = int(highest / step + 1e-9)
    zero = [0.0] * len(STRATEGIES)
    baselines: list[dict[str, Any]] = [
        {"name": "α = 0", "alpha": zero, "values": measure(zero)},
        {"name": "paper", "alpha": list(PAPER_ALPHA), "values": measure(PAPER_ALPHA)},
    ]
    gain = _relative_gain(directions, baselines[0]["values"])
    if sampler == "tpe":
        chooser: Any = optuna.samplers.TPESampler(seed=seed)
        ways: list[Any] = [
            "maximize" if way == "higher" else "minimize" for way in directions.values()
        ]
    else:
        chooser, ways = optuna.samplers.CmaEsSampler(seed=seed), ["maximize"]
    study = optuna.create_study(directions=ways, sampler=chooser)
    for baseline in baselines:  # start with these if they lie on the grid
        found = np.array([baseline["alpha"][strategy] for strategy in grid.batches])
        on_grid = np.isclose(found / step, np.round(found / step)).all()
        if on_grid and found.max() <= steps * step:
            names = [f"alpha_{strategy}" for strategy in grid.batches]
            study.enqueue_trial(dict(zip(names, found.tolist(), strict=True)))
    tried: list[dict[str, Any]] = []
    with tqdm(total=trials, desc="trials", unit="trial", dynamic_ncols=True) as bar:
        while len(tried) < trials:
            trial = study.ask()
            # Strategies that do not occur in the samples keep the model's α.
            alpha = [float(a) for a in grid.responder.model.config.alpha]
            for strategy in grid.batches:
                top = steps * step
                value = trial.suggest_float(f"alpha_{strategy}", 0.0, top, step=step)
                alpha[strategy] = round(value, 6)
            values = measure(alpha)
            study.tell(trial, list(values.values()) if sampler == "tpe" else gain(values))
            tried.append({"number": len(tried), "alpha": alpha, "values": values})
            bar.set_postfix(generated=len(parts), refresh=False)
            bar.update()
    front = pareto_front([trial["values"] for trial in tried], directions)
    seen: set[tuple[float, ...]] = set()
    for one, on_front in zip(tried, front, strict=True):  # a repeated point appears once
        one["front"] = on_front and tuple(one["alpha"]) not in seen
        seen.add(tuple(one["alpha"]))
    chosen = most_balanced([one for one in tried if one["front"]], directions)
    return {
        "tried": [STRATEGIES[strategy] for strategy in grid.batches],
        "baselines": baselines,
        "trials": tried,
        "chosen": {"alpha": chosen["alpha"], "values": chosen["values"], "rule": RULE},
    }


def pareto_front(
    values: Sequence[Mapping[str, float]], directions: Mapping[str, str]
) -> list[bool]:
    """Return the indices of points that no other point dominates."""
    table = _upwards(values, directions)
    as_good = np.asarray((table[None] >= table[:, None]).all(-1))
    better = np.asarray((table[None] > table[:, None]).any(-1))
    beaten: Any = (as_good & better).any(axis=1)
    return [not one for one in beaten.tolist()]


def most_balanced(
    points: Sequence[dict[str, Any]], directions: Mapping[str, str]
) -> dict[str, Any]:
    """Return the point with the best worst objective, objectives scaled to 0-1 over the points."""
    table = _upwards([point["values"] for point in points], directions)
    width = table.max(0) - table.min(0)
    scaled = np.where(width > 0, (table - table.min(0)) / np.where(width > 0, width, 1), 1.0)
    order = np.lexsort((-scaled.mean(1), -scaled.min(1)))
    return points[int(order[0])]


def alpha_table(document: Mapping[str, Any]) -> str:
    """Return the result as Markdown: baselines and choice, then the chosen α of each strategy."""
    keys = [objective["key"] for objective in document["objectives"]]
    rows = [*document["baselines"], {"name": "chosen", **document["chosen"]}]
    lines = [f"| α | {' | '.join(keys)} |", f"| --- |{' ---: |' * len(keys)}"]
    for row in rows:
        cells = [f"{row['values'][key]:.4g}" for key in keys]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    lines += ["", "| strategy | paper | chosen |", "| --- | ---: | ---: |"]
    for strategy, paper, chosen in zip(
        document["strategies"], PAPER_ALPHA, document["chosen"]["alpha"], strict=True
    ):
        note = "" if strategy in document["tried"] else " (not tried: no sample has it)"
        lines.append(f"| {strategy} | {paper:g} | {chosen:g}{note} |")
    front = sum(trial["front"] for trial in document["trials"])
    lines += ["", f"{counted(document['samples'], 'sample')}, "
              f"{counted(len(document['trials']), 'trial')}, "
              f"{front} on the Pareto front. Chosen: {document['chosen']['rule']}."]  # fmt: skip
    return "\n".join(lines)


def _combined(key: str, several: Sequence[Mapping[str, Pooled | Types]]) -> float:
    """Return one value over several groups; groups without a value (no persona) are left out."""
    found = [part[key] for part in several if key in part]
    if not found:
        raise ConfigError(
            f"tune_alpha.objectives: {key} has no value on these samples; cos_sim needs personas "
            "and metrics.embedder, distances to a reference need gold responses"
        )
    first, *others = found
    if isinstance(first, Types):
        items = first.items.join(*(o.items for o in others if isinstance(o, Types)))
        return float(Types(items, first.finish).value())
    return float(first.join(*(o for o in others if isinstance(o, Pooled))).value())


def _upwards(values: Sequence[Mapping[str, float]], directions: Mapping[str, str]) -> np.ndarray:
    """Return values as a table, [points, objectives], in which higher is better."""
    signs = [1.0 if way == "higher" else -1.0 for way in directions.values()]
    return np.array([[value[key] for key in directions] for value in values]) * signs


def _relative_gain(
    directions: Mapping[str, str], base: Mapping[str, float]
) -> Callable[[Mapping[str, float]], float]:
    def gain(values: Mapping[str, float]) -> float:
        gains = [
            (values[key] - base[key]) / max(abs(base[key]), 1e-9) * (1 if way == "higher" else -1)
            for key, way in directions.items()
        ]
        return float(np.mean(gains))

    return gain
