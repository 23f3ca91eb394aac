"""Similarity of response and persona (PAL paper, Table 3, cos-sim), and its text encoders.

The paper uses SimCSE (Gao et al. 2021), a BERT whose sentence vector is the output of its pooler,
and in its Figure 5 the mean of fastText word vectors (Joulin et al. 2017).
"""

import logging
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pal.core.errors import CheckpointError, DataError, PalError, first_line
from pal.core.hub import go_offline_without_network
from pal.metrics.base import Embedder, Metric, Predictions, Scores, Variant
from pal.metrics.text import tokenize

logger = logging.getLogger(__name__)

T = TypeVar("T")

SIMCSE = "princeton-nlp/sup-simcse-bert-base-uncased"  # the model of the paper

# Number of texts from which on a sentence encoder shows its progress (about a second on a CPU).
SHOW_PROGRESS = 500


def compute_similarity(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return the mean cosine of response and persona, −1 to 1: the mean over samples.

    The sentences of a persona are joined by a space. Samples without a persona are left out:
    ``rows`` has the samples that are covered, ``details["without_persona"]`` the number left out.
    Each distinct text is embedded once.
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
        PalError: the embedder did not return one finite vector per text.
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


def remember(embedder: Embedder) -> Embedder:
    """Return an embedder that caches the vectors of this one over all calls.

    Its vectors have unit length.
    """
    known: dict[str, np.ndarray] = {}

    def embed_new(texts: list[str]) -> np.ndarray:
        new = [text for text in texts if text not in known]
        if new:
            known.update(embed(embedder, new))
        return np.array([known[text] for text in texts])

    return embed_new


def load_embedder(name: str = SIMCSE, device: str | None = None, batch_size: int = 64) -> Embedder:
    """Load a sentence encoder as a function from texts to vectors.

    A sentence-transformers model is loaded as it is. A plain BERT, as SimCSE is published, becomes
    Transformer + first token + dense layer with tanh, with the weights of its own pooler;
    sentence-transformers alone would silently average the tokens instead.

    Args:
        name: a folder or a hub id.
        device: "cpu", "cuda", …; the best available if None.
        batch_size: number of texts per batch.

    Raises:
        CheckpointError: no model can be loaded, or a plain model has no pooler weights.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import is_sentence_transformer_model

    go_offline_without_network(name)
    try:
        ready = is_sentence_transformer_model(name)
        modules = None if ready else _simcse_modules(name)
        model = SentenceTransformer(name if ready else None, modules=modules, device=device)
    except PalError:
        raise
    except Exception as error:  # damaged folders can raise any error in these libraries
        raise CheckpointError(
            f"{name:.200}: cannot load a sentence encoder ({first_line(error):.300}); "
            "give a model's folder, or a hub id with the network up"
        ) from error

    def embedder(texts: list[str]) -> np.ndarray:
        # The model sorts the texts by length, so that a batch holds little padding.
        bar = len(texts) >= SHOW_PROGRESS
        return model.encode(texts, batch_size=batch_size, show_progress_bar=bar)

    return embedder


def load_if_possible(
    load: Callable[[], T], name: str, *, chosen: bool
) -> tuple[T | None, str | None]:
    """Load a sentence encoder; return None if the user named none and the default is not available.

    Args:
        load: function that loads the encoder.
        name: folder or hub id of the encoder, for the warning.
        chosen: whether the user named it; a failure is then an error.

    Returns:
        (encoder, None), or (None, the reason why cos_sim is left out), which is also logged.

    Raises:
        CheckpointError: a chosen encoder cannot be loaded.
    """
    try:
        return load(), None
    except CheckpointError as error:
        if chosen:
            raise
        logger.warning(
            "cos_sim is left out: the default sentence encoder cannot be loaded (%s); give the "
            "folder of one as metrics.embedder=…, or metrics.embedder=null for scores without it",
            str(error).partition("; ")[0],
        )
        return None, f"the default embedder {name} cannot be loaded; give metrics.embedder=FOLDER"


def _simcse_modules(name: str) -> list[Any]:
    """Return modules that compute ``AutoModel(…).pooler_output`` bit for bit."""
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
    from torch import nn
    from transformers import AutoModel

    # A known architecture needs no code from the folder, and none is run.
    trust = {"trust_remote_code": False}
    model, report = AutoModel.from_pretrained(name, output_loading_info=True, **trust)
    pooler = getattr(getattr(model, "pooler", None), "dense", None)
    if pooler is None or any("pooler" in key for key in report["missing_keys"]):
        raise CheckpointError(
            f"{name}: a plain model without pooler weights, so it has no sentence vector; "
            "give a SimCSE model or a sentence-transformers model"
        )
    width = model.config.hidden_size
    dense = Dense(
        width,
        width,
        activation_function=nn.Tanh(),
        init_weight=pooler.weight.detach(),
        init_bias=pooler.bias.detach(),
    )
    backbone = Transformer(
        name, model_kwargs=dict(trust), processor_kwargs=dict(trust), config_kwargs=dict(trust)
    )
    return [backbone, Pooling(width, pooling_mode="cls"), dense]


def load_word_vectors(path: str | Path, words: Container[str] | None = None) -> Embedder:
    """Load word vectors as a function from texts to vectors (PAL paper, Figure 5).

    The vector of a text is the mean of the vectors of its lower-cased word tokens
    (:func:`pal.metrics.text.tokenize`), with punctuation and repeats; unknown tokens are ignored. A
    text without any known word has the zero vector, so its cosine with every other text is 0; a log
    line gives the number of such texts.

    Args:
        path: text file in fastText's .vec format: an optional first line ``count dimensions``,
            then one word and its numbers per line, separated by single spaces. It is read once,
            line by line.
        words: words to keep; all if None. The published files of fastText hold two million.

    Raises:
        DataError: the file is missing, a line is malformed (the message names it), the number of
            vectors differs from the first line, or the file holds none of the words.
    """
    path = Path(path)
    vectors = dict(_read_word_vectors(path, words))
    if not vectors:
        raise DataError(f"{path}: no vector for any of the words; give vectors of the language")
    width = len(next(iter(vectors.values())))

    def embedder(texts: list[str]) -> np.ndarray:
        means = np.zeros((len(texts), width))
        unknown = 0
        for row, text in enumerate(texts):
            known = [vectors[token] for token in tokenize(text) if token in vectors]
            if known:
                means[row] = np.mean(known, axis=0)
            else:
                unknown += 1
        if unknown:
            logger.info(
                "%d of %d texts have no word in %s; their similarity is 0",
                unknown, len(texts), path.name,
            )  # fmt: skip
        return means

    return embedder


def _read_word_vectors(
    path: Path, words: Container[str] | None
) -> Iterator[tuple[str, np.ndarray]]:
    from tqdm.auto import tqdm

    promised = width = None
    found = 0
    try:
        with (
            path.open("rb") as handle,
            tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, delay=1,
                 dynamic_ncols=True) as bar,
        ):  # fmt: skip
            for number, line in enumerate(handle, start=1):
                bar.update(len(line))
                line = line.rstrip()  # fastText ends every line with a space
                if number == 1 and len(head := line.split()) == 2 and all(map(bytes.isdigit, head)):
                    promised, width = map(int, head)
                    continue
                word, _, numbers = line.partition(b" ")
                width = width or numbers.count(b" ") + 1
                if not numbers or numbers.count(b" ") + 1 != width:
                    raise DataError(
                        f"{path}, line {number}: expected a word and {width} numbers with spaces "
                        f"between, got {line[:40]!r}; give a complete, unpacked text file"
                    )
                found += 1
                if words is None or word.decode(errors="replace") in words:
                    yield word.decode(errors="replace"), _parse_vector(numbers, path, number)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give a text file of word vectors"
        ) from error
    if promised is not None and promised != found:
        raise DataError(
            f"{path}: the first line says {promised} vectors, got {found}; download it again"
        )


def _parse_vector(numbers: bytes, path: Path, number: int) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # reported below
            vector = np.array([float(text) for text in numbers.split(b" ")], dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: {first_line(error)}; correct the line") from None
    if not np.isfinite(vector).all():
        raise DataError(f"{path}, line {number}: not all numbers are finite; correct the line")
    return vector


METRIC = Metric(
    name="similarity",
    direction={"cos_sim": "higher"},
    unit="cosine",
    needs=("responses", "personas", "embedder"),
    compute=compute_similarity,
)
