"""How a sample becomes token ids: the text formats of the encoder input and the targets.

``clean`` (default) spaces marks and punctuation so that the tokenizer meets no avoidable unknown
token, and drops whole turns from the left. ``natural`` does so too and leaves the spacing as people
write it, which models of text as it stands in books have seen. ``authors`` writes what the released
code writes.
A new format is a subclass of :class:`Template` and one line in ``TEMPLATES``; outside of the
package, a user's own settings name ``their_package.module:Class``.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pal.core.errors import ConfigError
from pal.core.registry import Registry
from pal.data.samples import Sample
from pal.data.spilled import RecentTexts
from pal.data.strategies import strategy_token
from pal.data.tokenizer import text_encoder

Turn = Mapping[str, Any]

_TYPOGRAPHIC = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"',
                              "„": '"', "–": "-", "—": "-", "−": "-"})  # fmt: skip


class Template:
    """How turns, personas and prompts are written before they are tokenised.

    Attributes:
        prompt: what stands where the supporter is to speak.
        persona_heading: what opens the persona in mode ``prompt``.
        dialogue_heading: what opens the dialogue after it.
        drops_whole_turns: whether a dialogue too long loses whole turns before one is cut.
        after_strategy: what stands between a strategy and the words, where the tokenizer keeps
            spaces.
        spaces_marks: whether punctuation marks are set between spaces, which showing takes back.
    """

    prompt: str
    persona_heading: str
    dialogue_heading: str
    drops_whole_turns: bool
    after_strategy: str = ""
    spaces_marks: bool = False

    def text(self, text: str) -> str:
        """Return the text of an utterance in this format."""
        return text

    def turn(self, turn: Turn) -> str:
        """Return a turn of the dialogue history with its speaker mark."""
        raise NotImplementedError

    def detokenise(self, text: str) -> str:
        """Return generated text as it is shown and scored."""
        return text


class AuthorsTemplate(Template):
    """The text of the released code: ``Persona:`` and ``System:[Strategy]`` before the utterance.

    Written without a space, ``Persona:Hi`` starts every seeker turn with an unknown token.
    """

    prompt = "System:"
    persona_heading = "Persona Information:\n"
    dialogue_heading = "Dialogue:\n"
    drops_whole_turns = False

    def turn(self, turn: Turn) -> str:
        """Return a turn of the dialogue history with its speaker mark."""
        if turn["speaker"] == "seeker":
            return "Persona:" + self.text(turn["text"])
        strategy = strategy_token(turn["strategy"]) if turn["strategy"] else ""
        return self.prompt + strategy + self.text(turn["text"])


class CleanTemplate(Template):
    """The same content, spaced: ``user : …`` and ``supporter : [Strategy] …``."""

    prompt = "supporter :"
    persona_heading = "persona :"
    dialogue_heading = "dialogue :"
    drops_whole_turns = True
    after_strategy = " "
    spaces_marks = True

    def text(self, text: str) -> str:
        """Write typographic marks plainly and set every punctuation mark between spaces."""
        return " ".join(re.sub(r"([^\w\s]|_)", r" \1 ", write_plainly(text)).split())

    def turn(self, turn: Turn) -> str:
        """Return a turn of the dialogue history with its speaker mark."""
        if turn["speaker"] == "seeker":
            return "user : " + self.text(turn["text"])
        strategy = f"{strategy_token(turn['strategy'])} " if turn["strategy"] else ""
        return f"{self.prompt} {strategy}{self.text(turn['text'])}"

    def detokenise(self, text: str) -> str:
        """Remove the spaces that :meth:`text` added at brackets and at hyphens inside words."""
        text = re.sub(r"([(\[]) ", r"\1", text)
        text = re.sub(r" ([)\]:;%])", r"\1", text)
        return re.sub(r"(?<=\w) - (?=\w)", "-", text)


class NaturalTemplate(Template):
    """The same content spaced as people write: ``User: …`` and ``Supporter: [Strategy] …``.

    For tokenizers that keep spaces and letter case, such as those of BART and T5.
    """

    prompt = "Supporter:"
    persona_heading = "Persona:"
    dialogue_heading = "Dialogue:"
    drops_whole_turns = True
    after_strategy = " "

    def text(self, text: str) -> str:
        """Write typographic marks plainly, and one space where there are several."""
        return " ".join(write_plainly(text).split())

    def turn(self, turn: Turn) -> str:
        """Return a turn of the dialogue history with its speaker mark."""
        if turn["speaker"] == "seeker":
            return "User: " + self.text(turn["text"])
        strategy = f"{strategy_token(turn['strategy'])} " if turn["strategy"] else ""
        return f"{self.prompt} {strategy}{self.text(turn['text'])}"


def write_plainly(text: str) -> str:
    """Return a text with plain marks in place of typographic ones."""
    return unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHIC)


TEMPLATES = Registry(
    "template",
    {"clean": CleanTemplate, "natural": NaturalTemplate, "authors": AuthorsTemplate},
    classes=True,
)


def make_template(name: str, *, trusted: bool = True) -> Template:
    """Return the text format of a name.

    Args:
        name: a key of ``TEMPLATES``, or ``their_package.module:Class``.
        trusted: whether the name comes from the user's own settings; a name from a checkpoint
            never imports code from outside the package.

    Raises:
        ConfigError: the template is unknown or is not a :class:`Template`.
    """
    cls = TEMPLATES.find(name, trusted=trusted)
    if not (isinstance(cls, type) and issubclass(cls, Template)):
        raise ConfigError(f"template {name!r} is not a subclass of pal.data.templates.Template")
    return cls()


class SampleEncoder:
    """Turns samples into token ids; every distinct text is tokenised once.

    Args:
        tokenizer: a tokenizer that holds PAL's added tokens.
        template: name in ``TEMPLATES``, or ``their_package.module:Class``.
        persona_mode: ``fusion``, ``prompt`` or ``none``.
        max_context_tokens: maximum number of encoder tokens of the dialogue; in mode ``prompt``,
            of persona and dialogue together.
        max_persona_tokens: maximum number of encoder tokens of the persona.
        max_target_tokens: maximum number of target tokens, without strategy and end token.
        trusted: see :func:`make_template`.

    Raises:
        ConfigError: the template is unknown, or no room is left for the dialogue.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str,
        persona_mode: str,
        max_context_tokens: int,
        max_persona_tokens: int,
        max_target_tokens: int,
        trusted: bool = True,
    ):
        self.template = make_template(template, trusted=trusted)
        if persona_mode == "prompt" and 2 * max_persona_tokens > max_context_tokens:
            raise ConfigError(
                f"prompt mode: max_persona_tokens={max_persona_tokens} must be at most half "
                f"of max_context_tokens={max_context_tokens}, which persona and dialogue share"
            )
        self.tokenizer = tokenizer
        self.persona_mode = persona_mode
        self.max_context_tokens = max_context_tokens
        self.max_persona_tokens = max_persona_tokens
        self.max_target_tokens = max_target_tokens
        self._ids: RecentTexts[str] = RecentTexts()
        self._tokenise = text_encoder(tokenizer)
        self._separator = tokenizer.convert_tokens_to_ids(["</s>", "<s>"])
        self._keeps_spaces = self.ids("a") != self.ids(" a")
        marks = "i'm fine, and you?"
        self._keeps_marks = tokenizer.decode(self.ids(marks)).strip() == marks
        self._input, self._persona = tokenizer.convert_tokens_to_ids(["<input>", "<persona>"])

    @classmethod
    def from_config(cls, tokenizer: Any, config: Any, *, trusted: bool = False) -> "SampleEncoder":
        """Build the encoder that a model's configuration describes.

        Args:
            tokenizer: a tokenizer that holds PAL's added tokens.
            config: configuration of the model.
            trusted: whether the user's own settings named the template, as in training.
        """
        return cls(
            tokenizer,
            template=config.template,
            persona_mode=config.persona_mode,
            max_context_tokens=config.max_context_tokens,
            max_persona_tokens=config.max_persona_tokens,
            max_target_tokens=config.max_target_tokens,
            trusted=trusted,
        )

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a text, without start or end token."""
        found = self._ids.get(text)
        if found is None:
            found = self._ids[text] = self._tokenise(text)
        return found

    def encode_inputs(self, sample: Sample) -> dict[str, list[int]]:
        """Return what :meth:`encode` does without ``labels``, for decoding."""
        room = self.max_context_tokens
        heading: list[int] = []
        if self.persona_mode == "prompt":
            heading = self.encode_persona_prompt(sample.persona)
            room -= len(heading)
        encoded = {"input_ids": heading + self.encode_context(sample.context, room)}
        if self.persona_mode == "fusion":
            encoded["persona_input_ids"] = self.encode_persona(sample.persona)
        return encoded

    def encode(self, sample: Sample) -> dict[str, list[int]]:
        """Return ``input_ids``, ``persona_input_ids`` (mode fusion) and ``labels`` of a sample.

        ``labels`` are strategy token, response and end token; they are left out if the sample has
        no response. A truncated response has no end token.
        """
        encoded = self.encode_inputs(sample)
        if sample.response is not None and sample.strategy is not None:
            encoded["labels"] = self.encode_target(sample.strategy, sample.response)
        return encoded

    def encode_context(self, turns: Sequence[Turn], room: int) -> list[int]:
        """Return the dialogue and the supporter's prompt, truncated on the left to ``room`` ids."""
        pieces = [self.ids(self.template.turn(turn)) for turn in turns]
        prompt = self._separator + self.ids(self.template.prompt)
        if self.template.drops_whole_turns:
            size, first = len(prompt), len(pieces)
            while first and size + len(pieces[first - 1]) <= room:
                size += len(pieces[first - 1]) + len(self._separator)
                first -= 1
            pieces = pieces[min(first, len(pieces) - 1) :]
        return (self._join(pieces, self._separator) + prompt)[-room:]

    def encode_persona(self, sentences: Iterable[str]) -> list[int]:
        """Return ``<input>`` and the newest sentences that fit, ``<persona>`` between them."""
        kept: list[list[int]] = []
        size = 1
        for sentence in reversed(list(sentences)):
            ids = self.ids(self.template.text(sentence))
            size += len(ids) + bool(kept)  # a separator between two
            if kept and size > self.max_persona_tokens:
                break
            kept.insert(0, ids)
        return [self._input, *self._join(kept, [self._persona])][: self.max_persona_tokens]

    def encode_persona_prompt(self, sentences: Sequence[str]) -> list[int]:
        """Return the persona as text before the dialogue (the paper's Hard Prompt baseline)."""
        sentences = list(sentences)
        heading = self.ids(self.template.persona_heading)
        closing = self._separator + self.ids(self.template.dialogue_heading)
        pieces = [self.ids(self.template.text(sentence)) for sentence in sentences]
        while True:
            prompt = heading + self._join(pieces, self._separator) + closing
            if not pieces or len(prompt) <= self.max_persona_tokens:
                return prompt
            pieces.pop(0)

    def encode_target(self, strategy: str, response: str) -> list[int]:
        """Return strategy token, response and end token, cut to the longest target allowed."""
        before = self.template.after_strategy if self._keeps_spaces else ""
        ids = [
            *self.ids(strategy_token(strategy)),
            *self.ids(before + self.template.text(response)),
            self.tokenizer.eos_token_id,
        ]
        return ids[: self.max_target_tokens + 1]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, without special tokens."""
        text = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=not self._keeps_marks
        )
        if self._keeps_marks and self.template.spaces_marks:
            text = self.tokenizer.clean_up_tokenization(text)
        return self.template.detokenise(text.strip())

    @staticmethod
    def _join(pieces: Sequence[list[int]], separator: list[int]) -> list[int]:
        joined: list[int] = []
        for piece in pieces:
            if joined:
                joined += separator
            joined += piece
        return joined
