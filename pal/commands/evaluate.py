"""``pal eval``: the scores of one system, responses against references and model perplexity.

The scores are written to a JSON file, and as a Markdown table beside it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pal.commands.common import DialogueSettings, ResponseModelSettings, WriterSettings, beside
from pal.core.errors import ConfigError, DataError
from pal.core.job import COMPUTING, SCORING, Job, counted, refuse_several_processes
from pal.core.runtime import configure_runtime
from pal.core.settings import InputPath
from pal.core.tracking import TrackingSettings, track
from pal.decoding.settings import SampleSettings
from pal.metrics.settings import MetricSettings

if TYPE_CHECKING:
    from pal.data.samples import Sample
    from pal.metrics import Report

logger = logging.getLogger(__name__)

Stamp = dict[str, Any] | None  # of pal.data.protocols.stamp_of


class EvaluateSettings(ResponseModelSettings, DialogueSettings, WriterSettings):
    """Score predictions, a model's perplexity, or both.

    Attributes:
        predictions: responses to score: output of ``pal generate``, a JSON list or a CSV of such
            records, or files of other projects, which need ``input``.
        output: JSON file of the scores; the table is printed, and written beside it as .md.
    """

    examples = (
        "pal eval predictions=runs/pal_test.jsonl output=runs/pal_test.scores.json",
        "pal eval predictions=runs/pal_test.jsonl model=runs/pal input=runs/pesconv split=test",
    )

    predictions: InputPath | None = None
    decoding: SampleSettings = SampleSettings()
    metrics: MetricSettings = MetricSettings()
    tracking: TrackingSettings = TrackingSettings()


def evaluate(settings: EvaluateSettings) -> str:
    """Score ``predictions``, ``model`` (on ``input``) or both, and return the Markdown table.

    With ``output`` set, the scores are written there as JSON and the table beside it as Markdown.

    Raises:
        PalError: inputs, checkpoint, settings or output cannot be used.
    """
    settings = EvaluateSettings.of(settings)
    configure_runtime()
    if settings.predictions is None and settings.model is None:
        raise ConfigError("missing settings: give predictions=… or model=… input=…, or both")
    if settings.model is not None:
        settings.require("input")
    if settings.output and settings.output.endswith(".md"):
        raise ConfigError(
            f"output={settings.output}: give a .json name; the table goes beside it as .md"
        )
    refuse_several_processes("eval")
    from pal.benchmark.notices import join_notices, notices_beside, notices_of
    from pal.core.files import write_json, write_text
    from pal.core.job import record_beside
    from pal.data.cards import cards_note
    from pal.data.protocols import describe_stamp
    from pal.metrics import build_predictions, compute_metrics, metric_versions
    from pal.metrics.scoring import load_scorers

    names = settings.metrics.names
    job = None
    if settings.output:
        job = Job(
            "eval", settings, settings.output, versions=(*SCORING, *COMPUTING),
            facts={"metrics": metric_versions(names)},
        )  # fmt: skip
        table_path = beside(job, ".md")
        if job.is_finished() and table_path.exists():
            return table_path.read_text(encoding="utf-8").rstrip()

    records, stamp = None, None
    if settings.predictions is not None:
        records, stamp = _read_predictions(settings)
    embedder, models, reasons = load_scorers(records, settings.metrics)  # reported first
    losses: dict[str, Any] = {}
    if settings.model is None:
        reasons["token_nll"] = "no model to score the references with: give model=… input=… split=…"
    else:
        losses, stamp = _token_losses(settings, records)
        if not losses:
            reasons["token_nll"] = "a sample of input= has no gold response to score"
    predictions = build_predictions(
        records, losses, embedder,
        tokenizer=settings.metrics.tokenizer, reasons=reasons, models=models,
    )  # fmt: skip
    if not settings.tracking.texts:
        records = None  # what scores need is in the predictions, and takes a fraction of them
    report = compute_metrics(predictions, names, settings.metrics.variant)
    for note in report.notes:
        logger.warning("%s", note)
    if settings.input is not None:  # reading the cards has already warned
        report.notes.extend(cards_note(settings.data.cards).values())
    if stamp is not None:
        stamp = {**stamp, "samples": len(predictions)}
        report.notes.append(describe_stamp(stamp).removesuffix("."))
    table = scores_table(report, len(predictions))
    if job is not None:
        answers = [settings.predictions] if settings.predictions is not None else []
        corpora = [settings.input] if settings.input is not None else []
        folders = [Path(settings.model)] if settings.model is not None else []
        document = {
            "kind": "scores",
            "format": 1,
            "system": Path(settings.predictions or settings.model or "").stem,
            "seed": record_beside(answers[0]).get("seed") if answers else None,
            "samples": len(predictions),
            **report.as_dict(),
            "protocol": stamp,
            "notices": join_notices(
                notices_of(corpora, folders, protocol=stamp), notices_beside(answers)
            ),
        }
        with job.claimed(processes=False):

            def write(path: Path) -> None:
                write_text(path.with_suffix(".md"), table + "\n")
                write_json(path, {**document, "run": job.describe(samples=len(predictions))})

            job.publish(write, samples=len(predictions))
        logger.info("scores written to %s", job.output)
    name = Path(settings.predictions or settings.model or "").stem
    track(settings.tracking, name, report.values, records, settings=settings.model_dump())
    return table


def scores_table(report: "Report", samples: int) -> str:
    """Return scores as a Markdown table, the metrics of the paper's Table 3 first."""
    from pal.benchmark.systems import TABLE_3

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
    notes = [
        f"{counted(samples, 'sample')}{words}.",
        *(f"{note[0].upper()}{note[1:]}." for note in report.notes),
    ]
    left_out: dict[str, list[str]] = {}
    for key, reason in report.missing.items():
        left_out.setdefault(reason, []).append(key)
    notes += [f"Left out: {', '.join(keys)} ({reason})." for reason, keys in left_out.items()]
    return "\n".join([*lines, "", *notes])


def _read_predictions(settings: EvaluateSettings) -> "tuple[list[dict[str, Any]], Stamp]":
    """Return the records of ``predictions``, and what is known of their protocol.

    Missing reference fields are taken from the samples of ``input``.
    """
    from pal.data.predictions import (
        PredictionFile,
        complete_records,
        lacks_gold,
        match_samples,
    )
    from pal.data.protocols import check_responses, stamp_beside

    (path,) = settings.require("predictions")
    file = PredictionFile(path)
    if not file.has_ids:
        if settings.input is None:
            raise ConfigError(
                f"{path}: records without ids; give the answered dialogues as input=…"
            )
        samples, stamp = _load_samples(settings, settings.limit)
        return file.answers(samples), stamp
    records = file.records()[: settings.limit]
    if settings.input is None:
        return records, stamp_beside(path)
    samples, stamp = _load_samples(settings, None)
    check_responses([path], settings.input, stamp)
    asked = len(samples)
    samples = match_samples(records, samples, path=path, source=settings.input)
    if len(records) < asked and settings.limit is None:
        logger.warning(
            "%s: %d of the %d samples of %s have no response and are not scored; give them all, or "
            "say so with the scores",
            path, asked - len(records), asked, settings.input,
        )  # fmt: skip
    return complete_records(records, samples) if lacks_gold(records) else records, stamp


def _load_samples(
    settings: EvaluateSettings, limit: int | None
) -> "tuple[list[Sample], dict[str, Any]]":
    from pal.data.samples import load_stamped_samples

    (source,) = settings.require("input")
    rule = settings.decoding.samples
    return load_stamped_samples(source, settings.split, settings.data, rule=rule, limit=limit)


def _token_losses(
    settings: EvaluateSettings, records: Sequence[dict[str, Any]] | None
) -> "tuple[dict[str, Any], Stamp]":
    """Return the model's token losses on the samples of the records or on all, and the protocol.

    There are none where a sample of the records has no gold response.
    """
    from pal.core.registry import trust
    from pal.data.predictions import match_samples
    from pal.metrics.text import find_tokenizer
    from pal.modeling.losses import token_losses
    from pal.modeling.responder import load_model_and_tokenizer

    samples, stamp = _load_samples(settings, settings.limit if records is None else None)
    if records is not None:
        samples = match_samples(records, samples, path=settings.predictions, source=settings.input)
    bare = next((sample.id for sample in samples if sample.response is None), None)
    if bare is not None:
        if records is not None:
            return {}, stamp  # the other scores are computed
        raise DataError(
            f"{settings.input}: sample {bare!r} has no gold response to score; give dialogues "
            "with the supporter's responses, or predictions=… without model="
        )
    (source,) = settings.require("model")
    trust(*settings.trusted_code)
    model, tokenizer = load_model_and_tokenizer(source, settings.dtype)
    losses = token_losses(
        model, tokenizer, samples,
        batch_tokens=settings.batch_tokens, batch_rows=settings.batch_rows,
    )  # fmt: skip
    words = find_tokenizer(settings.metrics.tokenizer)
    losses["word_count"] = [len(words(sample.response or "")) for sample in samples]
    return losses, stamp
