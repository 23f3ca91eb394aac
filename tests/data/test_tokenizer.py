import random

import pytest

from pal.core.errors import CheckpointError
from pal.data.strategies import ADDED_TOKENS, STRATEGY_TOKENS
from pal.data.tokenizer import (
    WordwiseEncoder,
    add_pal_tokens,
    check_strategy_tokens,
    load_tokenizer,
    special_token_ids,
    text_encoder,
    train_tokenizer,
)

TEXTS = ["I'm so anxious (really) about my job!", "so many jobs, so little time", "naïve café?"]


@pytest.fixture
def small(tmp_path):
    return train_tokenizer(TEXTS * 4, 400, tmp_path)


def test_trained_tokenizer_loads_like_the_published_one(small, tmp_path):
    from transformers import BlenderbotSmallTokenizer

    assert isinstance(load_tokenizer(tmp_path), BlenderbotSmallTokenizer)
    ids = small(TEXTS[0]).input_ids
    assert small.unk_token_id in ids  # "(really" written without a space, as in the original
    spaced = small("i ' m so anxious ( really ) about my job !").input_ids
    assert small.unk_token_id not in spaced
    assert small.decode(spaced) == "i ' m so anxious ( really ) about my job !"
    assert [small.pad_token_id, small.bos_token_id, small.eos_token_id, small.unk_token_id] == [
        0, 1, 2, 3,
    ]  # fmt: skip


def test_training_is_a_function_of_the_texts(tmp_path):
    for name in "abc":
        train_tokenizer(iter(TEXTS * 4), 120, tmp_path / name)
    for file in ("vocab.json", "merges.txt"):
        assert len({(tmp_path / name / file).read_bytes() for name in "abc"}) == 1


def test_vocabulary_keeps_to_its_size(tmp_path):
    texts = [f"word{i} other{i * 7}" for i in range(500)]
    assert 250 < len(train_tokenizer(texts, 300, tmp_path)) <= 300


def test_added_tokens_come_in_the_released_order(small):
    before = len(small)
    add_pal_tokens(small)
    assert small.convert_tokens_to_ids(list(ADDED_TOKENS)) == list(range(before, before + 12))
    assert check_strategy_tokens(small) == list(range(before + 4, before + 12))
    assert set(special_token_ids(small)) == {0, 1, 2, 3, *range(before, before + 12)}
    add_pal_tokens(small)
    assert len(small) == before + 12


def test_a_tokenizer_without_strategies_is_refused(small):
    with pytest.raises(CheckpointError, match=r"splits the strategy token \[Question\]"):
        check_strategy_tokens(small)
    small.add_tokens(list(STRATEGY_TOKENS[:3]), special_tokens=True)
    with pytest.raises(CheckpointError, match=r"\[Self-disclosure\]"):
        check_strategy_tokens(small)


def test_no_tokenizer_there(tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer at") as caught:
        load_tokenizer(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


# What can stand at the border of words and of added tokens.
BITS = [
    *ADDED_TOKENS, *ADDED_TOKENS, "__end__", "__start__", "__unk__", "__", "[", "]", "</s", "per",
    "sona>", " ", " ", "  ", "\n", "\r", "\t", "\x0b", "\x1c", "\u00a0", "\u2003", "\u3000", "'",
    "don't", "Jobs", "..", "?!", "\u0130", "\u00df", "\u01c5", "\u65e5\u672c", "\U0001f642",
    "e\u0301", "\u200b", "__newln__", "__newln", "@@", "a@@", "so\nmany", "(", ")", "A", "a", "\0",
    "[Question", "Question]", "user : ", "1", "\ufb01", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_ids_a_word_at_a_time_are_those_of_the_text(small, seed):
    add_pal_tokens(small)
    fast = text_encoder(small)
    assert isinstance(fast, WordwiseEncoder)
    source = random.Random(seed)
    for _ in range(3000):
        text = "".join(source.choices(BITS, k=source.randrange(9)))
        assert fast(text) == small(text, add_special_tokens=False).input_ids, repr(text)


@pytest.mark.parametrize("option", ["lstrip", "rstrip", "single_word"])
def test_a_tokenizer_whose_tokens_reach_beyond_themselves_is_asked_for_whole_texts(small, option):
    from transformers import AddedToken

    small.add_tokens([AddedToken("<far>", **{option: True})])
    fast = text_encoder(small)
    assert not isinstance(fast, WordwiseEncoder)
    text = "so <far>many <far> jobs<far>"
    assert fast(text) == small(text, add_special_tokens=False).input_ids
