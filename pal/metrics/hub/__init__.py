"""The metric families as modules of Hugging Face ``evaluate``, one three-line file each.

    import evaluate
    from pal.metrics import evaluate_module
    bleu = evaluate.load(evaluate_module("bleu"))
    bleu.compute(predictions=["hi there"], references=["hi you"])

``evaluate`` copies a module's file and uses the first module class that it finds in it, so the
files here import no class and only name their family.
"""

from typing import Any

from pal.core.errors import PalError, suggest

# Input names that differ from ``Predictions``, as users of evaluate expect them.
INPUT_NAMES = {
    "responses": "predictions",
    "predicted_strategies": "predictions",
    "references": "references",
    "strategies": "references",
}
MODULE_OPTIONS = (
    "variant",
    "tokenizer",
    "embedder",
    "vocab_size",
    "strategy_probs",
    "strategy_nll",
    "strategy_count",
    "word_count",
    "synonyms",
    "token_encoder",
    "nli",
)


def build_module(family: str) -> Any:
    """Return the ``evaluate.Metric`` class of one family.

    Its inputs are the family's needs: ``predictions`` and ``references`` (texts; strategy ids for
    "strategy"), ``personas`` (lists of sentences), ``token_nll`` and ``token_count``. Options of
    ``compute``: ``variant``, ``tokenizer``, ``vocab_size``, ``embedder`` (a function, folder
    or hub id; SimCSE when left out), ``token_encoder`` and ``nli`` (the same, without a default),
    ``strategy_probs``, ``strategy_nll``, ``strategy_count``, ``word_count``, ``synonyms``. Keys
    that cannot be computed are left out of the result; if none can, the reasons are raised.
    """
    import datasets
    import evaluate

    from pal.metrics import (
        METRICS,
        Predictions,
        compute_metrics,
        load_embedder,
        load_nli,
        load_token_encoder,
    )
    from pal.metrics.similarity import SIMCSE

    metric = METRICS[family]
    types = {
        "responses": datasets.Value("string"),
        "references": datasets.Value("string"),
        "personas": [datasets.Value("string")],
        "strategies": datasets.Value("int64"),
        "predicted_strategies": datasets.Value("int64"),
        "token_nll": datasets.Value("float64"),
        "token_count": datasets.Value("int64"),
    }
    inputs = {INPUT_NAMES.get(need, need): need for need in metric.needs if need in types}

    def info(self: Any) -> Any:
        described = ", ".join(f"{name} ({need})" for name, need in inputs.items())
        return evaluate.MetricInfo(
            description=f"{', '.join(metric.keys)} ({metric.unit}), version {metric.version}.",
            citation="Cheng et al. 2023, PAL: Persona-Augmented Emotional Support Conversation.",
            inputs_description=f"\nInputs: {described}. Options: {', '.join(MODULE_OPTIONS)}.\n",
            features=datasets.Features({name: types[need] for name, need in inputs.items()}),
        )

    def compute(self: Any, variant: Any = "correct", **given: Any) -> dict[str, float]:
        fields = {inputs.get(name, name): value for name, value in given.items()}
        if unknown := sorted(fields.keys() - types.keys() - set(MODULE_OPTIONS)):
            hint = suggest(unknown[0], MODULE_OPTIONS)
            raise PalError(f"{family}: unknown option {unknown[0]!r}{hint}")
        if "embedder" in metric.needs and not callable(fields.get("embedder")):
            fields["embedder"] = load_embedder(fields.get("embedder") or SIMCSE)
        loaders = {"token_encoder": load_token_encoder, "nli": load_nli}
        for need in loaders.keys() & set(metric.needs):
            if isinstance(fields.get(need), str):
                fields[need] = loaders[need](fields[need])
        report = compute_metrics(Predictions(**fields), [family], variant)
        if not report.values:
            raise PalError("; ".join(f"{key}: {why}" for key, why in report.missing.items()))
        return report.values

    return type(family.title(), (evaluate.Metric,), {"_info": info, "_compute": compute})
