"""BERTScore of response and reference, with any encoder (Zhang et al. 2020)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pal.core.errors import CheckpointError, PalError, first_line
from pal.core.hub import go_offline_without_network
from pal.metrics.base import Metric, Predictions, Scores, TokenEncoder, Variant
from pal.metrics.models import best_device, by_length, longest_input

BERTSCORE_KEYS = ("bertscore_p", "bertscore_r", "bertscore_f1")

_PAIRS = 64  # pairs that are matched at once


def compute_bertscore(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return BERTScore precision, recall and F1, at most 1: means over samples.

    Precision is the mean over the response's tokens of the highest cosine with a token of the
    reference, recall the same from the other side. Special tokens can be matched, but are not
    averaged over. No weighting by idf, no rescaling with a baseline, as the published package by
    default (bert-score 0.3.13 in batches of one; in larger ones its padding counts as a token of
    cosine 0, which raises the score of tokens with negative cosines). A pair with an empty side
    scores 0. Values of different encoders do not compare.
    """
    assert predictions.responses is not None
    assert predictions.references is not None
    assert predictions.token_encoder is not None
    pairs = list(zip(predictions.responses, predictions.references, strict=True))
    unique = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
    distinct = list(unique)
    values = np.zeros((len(unique), 3))
    for chosen in by_length([len(a) + len(b) for a, b in distinct], _PAIRS, "BERTScore"):
        texts = list(dict.fromkeys(text for i in chosen for text in distinct[i]))
        encoded = predictions.token_encoder(texts)
        if len(encoded) != len(texts):
            raise PalError(
                f"token_encoder: expected vectors of {len(texts)} texts, got {len(encoded)}"
            )
        known = dict(zip(texts, encoded, strict=True))
        sides = ([known[distinct[i][side]] for i in chosen] for side in (0, 1))
        values[chosen] = match_tokens(*sides)
    rows = values[[unique[pair] for pair in pairs]]
    scores = Scores()
    for key, column in zip(BERTSCORE_KEYS, rows.T, strict=True):
        scores.add_mean(key, column)
    return scores


def match_tokens(
    responses: Sequence[tuple[np.ndarray, np.ndarray]],
    references: Sequence[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Return precision, recall and F1 of B pairs, [B, 3], all of them at once.

    Args:
        responses: vectors, [t, d], and weights, [t], of the tokens of each response.
        references: the same of each reference.
    """
    ours, our_weights, our_mask = _pad(responses)  # [B, T, d], [B, T], [B, T]
    theirs, their_weights, their_mask = _pad(references)  # [B, S, d], [B, S], [B, S]
    cosine = ours @ theirs.transpose(0, 2, 1)  # [B, T, S]
    cosine[~(our_mask[:, :, None] & their_mask[:, None, :])] = -np.inf
    precision = _mean(cosine.max(axis=2, initial=-np.inf), our_weights)
    recall = _mean(cosine.max(axis=1, initial=-np.inf), their_weights)
    full = (our_weights.sum(1) > 0) & (their_weights.sum(1) > 0)
    precision, recall = np.where(full, precision, 0.0), np.where(full, recall, 0.0)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total != 0)
    return np.stack([precision, recall, f1], axis=1)


def load_token_encoder(
    name: str, layer: int | None = None, device: str | None = None, batch_size: int = 64
) -> TokenEncoder:
    """Load an encoder as a function from texts to the vectors and weights of their tokens.

    Args:
        name: a folder or a hub id of an encoder, or of an encoder-decoder, whose encoder is used.
        layer: layer whose output the vectors are, counted from 1; the last if None.
        device: "cpu", "cuda", …; the best available if None.
        batch_size: number of texts per batch.

    Raises:
        CheckpointError: no model can be loaded, or it has fewer layers.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    go_offline_without_network(name)
    trust = {"trust_remote_code": False}
    try:
        model = AutoModel.from_pretrained(name, **trust)
        tokenizer = AutoTokenizer.from_pretrained(name, **trust)
    except Exception as error:  # damaged folders can raise any error in these libraries
        raise CheckpointError(
            f"{name:.200}: cannot load an encoder ({first_line(error):.300}); give a model's "
            "folder, or a hub id with the network up"
        ) from error
    if hasattr(model, "decoder") and hasattr(model, "encoder"):
        model = model.encoder
    layers = getattr(model.config, "num_hidden_layers", None)
    if layer is not None and layers is not None and layer > layers:
        raise CheckpointError(
            f"{name:.200}: metrics.bertscore_layer={layer}, but it has {layers} layers"
        )
    model = model.eval().to(best_device(device))
    limit = longest_input(tokenizer, model.config)

    @torch.inference_mode()
    def encode(texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        found: list[Any] = [None] * len(texts)
        for chosen in by_length([len(text) for text in texts], batch_size):
            batch = tokenizer(
                [texts[i].strip() for i in chosen], padding=True, truncation=True, max_length=limit,
                return_tensors="pt", return_special_tokens_mask=True,
            )  # fmt: skip
            special = batch.pop("special_tokens_mask").numpy()
            mask = batch["attention_mask"].numpy().astype(bool)
            output = model(**batch.to(model.device), output_hidden_states=layer is not None)
            states = output.last_hidden_state if layer is None else output.hidden_states[layer]
            states = states.float().cpu().numpy()
            for row, i in enumerate(chosen):
                found[i] = states[row][mask[row]], 1.0 - special[row][mask[row]]
        return found

    return encode


def _pad(
    texts: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit vectors [B, T, d], weights [B, T] and the mask of real tokens [B, T]."""
    longest = max(len(weights) for _, weights in texts)
    width = max(np.asarray(vectors).shape[-1] for vectors, _ in texts)
    padded = np.zeros((len(texts), longest, width))
    weights, mask = np.zeros((len(texts), longest)), np.zeros((len(texts), longest), dtype=bool)
    for row, (vectors, given) in enumerate(texts):
        count = len(given)
        padded[row, :count] = np.asarray(vectors).reshape(count, -1)
        weights[row, :count], mask[row, :count] = given, True
    norms = np.linalg.norm(padded, axis=-1, keepdims=True)
    return padded / np.maximum(norms, 1e-12), weights, mask


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    values = np.where(weights > 0, values, 0.0)  # a side without tokens has no highest cosine
    with np.errstate(invalid="ignore"):
        return (values * weights).sum(1) / np.maximum(weights.sum(1), 1e-12)


METRIC = Metric(
    name="bertscore",
    direction=dict.fromkeys(BERTSCORE_KEYS, "higher"),
    unit="cosine",
    needs=("responses", "references", "token_encoder"),
    compute=compute_bertscore,
)
