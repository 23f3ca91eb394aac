"""The table of metric families.

A new family is one file with a ``METRIC`` and one line in ``METRICS``; settings may also name a
plug-in, ``their_package.module:OBJECT``. Families are imported when first used.
"""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pal.core.errors import ConfigError, PalError, suggest
from pal.core.registry import Registry
from pal.metrics.base import Metric

METRICS = Registry(
    "metric",
    {
        name: f"pal.metrics.{name}:METRIC"
        for name in (
            "strategy", "perplexity", "bleu", "distinct", "rouge", "f1", "length", "similarity",
            "meteor", "bertscore", "self_bleu", "repetition", "persona_words", "persona_nli",
        )
    },
)  # fmt: skip


def find_metric(name: str) -> Metric:
    """Return a family by its name, by one of its keys, or as ``their_package.module:OBJECT``.

    Raises:
        ConfigError: the name is unknown, or the object is not a metric.

    Example:
        >>> find_metric("bleu_2").name
        'bleu'
    """
    if ":" in name or name in METRICS:
        found = METRICS.find(name)
        if not isinstance(found, Metric):
            raise ConfigError(
                f"metric {name!r}: expected a pal.metrics.Metric, got {type(found).__name__}"
            )
        return found
    for metric in METRICS.values():
        if name in metric.keys:
            return metric
    keys = [key for metric in METRICS.values() for key in metric.keys]
    raise ConfigError(
        f"unknown metric {name!r}{suggest(name, [*METRICS, *keys])} (families: "
        f"{', '.join(METRICS)}; or their_package.module:OBJECT)"
    )


def choose_metrics(names: Iterable[str] | None = None) -> list[tuple[Metric, tuple[str, ...]]]:
    """Return each requested family once, with its requested keys in the order of the family.

    Args:
        names: families, single keys, or plug-ins; all families if None.

    Raises:
        ConfigError: a name is unknown, or two families have the same name.
    """
    found: dict[str, tuple[Metric, set[str]]] = {}
    for name in METRICS if names is None else names:
        metric = find_metric(name)
        if metric is not found.setdefault(metric.name, (metric, set()))[0]:
            raise ConfigError(f"two metrics are named {metric.name!r}; rename the plug-in {name!r}")
        one = name in metric.keys and name not in METRICS  # a family may have a key of its name
        found[metric.name][1].update([name] if one else metric.keys)
    return [(m, tuple(key for key in m.keys if key in keys)) for m, keys in found.values()]


def metric_versions(names: Iterable[str] | None = None) -> list[list[Any]]:
    """Return name and version of each requested family, and for a plug-in a hash of its file.

    They are part of the identity of scores, so that scores of another version are not reused.
    """
    from pal.core.files import file_fingerprint

    versions: list[list[Any]] = []
    for metric, _ in choose_metrics(names):
        versions.append([metric.name, metric.version])
        if METRICS.get(metric.name) is not metric:
            try:
                file = inspect.getsourcefile(inspect.unwrap(metric.compute))
            except TypeError:  # not a plain function
                file = None
            versions[-1].append(file_fingerprint(file) if file and Path(file).is_file() else None)
    return versions


def evaluate_module(name: str) -> str:
    """Return the path for ``evaluate.load`` of a family or one of its keys.

    Raises:
        PalError: an unknown name, a plug-in, or a family without a file in ``hub``.
    """
    metric = find_metric(name)
    if METRICS.get(metric.name) is not metric:
        raise PalError(f"metric {name!r} is a plug-in; its own package has to offer a module")
    path = Path(__file__).parent / "hub" / f"{metric.name}.py"
    if not path.exists():
        raise PalError(
            f"metric {name!r} has no module for evaluate: expected {path}; write it as the others "
            f"there, with build_module({metric.name!r})"
        )
    return str(path)
