"""Corpora with duplicates that are known, to measure what an audit finds.

``python -m tests.data.planted FOLDER DIALOGUES`` writes a train and a test file of made-up words in
the proportions of ESConv: 29 turns a dialogue, 18 words a turn, frequent and rare words.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np

LEVELS = ("dialogues", "situations", "turns", "targets")
KINDS = ("exact", "normalised", "near")
LONG = 20  # words of a turn that is planted


def respell(text):
    """The same letters with other case, spaces and marks."""
    return " ".join(text.upper().replace(".", " !").replace(",", " -").split()) + " …"


def reword(text, rng, share=0.05):
    """The same text with a twentieth of its words, and one at least, replaced."""
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        words[place] = f"quux{rng.randrange(10**6)}"
    return " ".join(words)


def sprinkle(text, rng, share=0.05):
    """The same text with every twentieth word replaced, on average: none of many short turns."""
    return " ".join(
        word if rng.random() > share else f"quux{rng.randrange(10**6)}" for word in text.split()
    )


def change(text, kind, rng):
    return {"exact": lambda: text, "normalised": lambda: respell(text),
            "near": lambda: reword(text, rng)}[kind]()  # fmt: skip


def is_long(turn):
    return len(turn["text"].split()) >= LONG


def is_target(dialog, place):
    return place and dialog[place]["speaker"] == "sys" and dialog[place - 1]["speaker"] == "usr"


def plant(train, test, seed):
    """Plant one duplicate of every kind on every level, each in a dialogue of its own.

    Args:
        train, test: dialogues in the hub's layout, with ids; test is changed in place.

    Returns:
        {(level, kind): id of the planted item}, and the ids that may be found besides: turns of
        copied dialogues, and planted targets, which are turns too.
    """
    rng = random.Random(seed)
    sources = rng.sample([d for d in train if any(map(is_long, d["dialog"]))], 9)
    hosts = [d for d in test if len(d["dialog"]) > 4]
    rng.shuffle(hosts)
    planted, besides = {}, {level: set() for level in LEVELS}
    for kind in KINDS:
        source, number = sources.pop(), len(test)
        turns = [t for t in source["dialog"] if kind != "near" or rng.random() > 0.1]
        copy = {"id": f"copy-{kind}", "situation": f"unlike any other, number {number}",
                "dialog": [{**t, "text": sprinkle(t["text"], rng) if kind == "near"
                            else change(t["text"], kind, rng)} for t in turns]}  # fmt: skip
        test.append(copy)
        planted["dialogues", kind] = copy["id"]
        for place in range(len(turns)):
            for level in ("turns", "targets"):
                besides[level].add(f"{copy['id']}/{place}")
    for kind in KINDS:
        host = hosts.pop()
        source = sources.pop()
        source["situation"] = f"{seed} " + " ".join(
            rng.choice(source["dialog"])["text"] for _ in range(12)
        )  # fmt: skip
        host["situation"] = change(source["situation"], kind, rng)
        planted["situations", kind] = host["id"]
    for level in ("turns", "targets"):
        for kind in KINDS:
            host = hosts.pop() if hosts else rng.choice(test[:5])
            places = [
                place for place, turn in enumerate(host["dialog"])
                if f"{host['id']}/{place}" not in besides["turns"]
                and (turn["speaker"] == "usr" or level == "targets")
                and (is_target(host["dialog"], place) or level == "turns")
            ]  # fmt: skip
            place = rng.choice(places)
            speaker = "usr" if level == "turns" else "sys"
            texts = [t["text"] for d in train for t in d["dialog"]
                     if t["speaker"] == speaker and is_long(t)]  # fmt: skip
            host["dialog"][place]["text"] = change(rng.choice(texts), kind, rng)
            planted[level, kind] = f"{host['id']}/{place}"
            besides["turns"].add(planted[level, kind])
    return planted, besides


def made_up(count, seed, *, turns=29, words=18, vocabulary=30_000):
    """Yield dialogues of made-up words, in the hub's layout."""
    rng = np.random.default_rng(seed)
    letters = "aeiou", "bcdfghklmnprstvwz"
    names = [
        "".join(letters[n % 2][(number * 7 + n * 3) // 5 ** (n // 2) % len(letters[n % 2])]
                for n in range(2 + number % 7)) + str(number)[: number % 3]
        for number in range(vocabulary)
    ]  # fmt: skip
    weights = 1 / np.arange(10, vocabulary + 10)
    ends = np.cumsum(weights / weights.sum())[:-1]
    for number in range(count):
        sizes = np.maximum(1, rng.lognormal(np.log(words) - 0.32, 0.8, turns).astype(int))
        drawn = iter(np.searchsorted(ends, rng.random(sizes.sum() + 20)).tolist())
        dialog = []
        for place, size in enumerate(sizes.tolist()):
            text = " ".join(names[next(drawn)] for _ in range(size))
            turn = {"text": text, "speaker": ("usr", "sys")[place % 2]}
            dialog.append(turn | ({"strategy": "Others"} if place % 2 else {}))
        situation = " ".join(names[next(drawn)] for _ in range(20))
        yield {"id": f"{seed}-{number:06d}", "situation": situation, "dialog": dialog}


if __name__ == "__main__":
    folder, total = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    everyone = []
    for name, count, seed in (("train", total * 9 // 10, 1), ("test", total // 10, 2)):
        with open(folder / f"{name}.jsonl", "w") as file:
            for dialogue in made_up(count, seed):
                file.write(json.dumps(dialogue) + "\n")
