"""MISC's text: contexts without strategies, targets, and blocks of knowledge as token ids.

A context is the last nine utterances, each closed by the end token, with [CLS] before them; a
speaker is not marked. A block is a relation and what it says: ``[xReact] exhausted``.
"""

from collections.abc import Mapping, Sequence
from itertools import dropwhile
from typing import Any

import torch
from torch import Tensor

from pal.data.batches import Collator
from pal.data.knowledge import RELATIONS
from pal.data.samples import Sample
from pal.data.strategies import ESCONV
from pal.data.templates import SampleEncoder, Turn
from pal.data.tokenizer import check_strategy_tokens

# The released order of the strategies, as ids of the strategy set: that of the added tokens and of
# the codebook's rows.
CODEBOOK_ORDER = tuple(
    ESCONV.id(name)
    for name in (
        "Question", "Reflection of feelings", "Information", "Restatement or Paraphrasing",
        "Others", "Self-disclosure", "Affirmation and Reassurance", "Providing Suggestions",
    )
)  # fmt: skip
CLS = "[CLS]"
MISC_TOKENS = (
    *(ESCONV.tokens[one] for one in CODEBOOK_ORDER), *(f"[{one}]" for one in RELATIONS), CLS,
)  # fmt: skip

UTTERANCES = 9  # of a context, at most
MULTIPLE_OF = 8  # what the released code pads a training context to before [CLS] is put in front
END_OF_BLOCK = -1  # between the blocks of a sample, which are one list of ids in files of tokens


def add_misc_tokens(tokenizer: Any) -> Any:
    """Add strategies, relations and [CLS], in the released order.

    Raises:
        CheckpointError: the tokenizer splits a strategy.
    """
    missing = [token for token in MISC_TOKENS if token not in tokenizer.get_vocab()]
    tokenizer.add_tokens(missing, special_tokens=True)
    check_strategy_tokens(tokenizer)
    return tokenizer


def misc_special_ids(tokenizer: Any) -> list[int]:
    """Return the ids that no response may contain: start, padding, unknown and added tokens."""
    return sorted({*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(MISC_TOKENS)})


def context_turns(turns: Sequence[Turn]) -> Sequence[Turn]:
    """Return the turns that a context holds: of the last nine, none before the seeker's first."""
    heard = list(dropwhile(lambda turn: turn["speaker"] != "seeker", turns))
    return (heard or list(turns))[-UTTERANCES:]


class MiscEncoder(SampleEncoder):
    """Turns samples into MISC's token ids; every distinct text is tokenised once.

    Args:
        tokenizer: a tokenizer that holds MISC's added tokens.
        template: how an utterance is written: a name in ``TEMPLATES``; speakers are not marked.
        max_context_tokens: maximum number of encoder tokens, [CLS] included.
        max_target_tokens: maximum number of target tokens, without strategy and end token.
        released: whether contexts are cut as the released code cuts them.
        blocks: maximum number of blocks of each stream of knowledge, by name; none without
            knowledge.
        block_tokens: maximum number of tokens of a block.
        trusted: see :func:`pal.data.templates.make_template`.

    Raises:
        ConfigError: the template is unknown.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str,
        max_context_tokens: int,
        max_target_tokens: int,
        released: bool,
        blocks: Mapping[str, int],
        block_tokens: int,
        trusted: bool = True,
    ):
        super().__init__(
            tokenizer, template=template, persona_mode="none",
            max_context_tokens=max_context_tokens, max_persona_tokens=0,
            max_target_tokens=max_target_tokens, trusted=trusted,
        )  # fmt: skip
        self.released, self.blocks, self.block_tokens = released, dict(blocks), block_tokens
        added = tokenizer.convert_tokens_to_ids(list(MISC_TOKENS))
        self._added, self._cls = frozenset(added), added[-1]

    @classmethod
    def from_config(cls, tokenizer: Any, config: Any, *, trusted: bool = False) -> "MiscEncoder":
        """Build the encoder that a model's configuration describes; see the base class."""
        limits = {"utterance": config.utterance_blocks, "situation": config.situation_blocks}
        return cls(
            tokenizer,
            template=config.template,
            max_context_tokens=config.max_context_tokens,
            max_target_tokens=config.max_target_tokens,
            released=config.misc_mode == "released",
            blocks=limits if config.with_knowledge else {},
            block_tokens=config.block_tokens,
            trusted=trusted,
        )

    def words(self, text: str) -> list[int]:
        """Return the ids of an utterance, without added tokens that it may name."""
        return [token for token in self.ids(self.template.text(text)) if token not in self._added]

    def encode(self, sample: Sample) -> dict[str, list[int]]:
        """Return ``input_ids``, the blocks of each stream, and ``labels`` of a sample.

        ``labels`` are strategy token, response and end token; they are left out if the sample has
        no response. The blocks of a stream are one list, ``END_OF_BLOCK`` before and behind each.
        """
        encoded = self._encode(sample, training=True)
        if sample.response is not None and sample.strategy is not None:
            encoded["labels"] = self.encode_target(sample.strategy, sample.response)
        return encoded

    def encode_inputs(self, sample: Sample) -> dict[str, list[int]]:
        """Return what :meth:`encode` does without ``labels``, for decoding."""
        return self._encode(sample, training=False)

    def _encode(self, sample: Sample, *, training: bool) -> dict[str, list[int]]:
        ids = self.encode_utterances(context_turns(sample.context), training=training)
        encoded = {"input_ids": ids}
        for stream, most in self.blocks.items():
            known = getattr(sample.knowledge, stream, ())
            encoded[f"{stream}_blocks"] = join_blocks(self.encode_blocks(known, most))
        return encoded

    def encode_utterances(self, turns: Sequence[Turn], *, training: bool) -> list[int]:
        """Return [CLS] and the utterances, the oldest dropped whole where there are too many.

        The released code drops one token more, the first, of a training context whose padded length
        is the maximum.

        Args:
            turns: of the context.
            training: whether the context is one that is trained on, which decides where the
                released code cuts; elsewhere it decides nothing.
        """
        end, most = self.tokenizer.eos_token_id, self.max_context_tokens
        room = most if self.released else most - 1
        ids = [token for turn in turns for token in (*self.words(turn["text"]), end)]
        if len(ids) > room:
            ids = ids[-room:]
            behind = ids.index(end) + 1
            ids = ids[behind:] or ids  # a last utterance too long is cut itself
        padded = -(-len(ids) // MULTIPLE_OF) * MULTIPLE_OF if training else len(ids)
        full = (self.released and padded >= most) or len(ids) >= most
        return [self._cls, *(ids[1:] if full else ids)]

    def encode_blocks(self, texts: Sequence[str], most: int) -> list[list[int]]:
        """Return the ids of the first ``most`` blocks, each cut.

        Args:
            texts: of the blocks, a relation in brackets first.
            most: number of blocks, at most.
        """
        return [self.ids(text)[: self.block_tokens] for text in texts[:most]]

    def encode_target(self, strategy: str, response: str) -> list[int]:
        """Return strategy token, response and end token, cut to the longest target allowed."""
        token = self.tokenizer.convert_tokens_to_ids(ESCONV.token(strategy))
        ids = [token, *self.words(response), self.tokenizer.eos_token_id]
        return ids[: self.max_target_tokens + 1]


def join_blocks(blocks: Sequence[Sequence[int]]) -> list[int]:
    """Return blocks as one list of ids, which files of tokens hold whatever their number.

    Example:
        >>> join_blocks([[7, 8], [9]])
        [-1, 7, 8, -1, 9, -1]
    """
    flat = [END_OF_BLOCK]
    for block in blocks:
        flat += [*block, END_OF_BLOCK]
    return flat


def split_blocks(flat: Sequence[int]) -> list[list[int]]:
    """Return the blocks of such a list."""
    blocks: list[list[int]] = [[]]
    for token in flat:
        if token == END_OF_BLOCK:
            blocks.append([])
        else:
            blocks[-1].append(token)
    return [block for block in blocks if block]


class MiscCollator(Collator):
    """Pads MISC's encoded samples to a batch of tensors, named as the arguments of ``forward``.

    Args:
        pad_token_id: what rows and blocks are padded with.
        decoder_start_token_id: what decoder inputs begin with.
        blocks: by stream, how many blocks every row is padded to, as the released code does; None
            pads to the longest row of the batch.
        block_tokens: tokens of a block.
    """

    def __init__(
        self,
        *,
        pad_token_id: int,
        decoder_start_token_id: int,
        blocks: Mapping[str, int | None],
        block_tokens: int,
    ):
        super().__init__(pad_token_id=pad_token_id, decoder_start_token_id=decoder_start_token_id)
        self.blocks, self.block_tokens = dict(blocks), block_tokens

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the batch of these samples."""
        batch = super().__call__(samples)
        batch.pop("decoder_input_ids", None)  # the model makes them: its decoder reads no strategy
        for stream, fixed in self.blocks.items():
            rows = [split_blocks(sample[f"{stream}_blocks"]) for sample in samples]
            count = max(map(len, rows)) if fixed is None else fixed
            ids = torch.full(
                (len(rows), count, self.block_tokens), self.pad_token_id, dtype=torch.long
            )
            for row, blocks in zip(ids, rows, strict=True):
                for place, block in zip(row, blocks, strict=False):
                    place[: len(block)] = torch.tensor(block)
            batch[f"{stream}_blocks"] = ids
        return batch
