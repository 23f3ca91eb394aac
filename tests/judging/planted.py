"""Judges with planted preferences, a planted preference for a place, and noise."""

import json
import re
import zlib
from dataclasses import dataclass, field

import numpy as np

from tests.jobs import command
from tests.llm.server import FakeServer

QUESTIONS = ("Coherence", "Identification", "Comforting", "Suggestion", "Information", "Overall")
SYSTEMS = ("north_model", "south_model")
MARKS = dict(zip(SYSTEMS, ("mild", "brisk"), strict=True))  # what a system's texts can be told by


@dataclass
class PlantedJudge:
    """One answer to a question: the place, noise, or what is true of the item.

    Attributes:
        wins: chance that the first, or the second system is better in an item; ties are the rest.
        place: chance that whatever stands first is chosen.
        noise: chance of an answer by lot.
        seed: of everything drawn.
    """

    wins: tuple[float, float] = (0.5, 0.2)
    place: float = 0.0
    noise: float = 0.0
    seed: int = 0
    own: dict = field(default_factory=dict)  # name of a model → its own place

    def truth(self, item, question):
        draw = np.random.default_rng([self.seed, item, QUESTIONS.index(question)]).random()
        first, second = self.wins
        return SYSTEMS[0] if draw < first else SYSTEMS[1] if draw < first + second else "Tie"

    def one(self, model, item, question, at):
        """Answer a question; ``at`` says which system stands at A and which at B."""
        name = zlib.crc32(f"{model} {at['A']}".encode())
        draw = np.random.default_rng([self.seed, 7, name, item, QUESTIONS.index(question)])
        lot, place = draw.random(), self.own.get(model, self.place)
        if lot < place:
            return "A"
        if lot < place + self.noise:
            return str(draw.choice(["A", "B", "Tie"]))
        better = self.truth(item, question)
        return next((side for side, system in at.items() if system == better), "Tie")

    def __call__(self, body):
        text = body["messages"][-1]["content"]
        marks = {}
        for side in "AB":
            said = re.search(rf"<response_{side.lower()}>\n.*?(mild|brisk) \D*(\d+)", text, re.S)
            marks[side] = next(system for system, mark in MARKS.items() if mark == said[1])
            item = int(said[2])
        return {name: self.one(body["model"], item, name, marks) for name in QUESTIONS}


def write_study(folder, count, systems=SYSTEMS):
    """Write dialogues of one sample each and the responses of systems."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": f"d{number}",
            "dialog": [
                {"speaker": "seeker", "text": f"I am worried about matter {number}."},
                {"speaker": "supporter", "text": "Tell me.", "strategy": "Question"},
            ],
        }
        for number in range(count)
    ]
    source = folder / "dialogues.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {}
    for system in systems:
        files[system] = folder / f"{system}.jsonl"
        lines = [
            {"id": f"d{n}/1", "response": f"A {MARKS[system]} word on matter {n}."}
            for n in range(count)
        ]
        files[system].write_text("".join(json.dumps(line) + "\n" for line in lines))
    return source, files


def judged(kind, folder, answer, *more, count=40, judges=("one", "two"), faults=None):
    """Run a judge against a server and return (exit code, results, requests)."""
    source, files = write_study(folder, count)
    named = ", ".join(f"{name}: {path}" for name, path in files.items())
    several = ", ".join(f"{name}: {{model: {name}}}" for name in judges)
    with FakeServer(answer, faults) as server:
        code = command(
            "judge", kind, f"input={source}", f"output={folder / 'judged.json'}",
            f"judging.systems={{{named}}}", f"judging.judges={{{several}}}",
            f"judging.items={count}", f"llm.base_url={server.url}", "llm.model=unused",
            f"llm.cache={folder / 'cache.sqlite'}", "statistics.resamples=1000", *more,
        )  # fmt: skip
        sent = list(server.requests)
    path = folder / "judged.json"
    return code, json.loads(path.read_text()) if path.exists() else None, sent
