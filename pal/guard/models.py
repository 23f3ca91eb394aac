"""Detectors with a model: a head on sentence vectors, and a text classification model.

Both read a text in windows of a few sentences, on the CPU, and the highest finding counts. A model
can raise a level and never lower one that the lexicon found. What is not a number is an error.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pal.core.errors import CheckpointError, ConfigError, DataError, first_line, suggest
from pal.core.files import read_json
from pal.core.hub import go_offline_without_network
from pal.core.settings import resolve_source
from pal.guard.levels import CONCERN, CRISIS, EMERGENCY, NONE, Detection, Detector
from pal.guard.windows import windows_of
from pal.metrics.base import Embedder
from pal.metrics.similarity import load_embedder

# Files of a trained head's folder.
HEAD_FILE, WEIGHTS_FILE = "guard.json", "model.safetensors"
HEAD_KIND = "pal-guard-head"

# A sentence whose vector the folder holds, so that another encoder is noticed.
PROBE = "I did not sleep well and I would like to talk to somebody."

# Texts that a model reads at a time.
BATCH = 32


def load_detector(
    source: str, labels: Mapping[str, int] | None = None, threshold: float | None = None
) -> Detector:
    """Load a folder that ``pal guard train`` wrote, or a text classification model.

    Args:
        source: folder or hub id.
        labels: for a classification model, the level of each of its labels.
        threshold: probability from which on a finding counts.

    Raises:
        CheckpointError: no such model, or it cannot be loaded.
        ConfigError: labels do not fit.
    """
    if (Path(source) / HEAD_FILE).is_file():
        if labels:
            raise ConfigError(
                f"guard.labels: {source} was written by pal guard train and has no labels; they "
                "are for a text classification model"
            )
        return HeadDetector.load(source, threshold)
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise CheckpointError(
            f"guard.model={source}: neither {HEAD_FILE} of pal guard train nor config.json of a "
            "text classification model is there"
        )
    return ClassifierDetector.load(source, labels or {}, threshold)


class HeadDetector:
    """Logistic regression on sentence vectors; ``pal guard train`` trains it.

    Args:
        embedder: the sentence encoder.
        weights: weights [d] of the unit vector.
        bias: bias.
        thresholds: probability of a concern, and of a crisis.
        version: changes with weights and thresholds.
    """

    name = "head"
    quick = False

    def __init__(
        self,
        embedder: Embedder,
        weights: np.ndarray,
        bias: float,
        thresholds: tuple[float, float],
        version: str,
    ):
        self._embedder = embedder
        self._weights = weights
        self._bias = bias
        self._thresholds = thresholds
        self.version = version

    @classmethod
    def load(cls, folder: str, threshold: float | None = None) -> "HeadDetector":
        """Load a trained head and its encoder.

        Args:
            folder: what ``pal guard train`` wrote.
            threshold: probability of a concern, in place of the one of training.

        Raises:
            CheckpointError: a file is missing or damaged, or the encoder is another one.
        """
        from safetensors.numpy import load_file

        try:
            facts = read_json(Path(folder) / HEAD_FILE)
            if facts["kind"] != HEAD_KIND or facts["format"] != 1:
                raise ValueError("another kind or format")
            tensors = load_file(str(Path(folder) / WEIGHTS_FILE))
            weights, probe = tensors["weight"].astype(float), tensors["probe"].astype(float)
            bias = float(tensors["bias"][0])
            concern, crisis = (float(facts["thresholds"][key]) for key in ("concern", "crisis"))
            encoder = str(facts["encoder"])
            if not (0 < concern <= 1 and 0 < crisis <= 1 and weights.shape == probe.shape):
                raise ValueError("values out of bounds")
        except (DataError, OSError, KeyError, TypeError, ValueError, IndexError) as error:
            raise CheckpointError(
                f"guard.model={folder}: not a folder of pal guard train ({first_line(error):.150})"
            ) from None
        except Exception as error:  # of safetensors, which has errors of its own
            raise CheckpointError(
                f"guard.model={folder}: {WEIGHTS_FILE} is damaged ({first_line(error):.150})"
            ) from None
        if not (np.isfinite(weights).all() and np.isfinite(bias)):
            raise CheckpointError(f"guard.model={folder}: the weights are not numbers")
        embedder = load_embedder(resolve_source(encoder), device="cpu", batch_size=BATCH)
        vector = unit_vectors(embedder, [PROBE])[0]
        if vector.shape != probe.shape or float(vector @ probe) < 0.999:
            raise CheckpointError(
                f"guard.model={folder}: {encoder} is another encoder than in training; train again"
            )
        if threshold is not None:
            concern, crisis = threshold, max(threshold, crisis)
        whole = repr((weights.tolist(), bias, concern, crisis))
        version = sha256(whole.encode()).hexdigest()[:8]
        return cls(embedder, weights, bias, (concern, crisis), version)

    def detect(self, texts: Sequence[str]) -> list[Detection]:
        """Return what is found in each text."""
        chances = in_windows(texts, self._chances)
        concern, crisis = self._thresholds
        return [
            _found(CRISIS if chance >= crisis else CONCERN if chance >= concern else NONE)
            for chance in chances
        ]

    def _chances(self, parts: list[str]) -> np.ndarray:
        return sigmoid(unit_vectors(self._embedder, parts) @ self._weights + self._bias)


class ClassifierDetector:
    """A text classification model whose labels are given levels.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        levels: level of each of its outputs.
        threshold: probability from which on a finding counts.
        version: changes with the model.
    """

    name = "classifier"
    quick = False

    def __init__(
        self, model: Any, tokenizer: Any, levels: Sequence[int], threshold: float, version: str
    ):
        self._model = model
        self._tokenizer = tokenizer
        self._levels = np.array(levels)
        self._threshold = threshold
        self._several = model.config.problem_type == "multi_label_classification"
        self.version = version

    @classmethod
    def load(
        cls, source: str, labels: Mapping[str, int], threshold: float | None = None
    ) -> "ClassifierDetector":
        """Load a model of the library's text classification.

        Raises:
            CheckpointError: it cannot be loaded.
            ConfigError: ``labels`` lacks one of its labels or has another.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        go_offline_without_network(source)
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                source, output_loading_info=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        except Exception as error:  # damaged folders can raise any error in this library
            raise CheckpointError(
                f"guard.model={source:.200}: cannot load a text classification model "
                f"({first_line(error):.200}); give a folder, or a hub id with the network up"
            ) from None
        if report["missing_keys"]:
            raise CheckpointError(
                f"guard.model={source:.200}: no text classification model, it lacks "
                f"{sorted(report['missing_keys'])[0]}"
            )
        names = [str(model.config.id2label[place]) for place in range(model.config.num_labels)]
        missing = [name for name in names if name not in labels]
        extra = [name for name in labels if name not in names]
        if missing or extra:
            hint = suggest(extra[0], names) if extra else ""
            problem = f"no label {extra[0]!r}{hint}" if extra else f"no level for {missing[0]!r}"
            raise ConfigError(
                f"guard.labels: {problem}; {source:.200} has the labels {', '.join(names)}; give "
                "each a level from 0 to 3"
            )
        model.eval()
        whole = f"{source} {getattr(model.config, '_commit_hash', None)} {sorted(labels.items())}"
        version = sha256(f"{whole} {threshold}".encode()).hexdigest()[:8]
        levels = [labels[name] for name in names]
        return cls(model, tokenizer, levels, 0.5 if threshold is None else threshold, version)

    def detect(self, texts: Sequence[str]) -> list[Detection]:
        """Return what is found in each text."""
        found = []
        for chances in in_windows(texts, self._chances):  # [3], of at least each level
            reached = [
                level for level, chance in enumerate(chances, 1) if chance >= self._threshold
            ]
            found.append(_found(max(reached, default=NONE)))
        return found

    def _chances(self, texts: list[str]) -> np.ndarray:
        """Return the probabilities [texts, 3] that each of the three levels is reached."""
        import torch

        rows = []
        for start in range(0, len(texts), BATCH):
            batch = self._tokenizer(
                texts[start : start + BATCH], padding=True, truncation=True, return_tensors="pt"
            )
            with torch.inference_mode():
                logits = self._model(**batch).logits.float()
            rows.append((logits.sigmoid() if self._several else logits.softmax(-1)).numpy())
        chances = np.concatenate(rows)
        join = np.max if self._several else np.sum
        levels = []
        for level in (CONCERN, CRISIS, EMERGENCY):
            part = chances[:, self._levels >= level]
            levels.append(join(part, axis=1) if part.shape[1] else np.zeros(len(chances)))
        return np.stack(levels, axis=1)


def in_windows(texts: Sequence[str], score: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """Return the highest score over the windows of each text.

    Args:
        texts: the texts.
        score: function from windows to scores [windows, …].

    Raises:
        ValueError: a score is not a number.
    """
    parts = [windows_of(text) for text in texts]
    scores = score([part for found in parts for part in found])
    if not np.isfinite(scores).all():
        raise ValueError("a score is not a number")
    starts = np.cumsum([0, *(len(found) for found in parts)])
    return np.stack([scores[a:b].max(axis=0) for a, b in pairwise(starts)])


def unit_vectors(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """Return the vectors [texts, d] of texts, of length 1."""
    vectors = np.asarray(embedder(list(texts)), dtype=float)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(−x)) without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * values))


def _found(level: int) -> Detection:
    return Detection(level, frozenset({"by_model"} if level else ()))
