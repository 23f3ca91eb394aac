"""Tokenizers: Blenderbot-small's with PAL's added tokens, loaded or trained from texts."""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pal.core.errors import CheckpointError, first_line
from pal.core.files import file_fingerprint, fingerprint
from pal.core.hub import go_offline_without_network
from pal.data.spilled import RecentTexts
from pal.data.strategies import ADDED_TOKENS, STRATEGY_TOKENS

# Signs that a vocabulary made from English texts has no piece for.
UNKNOWN_WORDS = "\u0e51\u2603 \U000f0123 zq"


def load_tokenizer(source: str | Path, gguf_file: str | None = None) -> Any:
    """Load a tokenizer from a folder or hub id, as it is.

    Args:
        source: folder or hub id.
        gguf_file: the GGUF file there that holds it; None for a tokenizer's own files.

    Raises:
        CheckpointError: the source holds no tokenizer.
    """
    from transformers import AutoTokenizer, BlenderbotSmallTokenizer

    go_offline_without_network(str(source))
    try:
        if Path(source).is_dir() and (Path(source) / "merges.txt").exists():
            text = (Path(source) / "vocab.json").read_text(encoding="utf-8")
            if '"__start__"' in text:  # a folder may lack the file that names the class
                check_merges(Path(source) / "merges.txt", json.loads(text))
                return BlenderbotSmallTokenizer.from_pretrained(str(source))
        more = {} if gguf_file is None else {"gguf_file": gguf_file}
        return AutoTokenizer.from_pretrained(str(source), trust_remote_code=False, **more)
    except Exception as error:  # of damaged files the library raises whatever it stumbles over
        raise CheckpointError(
            f"no tokenizer at {source}: {first_line(error)}; give a folder with tokenizer files "
            "or a hub id that can be reached"
        ) from error


def check_fit(tokenizer: Any, model: Any, where: str) -> None:
    """Make sure that a model has an embedding for whatever a tokenizer makes of a text.

    Args:
        tokenizer: saved with the model.
        model: any of the library's.
        where: the setting that named it, for messages.

    Raises:
        CheckpointError: the tokenizer has ids beyond the model's, or no id for an unknown word.
    """
    rows = model.get_input_embeddings().num_embeddings
    try:
        made = tokenizer(UNKNOWN_WORDS, add_special_tokens=False).input_ids
    except Exception:  # as above
        made = [None]
    ids = [*made, *tokenizer.all_special_ids, *tokenizer.get_vocab().values()]
    if None in ids:
        wrong = "has no id for words that it does not know"
    elif not 0 <= min(ids) <= max(ids) < rows:
        wrong = f"has ids up to {max(ids)}, and the model has {rows} embeddings"
    else:
        return
    raise CheckpointError(f"{where}: its tokenizer {wrong}; use the one saved with the model")


def check_merges(path: Path, vocab: Iterable[str]) -> None:
    """Make sure that a file of merges is whole and belongs to a vocabulary.

    The library reads any text, and a word that no merge makes falls apart into its letters. Of the
    published vocabulary's pieces a tenth are made by no merge, so a quarter is allowed.

    Args:
        path: ``merges.txt``: a line that the library passes over, then two pieces a line.
        vocab: pieces, as in ``vocab.json``: ``of@@`` goes on, ``ten`` ends a word.

    Raises:
        ValueError: it is damaged, or another vocabulary's.
    """
    _, *lines = path.read_text(encoding="utf-8").split("\n")
    if not lines or lines[-1]:
        raise ValueError("merges.txt is cut off: its last line has no end")
    made = set()
    for number, line in enumerate(lines[:-1], start=2):
        pieces = line.split()
        if len(pieces) != 2:
            raise ValueError(f"merges.txt, line {number}: expected two pieces, got {line!r:.60}")
        piece = "".join(pieces)
        made.add(piece.removesuffix("</w>") if piece.endswith("</w>") else f"{piece}@@")
    longer = {
        piece for piece in vocab
        if len(piece.removesuffix("@@")) > 1 and not re.fullmatch(r"__\w+__", piece)
    }  # fmt: skip
    if len(longer - made) > len(longer) / 4 or len(made - longer) > len(made) / 4:
        raise ValueError(
            f"merges.txt makes {len(made & longer)} of the {len(longer)} pieces in vocab.json: it "
            "is incomplete or belongs to another tokenizer"
        )


def add_pal_tokens(tokenizer: Any) -> Any:
    """Add separators, persona marks and strategy tokens, in the released order.

    Raises:
        CheckpointError: the tokenizer splits a strategy token, or two share an id.
    """
    missing = [token for token in ADDED_TOKENS if token not in tokenizer.get_vocab()]
    tokenizer.add_tokens(missing, special_tokens=True)
    check_strategy_tokens(tokenizer)
    return tokenizer


def check_strategy_tokens(tokenizer: Any) -> list[int]:
    """Return the token ids of the eight strategies, after checking that each is one token.

    Raises:
        CheckpointError: a strategy token is split or unknown.
    """
    ids = []
    for token in STRATEGY_TOKENS:
        pieces = tokenizer(token, add_special_tokens=False).input_ids
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token_id:
            raise CheckpointError(
                f"the tokenizer splits the strategy token {token} into {len(pieces)} pieces; use "
                "the tokenizer saved with the model, or let training add the strategy tokens"
            )
        ids.append(pieces[0])
    return ids


def text_encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """Return what gives the token ids of a text, without start or end token.

    Args:
        tokenizer: of any class, with all tokens that are added to it.
    """
    from transformers import BlenderbotSmallTokenizer

    if type(tokenizer) is BlenderbotSmallTokenizer and not tokenizer.split_special_tokens:
        added = tokenizer.added_tokens_decoder.values()
        plain = not any(one.lstrip or one.rstrip or one.single_word for one in added)
        if plain and set(tokenizer.all_special_tokens) <= {one.content for one in added}:
            return WordwiseEncoder(tokenizer)
    return lambda text: tokenizer(text, add_special_tokens=False).input_ids


class WordwiseEncoder:
    """Gives the token ids of texts with Blenderbot-small's tokenizer, a word at a time.

    The library's class is written in Python, takes half a millisecond a text and was most of the
    work around a model. Its pieces do not reach over a space, so the ids of a text are those of its
    words, and of these most have come before.

    Args:
        tokenizer: with all tokens that are added to it; none strips spaces beside it.

    Example:
        >>> WordwiseEncoder(tokenizer)("so tired") == tokenizer("so tired").input_ids
        True
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._added: dict[str, int] = dict(tokenizer.added_tokens_encoder)
        longest_first = sorted(self._added, key=len, reverse=True)
        self._marks = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._words: RecentTexts[str] = RecentTexts()

    def __call__(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = []
        words = self._words
        for place, part in enumerate(self._marks.split(text)):
            if place % 2:
                ids.append(self._added[part])
                continue
            for word in part.split(" "):
                if word:
                    found = words.get(word)
                    if found is None:
                        pieces = self.tokenizer.tokenize(word)
                        found = words[word] = self.tokenizer.convert_tokens_to_ids(pieces)
                    ids += found
        return ids


def special_token_ids(tokenizer: Any) -> list[int]:
    """Return the ids that no response may contain: start, padding, unknown and added tokens."""
    return sorted({*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(ADDED_TOKENS)})


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Return a hash of a tokenizer's state: vocabulary, merges, added tokens."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return fingerprint({path.name: file_fingerprint(path) for path in Path(folder).iterdir()})


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: str | Path) -> Any:
    """Train a byte-pair encoding on texts and write it in Blenderbot-small's file format.

    Small models trained from scratch use it; the result loads like the published tokenizer.

    Args:
        texts: training texts.
        vocab_size: maximum number of entries, with the four special tokens and newline.
        folder: folder for ``vocab.json`` and ``merges.txt``.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BlenderbotSmallTokenizer

    words: Counter[str] = Counter()
    for text in texts:
        words.update(re.findall(r"\w+|[^\w\s]", text.lower()))
    special = ["__null__", "__start__", "__end__", "__unk__", "__newln__"]
    characters = sorted({char for word in words for char in word})
    # The last letter of a word is a different symbol ("a</w>") from the same letter inside. The
    # library has an option for that, but it numbers such symbols in random order; a private
    # character for each last letter makes the result a function of the texts.
    last = {char: chr(0xF0000 + index) for index, char in enumerate(characters)}
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocab_size - len(special), 2 * len(characters)), show_progress=False
    )
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(
        (" ".join([word[:-1] + last[word[-1]]] * count) for word, count in sorted(words.items())),
        trainer=trainer,
    )
    model = json.loads(learner.to_str())["model"]
    plain = str.maketrans({private: char + "</w>" for char, private in last.items()})
    pieces = [p.translate(plain) for p in sorted(model["vocab"], key=model["vocab"].__getitem__)]
    names = [p.removesuffix("</w>") if p.endswith("</w>") else p + "@@" for p in pieces]
    vocab = {name: index for index, name in enumerate(dict.fromkeys(special + names))}

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    merges = [" ".join(pair).translate(plain) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return BlenderbotSmallTokenizer.from_pretrained(str(folder))


# A chat template for tokenizers that are trained on the spot; the form is known as ChatML.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_chat_tokenizer(texts: Iterable[str], vocab_size: int, folder: str | Path) -> Any:
    """Train a byte-level encoding on texts, for a decoder-only model from scratch, and write it.

    Args:
        texts: what to learn from.
        vocab_size: entries wanted, at most; 256 bytes and three special tokens included.
        folder: where its files go.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    learner.train_from_iterator(texts, trainer=trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=learner, unk_token=None, pad_token="<|endoftext|>",
        bos_token="<|im_start|>", eos_token="<|im_end|>",
    )  # fmt: skip
    made.chat_template = CHAT_TEMPLATE
    made.save_pretrained(str(folder))
    return load_tokenizer(folder)
