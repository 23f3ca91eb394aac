"""The whole pipeline on the bundled corpus: extractor → PESConv → PAL → responses → scores."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pal.core.config import load_settings
from pal.core.files import read_jsonl, write_text
from pal.core.schema import bundled

logger = logging.getLogger(__name__)

SHOWN = 5


def quickstart(config: str, overrides: Sequence[str] = ()) -> str:
    """Run every stage into ``output_dir`` and return the closing summary.

    Finished stages are kept, so an interrupted run goes on where it stopped.

    Raises:
        PalError: settings or output cannot be used.
    """
    base = load_settings(config, overrides, check_training=True)
    root = Path(base.output_dir)
    extractor, pesconv, model = root / "extractor", root / "pesconv.jsonl", root / "model"
    predictions, metrics, report = (
        root / name for name in ("predictions.jsonl", "metrics.json", "report.md")
    )
    personas = bundled("sample", "personachat")

    def settings(task: str = "response", **fixed: Any) -> Any:
        fixed["task"] = task
        return load_settings(config, overrides, fixed=fixed, check_training=True)

    from pal.commands.annotate import annotate
    from pal.commands.evaluate import score
    from pal.commands.generate import generate
    from pal.training.trainer import train

    logger.info("[1/5] train the persona extractor → %s", extractor)
    data = {"train": str(personas / "train.txt"), "validation": str(personas / "validation.txt")}
    train(settings("persona_extractor", data=data, output_dir=str(extractor)))
    logger.info("[2/5] annotate the corpus with personas → %s", pesconv)
    corpus = str(bundled("sample", "esconv"))
    annotate(settings(model=str(extractor), output=str(pesconv), input=corpus, split=None))
    logger.info("[3/5] train PAL → %s", model)
    train(settings(data={"train": str(pesconv)}, output_dir=str(model)))
    logger.info("[4/5] answer the test dialogues → %s", predictions)
    made = {"model": str(model), "input": str(pesconv)}
    generate(settings(output=str(predictions), **made))
    logger.info("[5/5] score → %s", metrics)
    table = score(settings(predictions=str(predictions), output=str(metrics), **made))

    samples = _samples(predictions, pesconv)
    files = "\n".join(
        f"  {path}  {what}"
        for path, what in (
            (extractor, "persona extractor"),
            (pesconv, "dialogues with the persona known at every turn"),
            (model, "PAL response model, one checkpoint an epoch"),
            (predictions, "one response a sample"),
            (metrics, "scores"),
            (report, "scores and samples, this page"),
        )
    )
    note = (
        "Tiny models with random weights on a small corpus: this shows that the pipeline runs, "
        "not how good PAL is."
    )
    write_text(report, f"# Quickstart\n\n{note}\n\n{table}\n\n## Samples\n\n{samples}\n")
    return f"\n{table}\n\n{samples}\n\n{note}\n\nFiles:\n{files}"


def _samples(predictions: Path, dialogues: Path) -> str:
    """Show some exchanges: the seeker's last words, persona, strategy, response, reference."""
    turns = {row["id"]: row["dialog"] for _, row in read_jsonl(dialogues)}
    records = [record for _, record in read_jsonl(predictions)]
    step = max(1, len(records) // SHOWN)
    shown = []
    for record in records[::step][:SHOWN]:
        dialogue, _, turn = record["id"].rpartition("/")
        persona = " | ".join(record["persona"]) or "none known yet"
        shown.append(
            f"seeker     {turns[dialogue][int(turn) - 1]['text']}\n"
            f"persona    {persona}\n"
            f"supporter  [{record['strategy']}, α {record['alpha']:g}] {record['response']}\n"
            f"reference  [{record['reference_strategy']}] {record['reference']}"
        )
    return "```\n" + "\n\n".join(shown) + "\n```"
