"""What annotation and generation hold does not grow with the corpus, whatever a model answers."""

import gc
import tracemalloc

import pytest

from pal.commands import annotate as annotating
from pal.commands import generate as generating
from pal.commands.annotate import AnnotateSettings, annotate
from pal.commands.generate import GenerateSettings, generate
from pal.core import files
from pal.data import samples, spilled
from pal.modeling.responder import Responder
from pal.persona.extractor import BeamExtractor
from pal.speed import synthetic
from pal.speed.stages import PERSONA, TEXT

FEW, MANY = 100, 1500  # many, so that what other threads and caches take meanwhile is little


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks, windows and caches that a small corpus fills, and models that answer at once."""
    for module, name, value in (
        (files, "BLOCK", 20), (spilled, "ROWS", 20), (spilled, "TEXTS", 400),
        (spilled, "RECENT", 50),
        (samples, "BLOCK", 20), (synthetic, "VOCABULARY", 60), (annotating, "WINDOW", 30),
        (generating, "WINDOW", 60),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(BeamExtractor, "__call__", lambda self, sources: [PERSONA] * len(sources))
    monkeypatch.setattr(
        Responder, "answer",
        lambda self, found, encoded, **_: [{"id": one.id, "response": TEXT} for one in found],
    )  # fmt: skip


def peak(run):
    """The memory of Python's objects at its highest, bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def growth(folder, make):
    """Bytes a dialogue by which the peak of a command grows; ``make`` gives a run of it."""
    found = []
    for name, count in (("warm", 2), ("few", FEW), ("many", MANY)):
        source = folder / f"{name}.jsonl"
        synthetic.write_synthetic(source, count, turns=6, seed=1)
        output = folder / f"{name}.out.jsonl"
        found.append(peak(make(source, output)))
        assert len(output.read_text().splitlines()) >= count
    return (found[2] - found[1]) / (MANY - FEW)


def test_annotation_holds_a_window(extractor_model, tmp_path):
    def make(source, output):
        settings = AnnotateSettings(
            model=str(extractor_model), input=str(source), output=str(output),
            annotate={"num_beams": 1},
        )  # fmt: skip
        return lambda: annotate(settings)

    assert growth(tmp_path, make) < 200  # a dialogue is 1,100 bytes, and 7,000 as objects


def test_generation_holds_a_window(response_model, tmp_path):
    def make(source, output):
        settings = GenerateSettings(
            model=str(response_model), input=str(source), output=str(output)
        )
        return lambda: generate(settings)

    assert growth(tmp_path, make) < 200
