"""Metrics (PAL paper, Table 3): one file per family, one table and one function.

    from pal.metrics import Predictions, compute_metrics
    report = compute_metrics(Predictions(responses=[...], references=[...]))
    report.values["bleu_2"], report.meta["bleu_2"].unit, report.missing

Names are imported when first used, so that settings that name a metric load nothing.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Embedder": "base",
    "Metric": "base",
    "Predictions": "base",
    "Scores": "base",
    "METRICS": "table",
    "choose_metrics": "table",
    "evaluate_module": "table",
    "find_metric": "table",
    "metric_versions": "table",
    "Meta": "compute",
    "Report": "compute",
    "compute_metrics": "compute",
    "group_by_dialogue": "compute",
    "build_predictions": "records",
    "NliModel": "base",
    "TokenEncoder": "base",
    "load_embedder": "similarity",
    "load_nli": "persona_nli",
    "load_token_encoder": "bertscore",
    "word_tokenizer": "text",
    "Items": "pal.stats.pooled",
    "Pooled": "pal.stats.pooled",
    "Types": "pal.stats.pooled",
    "mean_of": "pal.stats.pooled",
}

__all__ = [
    "METRICS", "Embedder", "Items", "Meta", "Metric", "NliModel", "Pooled", "Predictions", "Report",
    "Scores", "TokenEncoder", "Types", "build_predictions", "choose_metrics", "compute_metrics",
    "evaluate_module", "find_metric", "group_by_dialogue", "load_embedder", "load_nli",
    "load_token_encoder", "mean_of", "metric_versions", "word_tokenizer",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        place = _PUBLIC[name]
        module = place if "." in place else f"pal.metrics.{place}"
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'pal.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
