"""Similarity of response and persona (PAL paper, Table 3, cos-sim), and the model that measures it.

The paper uses SimCSE (Gao et al. 2021): a BERT whose sentence vector is its pooler's output.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from pal.errors import CheckpointError, PalError, first_line
from pal.metrics.base import Embedder, Metric, Predictions, Scores, Variant

SIMCSE = "princeton-nlp/sup-simcse-bert-base-uncased"  # the paper's


def compute_similarity(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return the mean cosine of response and persona, −1 to 1: the mean over samples.

    A persona's sentences are joined by a space. Samples without a persona are left out: ``rows``
    has those measured, ``details["without_persona"]`` the number left out. Each text is embedded
    once, however often it occurs.
    """
    personas = [" ".join(sentences).strip() for sentences in predictions.personas or ()]
    rows = np.array([i for i, persona in enumerate(personas) if persona], dtype=int)
    scores = Scores(details={"without_persona": len(personas) - len(rows)})
    if not len(rows):
        scores.undefined["cos_sim"] = "no sample has a persona"
        return scores
    if len(rows) < len(personas):
        scores.rows["cos_sim"] = rows
    assert predictions.responses is not None
    assert predictions.embedder is not None
    pairs = [(predictions.responses[i], personas[i]) for i in rows]
    vectors = embed(predictions.embedder, (text for pair in pairs for text in pair))
    scores.add_mean("cos_sim", [float(vectors[a] @ vectors[b]) for a, b in pairs])
    return scores


def embed(embedder: Embedder, texts: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the unit vector of every distinct text.

    Raises:
        PalError: the embedder returned something else than one finite vector a text.
    """
    unique = list(dict.fromkeys(texts))
    vectors = np.asarray(embedder(unique), dtype=float)
    if vectors.ndim != 2 or len(vectors) != len(unique) or not np.isfinite(vectors).all():
        raise PalError(
            f"embedder: expected {len(unique)} finite vectors for as many texts, "
            f"got an array of shape {vectors.shape}"
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(unique, vectors / np.maximum(norms, 1e-12), strict=True))


def load_embedder(name: str = SIMCSE, device: str | None = None, batch_size: int = 64) -> Embedder:
    """Load a sentence encoder as a function from texts to vectors.

    A sentence-transformers model is loaded as it is. A plain BERT, as SimCSE is published, becomes
    Transformer + first token + dense layer with tanh, with its own pooler's weights:
    sentence-transformers alone would average the tokens instead, without a word.

    Args:
        name: a folder or a hub id.
        device: "cpu", "cuda", …; the best there is when left out.
        batch_size: texts a batch.

    Raises:
        CheckpointError: nothing loadable there, or a plain model without pooler weights.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import is_sentence_transformer_model

    try:
        ready = is_sentence_transformer_model(name)
        modules = None if ready else _simcse_modules(name)
        model = SentenceTransformer(name if ready else None, modules=modules, device=device)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{name}: cannot load a sentence encoder ({first_line(error)}); "
            "give a model's folder, or a hub id with the network up"
        ) from error

    def embedder(texts: list[str]) -> np.ndarray:
        return model.encode(texts, batch_size=batch_size, show_progress_bar=False)

    return embedder


def _simcse_modules(name: str) -> list[Any]:
    """Return the modules that compute ``AutoModel(…).pooler_output`` (equal to the last bit)."""
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
    from torch import nn
    from transformers import AutoModel

    model, report = AutoModel.from_pretrained(name, output_loading_info=True)
    pooler = getattr(getattr(model, "pooler", None), "dense", None)
    if pooler is None or any("pooler" in key for key in report["missing_keys"]):
        raise CheckpointError(
            f"{name}: a plain model without pooler weights, so it has no sentence vector of its "
            "own; give a SimCSE model or a sentence-transformers model"
        )
    width = model.config.hidden_size
    dense = Dense(
        width,
        width,
        activation_function=nn.Tanh(),
        init_weight=pooler.weight.detach(),
        init_bias=pooler.bias.detach(),
    )
    return [Transformer(name), Pooling(width, pooling_mode="cls"), dense]


METRIC = Metric(
    name="similarity",
    direction={"cos_sim": "higher"},
    unit="cosine",
    needs=("responses", "personas", "embedder"),
    compute=compute_similarity,
)
