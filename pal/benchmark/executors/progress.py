"""One bar for all stages of a benchmark: how many are done, which run, and how long is left."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pal.benchmark.executors.tasks import StageTask


class StageBar:
    """The bar, with an estimate from the mean duration of the stages of each kind so far.

    Args:
        planned: number of stages by kind.
        width: how many run side by side; None if nobody says.
    """

    def __init__(self, planned: Mapping[str, int], width: int | None):
        from tqdm.auto import tqdm

        self.left, self.width = Counter(planned), width
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.bar: Any = tqdm(
            total=sum(planned.values()), desc="stages", unit="stage", dynamic_ncols=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        )  # fmt: skip
        self._shown = float("-inf")

    def done(self, stage: StageTask, seconds: float | None = None) -> None:
        """Count a stage as done; ``seconds`` if it was performed now."""
        if seconds is not None:
            self.seconds[stage.kind].append(seconds)
        self.left[stage.kind] -= 1
        self.bar.update()

    def eta(self, running: Mapping[str, float]) -> float | None:
        """Return the estimated seconds to the end, or None while nothing is known.

        Args:
            running: for each running stage its kind is the text before the colon of the key, and
                the value is for how long it has run.
        """
        known = [value for found in self.seconds.values() for value in found]
        if not known:
            return None
        overall = sum(known) / len(known)
        mean = {kind: sum(found) / len(found) for kind, found in self.seconds.items() if found}
        work = sum(max(count, 0) * mean.get(kind, overall) for kind, count in self.left.items())
        for key, elapsed in running.items():
            work -= min(elapsed, mean.get(key.partition(":")[0], overall))
        return max(work, 0.0) / max(min(self.width or len(running), sum(self.left.values())), 1)

    def show(self, running: Iterable[tuple[StageTask, float]]) -> None:
        """Refresh the bar at most once a second.

        Args:
            running: the stages that run, each with the time it began.
        """
        now = time.monotonic()
        if now - self._shown < 1:
            return
        self._shown, running = now, list(running)
        left = self.eta({f"{stage.kind}:{stage.name}": now - began for stage, began in running})
        text = "?" if left is None else self.bar.format_interval(left)
        labels = ", ".join(stage.label for stage, _ in running[:2])
        more = f" and {len(running) - 2} more" if len(running) > 2 else ""
        self.bar.set_postfix_str(f"ETA {text}; {labels}{more}" if running else "", refresh=False)
        self.bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.set_postfix_str("", refresh=False)
        self.bar.close()
