"""Whether responses entail or contradict the persona, by a model of natural language inference."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pal.core.errors import CheckpointError, PalError, first_line
from pal.core.hub import go_offline_without_network
from pal.metrics.base import Metric, NliModel, Predictions, Scores, Variant
from pal.metrics.models import best_device, by_length, longest_input

NLI_LABELS = ("entailment", "neutral", "contradiction")
NLI_KEYS = ("persona_entailment", "persona_contradiction", "c_score")


def compute_persona_nli(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return what responses say of the persona's sentences, by a model of inference.

    The response is the premise and each sentence of the persona a hypothesis; a pair has the label
    of the highest probability. ``persona_entailment`` and ``persona_contradiction`` are the shares
    of the persona's sentences with that label, percent. ``c_score`` (Madotto et al. 2019) is the
    number of entailed sentences minus that of contradicted ones. All are means over samples with a
    persona; ``rows`` has them. Each distinct pair is judged once.

    A persona here is the seeker's and the response the supporter's, so "I lost my job" is rarely
    entailed even by a response that takes it up. Compare systems; do not read the level.
    """
    personas = [
        [text.strip() for text in persona if text.strip()] for persona in predictions.personas or ()
    ]
    rows = np.array([i for i, persona in enumerate(personas) if persona], dtype=int)
    scores = Scores()
    if not len(rows):
        scores.undefined |= dict.fromkeys(NLI_KEYS, "no sample has a persona")
        return scores
    if len(rows) < len(personas):
        scores.rows |= dict.fromkeys(NLI_KEYS, rows)
    assert predictions.responses is not None
    assert predictions.nli is not None
    pairs = [(predictions.responses[i], text) for i in rows for text in personas[i]]
    unique = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
    labels = np.asarray(predictions.nli(list(unique)), dtype=float)
    if labels.shape != (len(unique), len(NLI_LABELS)) or not np.isfinite(labels).all():
        raise PalError(
            f"nli: expected {len(NLI_LABELS)} finite probabilities for each of {len(unique)} "
            f"pairs, got an array of shape {labels.shape}"
        )
    found = labels.argmax(axis=1)[[unique[pair] for pair in pairs]]
    sizes = np.array([len(personas[i]) for i in rows])
    samples = np.repeat(np.arange(len(rows)), sizes)
    entailed, against = (
        np.bincount(samples, found == NLI_LABELS.index(label), minlength=len(rows))
        for label in ("entailment", "contradiction")
    )
    for key, values in zip(
        NLI_KEYS, (100 * entailed / sizes, 100 * against / sizes, entailed - against), strict=True
    ):
        scores.add_mean(key, values)
    return scores


def load_nli(name: str, device: str | None = None, batch_size: int = 64) -> NliModel:
    """Load a sequence classifier of entailment, neutral and contradiction as a function.

    Args:
        name: a folder or a hub id, such as one trained on MNLI or on Dialogue NLI.
        device: "cpu", "cuda", …; the best available if None.
        batch_size: number of pairs per batch.

    Raises:
        CheckpointError: no model can be loaded, or its labels are not these three.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    go_offline_without_network(name)
    trust = {"trust_remote_code": False}
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            name, output_loading_info=True, **trust
        )
        tokenizer = AutoTokenizer.from_pretrained(name, **trust)
    except Exception as error:  # damaged folders can raise any error in these libraries
        raise CheckpointError(
            f"{name:.200}: cannot load a natural language inference model "
            f"({first_line(error):.300}); give a model's folder, or a hub id with the network up"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{name:.200}: no trained classifier (weights without values: {missing[0]}, …); give a "
            "model trained for natural language inference"
        )
    order = _label_order(name, model.config.id2label)
    model = model.eval().to(best_device(device))
    limit = longest_input(tokenizer, model.config)

    @torch.inference_mode()
    def judge(pairs: list[tuple[str, str]]) -> np.ndarray:
        result = np.zeros((len(pairs), len(NLI_LABELS)))
        lengths = [len(premise) + len(hypothesis) for premise, hypothesis in pairs]
        for chosen in by_length(lengths, batch_size, "inference"):
            premises, hypotheses = zip(*(pairs[i] for i in chosen), strict=True)
            batch: Any = tokenizer(
                list(premises), list(hypotheses), padding=True, truncation=True, max_length=limit,
                return_tensors="pt",
            )  # fmt: skip
            logits = model(**batch.to(model.device)).logits.double()
            result[chosen] = torch.softmax(logits, dim=-1)[:, order].cpu().numpy()
        return result

    return judge


def _label_order(name: str, labels: dict[int, str]) -> Sequence[int]:
    """Return the model's number of each label."""
    numbers = {text.lower(): number for number, text in labels.items()}
    order = [
        [number for text, number in numbers.items() if text.startswith(label[:7])]
        for label in NLI_LABELS
    ]
    if len(labels) != len(NLI_LABELS) or any(len(found) != 1 for found in order):
        raise CheckpointError(
            f"{name:.200}: its labels are {', '.join(labels.values())}; expected entailment, "
            "neutral and contradiction: name them in id2label of its config.json"
        )
    return [found[0] for found in order]


METRIC = Metric(
    name="persona_nli",
    direction={"persona_entailment": "higher", "persona_contradiction": "lower",
               "c_score": "higher"},
    unit="percent",
    needs=("responses", "personas", "nli"),
    compute=compute_persona_nli,
    units={"c_score": "sentences"},
)  # fmt: skip
