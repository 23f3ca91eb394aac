"""One system's scores: responses against references, and a model's perplexity on its samples."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from pal.benchmark.systems import TABLE_3
from pal.commands.generate import load_model_and_tokenizer, load_samples
from pal.core.errors import ConfigError, DataError
from pal.core.files import file_fingerprint, write_json, write_text
from pal.core.job import claimed, is_finished, process_state, record_path
from pal.core.runs import identity_of, write_run
from pal.core.schema import Settings
from pal.core.tracking import track
from pal.data.batches import Collator, plan_batches
from pal.data.predictions import column, is_foreign, read_outside, read_predictions
from pal.data.strategies import STRATEGIES, strategy_id
from pal.data.templates import SampleEncoder
from pal.metrics import Embedder, Predictions, Report, compute_metrics, load_embedder
from pal.modeling.packed import inference_twin

logger = logging.getLogger(__name__)


def score(settings: Settings) -> str:
    """Score ``predictions`` and/or ``model`` (on ``input``); returns the Markdown table.

    With ``output`` set, the scores are written there as JSON and the table beside it as Markdown.

    Raises:
        PalError: inputs, checkpoint, settings or output cannot be used.
    """
    if settings.predictions is None and settings.model is None:
        raise ConfigError("missing settings: give predictions=… or model=… input=…, or both")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("eval runs in one process; start it without torchrun or accelerate")
    output = Path(settings.output) if settings.output else None
    identity = _identity(settings)
    if output and output.suffix == ".md":
        raise ConfigError(f"output={output}: give a .json name; the table goes beside it as .md")
    done = output and is_finished(output, identity, overwrite=settings.overwrite)
    if output and done and output.with_suffix(".md").exists():
        logger.info("%s is finished already; overwrite=true would make it anew", output)
        return output.with_suffix(".md").read_text(encoding="utf-8").rstrip()

    records = None
    if settings.predictions is not None:
        records = _read(settings)
    losses = token_losses(settings, records) if settings.model is not None else {}
    embedder = None
    if settings.metrics.embedder and any(column(records or [{}], "persona") or ()):
        embedder = load_embedder(settings.metrics.embedder)
    predictions = build_predictions(records, losses, embedder)
    report = compute_metrics(predictions, settings.metrics.names, settings.metrics.variant)
    table = markdown_table(report, len(predictions))
    if output:
        with claimed(output):
            output.unlink(missing_ok=True)  # the record first: a kill between the two is harmless
            write_run(record_path(output), settings, "eval", identity, samples=len(predictions))
            write_text(output.with_suffix(".md"), table + "\n")
            write_json(output, report.as_dict())
        logger.info("scores written to %s", output)
    track(settings, Path(settings.predictions or settings.model or "").stem, report.values, records)
    return table


def _read(settings: Settings) -> list[dict[str, Any]]:
    """Read ``predictions``; where they have no ids, they answer the samples of ``input``."""
    (path,) = settings.require("predictions")
    if not is_foreign(path):
        return read_predictions(path)[: settings.limit]
    if settings.input is None:
        raise ConfigError(f"{path}: it has no ids; give the dialogues it answers as input=…")
    return read_outside(path, load_samples(settings))


def _identity(settings: Settings) -> str:
    """Hash what decides the scores: settings, and the content of the files they name."""
    files = {}
    for name in ("predictions", "model", "input"):
        source = getattr(settings, name)
        found = [] if source is None else [Path(source), *sorted(Path(source).glob("*"))]
        files[name] = [source, *(file_fingerprint(path) for path in found if path.is_file())]
    return identity_of(
        settings, "metrics", "limit", "split", "data", "decoding", "dtype", "batch_tokens",
        "batch_rows", files=files,
    )  # fmt: skip


def build_predictions(
    records: Sequence[dict[str, Any]] | None,
    losses: dict[str, Any],
    embedder: Embedder | None = None,
) -> Predictions:
    """Put records and token losses, sample by sample, into the form that metrics read."""
    if records is None:
        return Predictions(**losses)
    gold, chosen = column(records, "reference_strategy"), column(records, "strategy")
    probs, personas = column(records, "strategy_probs"), column(records, "persona")
    return Predictions(
        responses=[record["response"] for record in records],
        references=column(records, "reference"),
        personas=personas,
        strategies=[strategy_id(name) for name in gold] if gold else None,
        predicted_strategies=[strategy_id(name) for name in chosen] if chosen else None,
        strategy_probs=(
            np.array([[row[name] for name in STRATEGIES] for row in probs]) if probs else None
        ),
        embedder=embedder,
        **losses,
    )


@torch.inference_mode()
def token_losses(
    settings: Settings, records: Sequence[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the model's losses on gold targets of ``input``, one value a sample.

    Keys: ``token_nll`` (nats, strategy token included), ``token_count``, ``strategy_nll`` and the
    model's ``vocab_size``. Targets are cut only at the model's last position.

    Args:
        settings: name the model and the input.
        records: predictions whose samples are measured, in their order; all samples when None.

    Raises:
        DataError: a prediction's id is no sample of ``input``, or has no gold response there.
    """
    from tqdm.auto import tqdm

    samples = load_samples(settings)
    if records is not None:
        by_id = {sample.id: sample for sample in samples}
        for record in records:
            if record["id"] not in by_id:
                raise DataError(
                    f"{settings.predictions}: id {record['id']!r} is no sample of "
                    f"{settings.input}; give the input the predictions were made from"
                )
        samples = [by_id[record["id"]] for record in records]
    if any(sample.response is None for sample in samples):
        raise DataError(f"{settings.input}: perplexity needs gold responses, and some are missing")
    source, _ = settings.require("model", "input")
    model, tokenizer = load_model_and_tokenizer(source, settings.dtype)
    model = inference_twin(model.to(process_state().device))
    config = model.config
    encoder = SampleEncoder.from_config(tokenizer, config)
    encoder.max_target_tokens = config.max_position_embeddings - 1
    encoded = [encoder.encode(sample) for sample in samples]
    collate = Collator(
        pad_token_id=config.pad_token_id, decoder_start_token_id=config.decoder_start_token_id
    )
    lengths = [len(row["input_ids"]) + len(row["labels"]) for row in encoded]
    batches = plan_batches(lengths, max_tokens=settings.batch_tokens, max_rows=settings.batch_rows)
    result = np.zeros((len(samples), 3))
    with tqdm(total=len(samples), desc="perplexity", unit="item", dynamic_ncols=True) as bar:
        for indices in batches:
            batch = collate([encoded[index] for index in indices])
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            labels = batch.pop("labels")
            nats = F.cross_entropy(
                model(**batch).logits.transpose(1, 2).float(), labels, reduction="none",
                ignore_index=-100,
            )  # fmt: skip
            rows = torch.stack([nats.sum(1), (labels != -100).sum(1), nats[:, 0]], dim=1)
            result[indices] = rows.cpu().double().numpy()
            bar.update(len(indices))
    nll, count, strategy = result.T
    return {
        "token_nll": nll,
        "token_count": count,
        "strategy_nll": strategy,
        "vocab_size": config.vocab_size,
    }


def markdown_table(report: Report, samples: int) -> str:
    """Return the scores as a Markdown table: the paper's Table 3 first, then all others."""
    keys = [key for key in TABLE_3 if key in report.values]
    keys += [key for key in report.values if key not in TABLE_3]
    arrows = {"higher": "↑", "lower": "↓", "none": ""}
    lines = ["| metric | value | unit | better |", "| --- | ---: | --- | :-: |"]
    for key in keys:
        meta = report.meta[key]
        lines.append(
            f"| {key} | {report.values[key]:.4g} | {meta.unit} | {arrows[meta.direction]} |"
        )
    words = f"; word tokens: {report.tokenizer}" if report.tokenizer else ""
    notes = [f"{samples} samples{words}."]
    notes += [f"Left out: {name} ({reason})." for name, reason in report.missing.items()]
    return "\n".join([*lines, "", *notes])
