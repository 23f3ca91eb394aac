"""Writing of a task's folder: samples as JSON lines, and the files that the two programs run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pal.core.files import write_json, write_jsonl, write_text
from pal.data.samples import Sample
from pal.harness.scoring import ABOUT, SAMPLES
from pal.metrics.settings import MetricSettings
from pal.supporter.replies import Situation, load_supporter_prompt, supporter_messages
from pal.supporter.settings import SupporterSettings


def write_task(
    folder: Path,
    samples: Sequence[Sample],
    *,
    name: str,
    supporter: SupporterSettings,
    metrics: MetricSettings,
    about: Mapping[str, Any],
) -> None:
    """Write the folder of a task; the samples, which hold texts, for the user alone.

    Args:
        folder: an empty folder.
        samples: what is asked.
        name: name of the task in both programs.
        supporter: how the model is asked.
        metrics: which scores, and by which models.
        about: further facts for ``task.json``.
    """
    rows = [_row(sample, supporter) for sample in samples]
    keys = score_names(rows, supporter, metrics)
    prompt = load_supporter_prompt()
    write_jsonl(folder / SAMPLES, rows)
    write_json(
        folder / ABOUT,
        {
            "name": name,
            "samples": len(rows),
            "supporter": supporter.model_dump(),
            "metrics": _with_whole_paths(metrics),
            "prompt": {prompt.name: prompt.version},
            **about,
        },
    )
    scores = [(key, re.sub(r"\W", "_", f"score_{key}"), better) for key, better in keys.items()]
    values = {"name": name, "scores": scores, "supporter": supporter}
    for template, file in (
        ("lm_eval.yaml", f"{name}.yaml"), ("utils.py", "utils.py"), ("inspect.py", "task.py"),
    ):  # fmt: skip
        write_text(folder / file, _templates().get_template(f"{template}.jinja").render(values))


def score_names(
    rows: Sequence[Mapping[str, Any]], supporter: SupporterSettings, metrics: MetricSettings
) -> dict[str, str]:
    """Return the scores that answers to these samples can have, and which direction is better."""
    from pal.metrics.table import choose_metrics

    there = {"responses"}
    if all(row["reference"] is not None for row in rows):
        there.add("references")
    if any(row["persona"] for row in rows):
        there |= {"personas"} | ({"embedder"} if metrics.embedder else set())
    if supporter.strategy_first:
        there.add("predicted_strategies")
        if all(row["reference_strategy"] for row in rows):
            there.add("strategies")
    there |= {"token_encoder"} if metrics.bertscore else set()
    there |= {"nli"} if metrics.nli else set()
    return {
        key: metric.direction[key]
        for metric, keys in choose_metrics(metrics.names) if there.issuperset(metric.needs)
        for key in keys
    }  # fmt: skip


def _row(sample: Sample, supporter: SupporterSettings) -> dict[str, Any]:
    asked = dict(
        supporter_messages(Situation(sample.id, sample.context, sample.persona), supporter)
    )
    return {
        "id": sample.id,
        "system": asked["system"],
        "user": asked["user"],
        "persona": list(sample.persona),
        "reference": sample.response,
        "reference_strategy": sample.strategy,
    }


def _with_whole_paths(metrics: MetricSettings) -> dict[str, Any]:
    """Return what was set, the folders of models as whole paths, since others run elsewhere."""
    tree = metrics.model_dump(exclude_unset=True)
    for key in ("embedder", "bertscore", "nli"):
        if tree.get(key) and Path(tree[key]).exists():
            tree[key] = str(Path(tree[key]).resolve())
    return tree


def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("pal.harness"), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
