"""The model card: ``README.md`` of a trained folder, as model hubs show it.

It is made from the record of the run, so it says what was measured and nothing else. Paths of the
machine stay out of it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pal.core.files import atomic_writer
from pal.core.job import counted
from pal.data.sources import is_hub_id

CARD = "README.md"
EVAL_RESULTS = ".eval_results"  # folder beside it, a YAML a source, which hubs read too

MARK = "<!-- Written by pal train. Without this line it is yours, and no run replaces it. -->"

TITLES = {
    "response": "An emotional-support response model",
    "persona_extractor": "A persona extractor",
}
USES = {
    "response": "It responds to a seeker of emotional support, choosing a strategy first.",
    "persona_extractor": "It infers persona sentences from what a speaker has said.",
}
TAGS = {
    "response": ["emotional-support", "dialogue", "persona"],
    "persona_extractor": ["persona", "dialogue"],
}

LIMITS = """\
- This is research software. The model is not a therapist and not a crisis service; put a guard in
  front of it, and a way to human help (`pal chat`, `pal serve` and `pal.load` have one).
- It was trained on dialogues in one language and can repeat their mistakes and biases.
- The loss above says how well it predicts replies of that corpus, not whether a reply helps.
- What it says about a person can be wrong. Show people what is inferred about them."""


def write_model_card(folder: Path, record: Mapping[str, Any]) -> None:
    """Write results and card of a finished run; a card that a person wrote stays.

    Args:
        folder: of the model.
        record: of the run.
    """
    results, place = evaluation_results(record), folder / EVAL_RESULTS / "pal.yaml"
    place.unlink(missing_ok=True)  # of an earlier run in this folder
    if results:
        with atomic_writer(place) as file:
            yaml.safe_dump(results, file, sort_keys=False)
    path = folder / CARD
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    with atomic_writer(path) as file:
        file.write(model_card(record))


def evaluation_results(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was measured in the form of a hub's ``.eval_results`` files.

    The form names a data set of the hub, so a corpus from elsewhere has none.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    corpus, loss = str(record["settings"]["data"]["train"]), record.get("validation_nll")
    if loss is None or not _hub_id(corpus):
        return []
    entry = EvalResultEntry(
        dataset_id=corpus, task_id="validation_loss", value=round(loss, 6),
        date=str(record["finished"])[:10],
        notes=f"nats per token, {record['validation_samples']} validation samples",
    )  # fmt: skip
    return eval_result_entries_to_yaml([entry])


def model_card(record: Mapping[str, Any]) -> str:
    """Return the text of a card: a block that programs read, then what people read.

    Args:
        record: of a training run, ``run.json``.

    Example:
        >>> print(model_card(read_json("runs/pal/run.json")))
    """
    from huggingface_hub import EvalResult, ModelCardData

    settings = record["settings"]
    task, data = settings["task"], settings["data"]
    chosen = settings["architecture"]
    base = None if chosen["from_scratch"] is not None else str(chosen["base"])
    corpus = str(data["train"])
    title, loss = TITLES[task], record.get("validation_nll")
    results = []
    if loss is not None:
        results = [
            EvalResult(
                task_type="text-generation", task_name=title, dataset_type=_public(corpus),
                dataset_name=f"validation part of {_public(corpus)}", metric_type="loss",
                metric_name="validation loss, nats per token", metric_value=round(loss, 6),
            )
        ]  # fmt: skip
    head = ModelCardData(
        library_name="transformers", tags=TAGS[task], base_model=_hub_id(base),
        datasets=[corpus] if _hub_id(corpus) else None,
        model_name=title if results else None, eval_results=results or None,
    )  # fmt: skip
    rows = {
        "base": "random weights" if base is None else _public(base),
        "parameters": f"{record['parameters']:,}",
        "layers left as they were": chosen.get("frozen_layers") or "",
        "trained on": f"{_public(corpus)}, {counted(record['train_samples'], 'sample')}",
        "epochs": f"{record['epochs']:g}" if record.get("epochs") is not None else "",
        "seed": record["seed"],
        "number format": record["number_format"],
        "made with": f"pal-esc {record['versions']['pal-esc']}, "
        f"torch {record['versions']['torch']}, transformers {record['versions']['transformers']}",
    }
    lines = [
        "---", head.to_yaml(), "---", MARK, "", f"# {title}", "", USES[task],
        "Load it with `pal.load(FOLDER)` or, after `import pal`, with transformers' Auto classes.",
        "", "## How it was made", "", "| | |", "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows.items() if value != ""),
        "", "`run.json` has every setting.", "", "## What was measured", "", *_measured(record),
        "", "## Licence", "",
        "The licences of its base and of its data both apply. ESConv is CC BY-NC 4.0: a "
        "model trained on it is for non-commercial use.",
        "", "## Limits", "", LIMITS, "",
    ]  # fmt: skip
    return "\n".join(lines)


def _measured(record: Mapping[str, Any]) -> list[str]:
    loss, floor = record.get("validation_nll"), record.get("unigram_validation_nll")
    if loss is None:
        return ["Nothing: the run had no validation."]
    lines = [
        f"Validation loss {loss:.3f} nats per token on "
        f"{counted(record['validation_samples'], 'sample')}."
    ]
    if floor is not None:
        lines.append(f"Token frequencies alone give {floor:.3f} there.")
        if loss >= floor:
            lines.append("**So it has learnt nothing beyond these.**")
    return lines


def _hub_id(source: str | None) -> str | None:
    return source if source and is_hub_id(source) and not Path(source).exists() else None


def _public(source: str) -> str:
    """Return a source by a name that says nothing of the machine."""
    return source if _hub_id(source) or ":" in source else Path(source).name
