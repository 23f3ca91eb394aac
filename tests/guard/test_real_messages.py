"""Labelled messages and real dialogues: what the lexicon finds is what the documentation says."""

import json

import pytest

from pal.data.esconv import load_esconv
from pal.guard import GuardSettings, load_guard
from pal.guard.evaluation import measure_messages
from pal.guard.rows import read_labelled, seeker_turns


@pytest.fixture(scope="module")
def guard():
    return load_guard(GuardSettings(country="US"))


@pytest.fixture(scope="module")
def crisis_data(shared_data):
    folder = shared_data / "crisis"
    if not folder.is_dir():
        pytest.skip("labelled messages are not beside this checkout")
    return folder


@pytest.fixture(scope="module")
def talks(shared_data, crisis_data):
    return {
        split: [dict(row) for row in load_esconv(str(shared_data / "esconv"), split)]
        for split in ("train", "validation", "test")
    }


def test_labelled_messages(guard, crisis_data):
    found = measure_messages(guard, read_labelled(str(crisis_data / "dev.jsonl")))
    assert found["recall"]["all"]["value"] >= 0.95
    assert found["recall by wording"]["explicit"]["value"] >= 0.97
    assert found["recall by wording"]["passive"]["value"] >= 0.90
    assert found["false alarms"]["all"]["value"] <= 0.02


def test_seekers_of_esconv(guard, crisis_data, talks):
    known = json.loads((crisis_data / "esconv_crisis_ids.json").read_text())
    clear = {one["id"] for one in known["clear"]}
    context = {one if isinstance(one, str) else one["id"] for one in known["needs_context"]}
    flagged, others, turns = set(), 0, 0
    fired = set()
    for split, rows in talks.items():
        for number, row in enumerate(rows):
            places = [n for n, turn in enumerate(row["dialog"]) if turn["speaker"] == "seeker"]
            said = seeker_turns(row)
            alone = [one.level for one in guard.assess_many([([text], None) for text in said])]
            for place, level in zip(places, alone, strict=True):
                name = f"{split}:{number}:{place}"
                turns += 1
                if level:
                    flagged.add(name)
                    others += name not in clear
            if any(guard.levels(said)):
                fired.add(f"{split}:{number}")
    assert turns == 19_989
    assert len(clear & flagged) >= 24
    assert others / (turns - len(clear)) <= 0.005
    dialogues = {name.rpartition(":")[0] for name in clear | context}
    assert len(dialogues) == 17
    assert dialogues <= fired
    assert len(fired) <= 0.05 * 1300


def test_spelling_hides_little_of_the_explicit_messages(guard, crisis_data):
    import random

    from tests.guard.test_lexicon import LEXICON, mutations

    rows = read_labelled(str(crisis_data / "dev.jsonl"))
    texts = [row.text for row in rows if row.wording == "explicit" and len(row.text) < 300]
    before = sum(one.level > 0 for one in LEXICON.detect(texts)) / len(texts)
    draw = random.Random(3)
    changed = [mutation for text in texts for mutation in mutations(text, draw)]
    after = sum(one.level > 0 for one in LEXICON.detect(changed)) / len(changed)
    assert before - after <= 0.03, (before, after)


def test_few_real_supporter_turns_would_be_dropped_and_the_harmful_are(guard, talks):
    calm = guard.review(["hello"])
    pinned = guard.review(["hello"], pinned=2)
    turns = [turn["text"] for turn in talks["test"][0]["dialog"] if turn["speaker"] == "supporter"]
    for row in talks["test"][1:60]:
        turns += [turn["text"] for turn in row["dialog"] if turn["speaker"] == "supporter"]
    dropped = [text for text in turns if guard.check_reply(text, calm)]
    assert len(dropped) <= 0.01 * len(turns), dropped
    for number, place in ((129, 33), (277, 26), (277, 31), (277, 35)):
        assert guard.check_reply(talks["train"][number]["dialog"][place]["text"], pinned)
