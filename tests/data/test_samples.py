"""Which turns become samples, and what each of them sees."""

import pytest

from pal.data.esconv import load_esconv
from pal.data.samples import build_samples


def turn(speaker, text, persona=(), strategy="Question"):
    is_supporter = speaker == "supporter"
    return {
        "speaker": speaker,
        "text": text,
        "strategy": strategy if is_supporter else None,
        "persona": list(persona),
    }


DIALOGUE = {
    "id": "d",
    "request": False,
    "dialog": [
        turn("supporter", "welcome"),
        turn("supporter", "how are you?"),
        turn("seeker", "sad", ["I am sad."]),
        turn("supporter", "why?", ["I am sad."], strategy="Others"),
        turn("supporter", "tell me", ["I am sad.", "Later."]),
        turn("seeker", "my dog died", ["I am sad.", "I had a dog."]),
    ],
}


def test_training_takes_every_supporter_turn_but_the_first_turn():
    assert [sample.turn for sample in build_samples([DIALOGUE], "training")] == [1, 3, 4]


def test_evaluation_takes_supporter_turns_after_a_seeker_turn():
    assert [sample.turn for sample in build_samples([DIALOGUE], "evaluation")] == [3]


def test_a_sample_sees_what_came_before_its_target_and_nothing_else():
    first, second, third = build_samples([DIALOGUE], "training")
    assert (second.id, second.dialogue_id) == ("d/3", "d")
    assert (second.strategy, second.response) == ("Others", "why?")
    assert second.context == tuple(DIALOGUE["dialog"][:3])
    assert (first.persona, second.persona, third.persona) == ((), ("I am sad.",), ("I am sad.",))


def test_samples_share_the_turns_of_their_dialogue():
    samples = build_samples([DIALOGUE], "training")
    assert all(
        seen is said
        for sample in samples
        for seen, said in zip(sample.context, DIALOGUE["dialog"], strict=False)
    )


@pytest.mark.parametrize("rule", ["training", "evaluation"])
def test_a_request_gives_the_turn_after_its_last(rule):
    (sample,) = build_samples([{**DIALOGUE, "request": True}], rule)
    assert (sample.id, sample.turn, len(sample.context)) == ("d/6", 6, 6)
    assert sample.persona == ("I am sad.", "I had a dog.")
    assert sample.strategy is None
    assert sample.response is None


@pytest.mark.parametrize(
    ("split", "rule", "count"),
    [
        ("train", "training", 12271),
        ("validation", "evaluation", 2156),
        ("test", "evaluation", 2295),
    ],
)
def test_the_real_corpus_gives_the_papers_samples(shared_data, split, rule, count):
    samples = build_samples(load_esconv(shared_data / "esconv", split), rule)
    assert len(samples) == count
    assert len({sample.id for sample in samples}) == count
    assert all(len(sample.context) == sample.turn > 0 for sample in samples)
    assert all(sample.strategy and sample.response for sample in samples)
    if rule == "evaluation":
        assert all(sample.context[-1]["speaker"] == "seeker" for sample in samples)
