"""What ``pal bench scale`` starts in processes of their own, so that the memory of each is known.

A command is run as the command line runs it: ``python -m pal.speed.stages command generate …``.
``canned`` in place of ``command`` has responses and personas come without a model's work, which
leaves the work that grows with a corpus.
"""

import json
import runpy
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

TEXT = "thank you for telling me , that must be hard ."
PERSONA = ["i am a nurse.", "i live alone with my dog."]
SIZES = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
}  # fmt: skip


def read_corpus(source: str) -> None:
    """Read and check every dialogue, and hash them as the identity of an annotation does."""
    from pal.core.files import Streamed, fingerprint
    from pal.data.dialogues import Dialogues
    from pal.data.splits import load_split

    print(fingerprint(Streamed(Dialogues(load_split(source, None, requests=True)))))


def prepare_training(source: str, tokenizer: str) -> None:
    """Make the token ids of a training run, and its identity."""
    from pal.core.files import fingerprint
    from pal.data.settings import DataSettings
    from pal.modeling.settings import ArchitectureSettings
    from pal.training.preparation import identity_facts, prepare

    data = DataSettings(train=source, split="seeded")
    architecture = ArchitectureSettings(
        tokenizer=tokenizer, from_scratch=SIZES, max_context_tokens=256, max_persona_tokens=96,
        max_target_tokens=64,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=Path(source).parent) as folder:
        parts = prepare("response", data, architecture, Path(folder))
        print(fingerprint(identity_facts(parts)))


def run_command(arguments: Sequence[str]) -> None:
    """Run a command of the package."""
    with patch.object(sys, "argv", ["pal", *arguments]):
        runpy.run_module("pal", run_name="__main__")


def run_canned(arguments: Sequence[str]) -> None:
    """Run a command of the package with a stand-in for what models answer."""
    from pal.data.strategies import STRATEGIES
    from pal.decoding.engine import Answer
    from pal.modeling.responder import Responder, make_record
    from pal.persona.extractor import BeamExtractor

    answer = Answer(0, [1 / len(STRATEGIES)] * len(STRATEGIES), 0.5, [3] * 12)

    def respond(self: Any, samples: Sequence[Any], encoded: Any, **_: Any) -> list[dict[str, Any]]:
        return [
            make_record(sample, answer, lambda ids: TEXT, STRATEGIES, "model", end=2)
            for sample in samples
        ]

    def infer(self: Any, sources: Sequence[Any]) -> list[list[str]]:
        return [PERSONA] * len(sources)

    with patch.object(Responder, "answer", respond), patch.object(BeamExtractor, "__call__", infer):
        run_command(arguments)


STAGES: dict[str, Callable[..., None]] = {"read": read_corpus, "tokens": prepare_training}


def run_stage(what: str, arguments: Sequence[str]) -> None:
    """Run what the command line names."""
    if what == "command":
        run_command(arguments)
    elif what == "canned":
        run_canned(arguments)
    else:
        STAGES[what](*json.loads(arguments[0]))


if __name__ == "__main__":
    run_stage(sys.argv[1], sys.argv[2:])
