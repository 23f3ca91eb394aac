"""How dialogues become text for decoder-only language models.

Turns are written as the model's chat template writes them, the seeker as ``user`` and the supporter
as ``assistant``. The strategy is plain text at the head of the supporter's turn, ``[Question] …``.
What becomes known of the seeker stands as a note behind the turn that told it, so that the text of
a turn never changes later: all samples of a dialogue are beginnings of one sequence.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pal.core.errors import CheckpointError, ConfigError
from pal.data.harm import LEFT_OUT
from pal.data.samples import Sample
from pal.data.spilled import RecentTexts
from pal.data.strategies import ESCONV, StrategySet

Turn = Mapping[str, Any]
Notes = tuple[str, ...]

NOTE = "[persona: {}]"


@dataclass(frozen=True)
class ChatFormat:
    """What stands around the turns of a dialogue.

    Attributes:
        head: before the first turn.
        user: before a seeker's turn.
        user_end: behind it.
        assistant: before a supporter's turn.
        assistant_end: behind it; it begins with the token that ends a response.
    """

    head: str
    user: str
    user_end: str
    assistant: str
    assistant_end: str

    @classmethod
    def of(cls, tokenizer: Any, template: str, where: str) -> "ChatFormat":
        """Return the format of a tokenizer's chat template, or the plain one.

        Args:
            tokenizer: of the base.
            template: ``chat`` or ``plain``.
            where: the setting that named the base, for messages.

        Raises:
            ConfigError: an unknown template, or a base whose turns cannot be told apart.
        """
        if template == "plain":
            end = tokenizer.eos_token
            if not end:
                raise CheckpointError(f"{where}: its tokenizer has no end token; give another base")
            return cls("", "user: ", "\n", "supporter:", f"{end}\n")
        if template != "chat":
            raise ConfigError(
                f"architecture.template={template}: decoder-only models are written as chat or "
                "plain; leave it out for the base's own chat template"
            )
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                f"{where}: its tokenizer has no chat template; give architecture.template=plain, "
                "or a base that was tuned to chat"
            )
        words = ("first", "second", "third", "fourth", "fifth", "sixth")
        said = [f"\u0001{word}\u0001" for word in words]
        messages = [
            {"role": ("user", "assistant")[index % 2], "content": text}
            for index, text in enumerate(said)
        ]
        try:
            whole = tokenizer.apply_chat_template(messages, tokenize=False)
            # What stands before the last answer is not looked at: some templates let it think.
            before, answered, asked, answered_again, asked_again, _, end = _split(whole, said)
            if (answered, asked) != (answered_again, asked_again):
                raise ValueError("turns of one speaker are written in different ways")
        except Exception as error:  # a template is a program, which may raise anything
            raise ConfigError(
                f"{where}: its chat template is not a sequence of turns ({error}); give "
                "architecture.template=plain"
            ) from error
        # What ends a turn and what begins the next stand together between two turns.
        user = asked.removeprefix(end)
        closed = answered.startswith(end)
        return cls(
            head=before.removesuffix(user),
            user=user,
            user_end=end if closed else answered,
            assistant=answered[len(end) :] if closed else "",
            assistant_end=end.lstrip(),  # the token itself ends a response, no space before it
        )


def _split(whole: str, said: Sequence[str]) -> list[str]:
    """Return what stands before, between and behind some texts."""
    parts = []
    for text in said:
        part, found, whole = whole.partition(text)
        if not found:
            raise ValueError("it leaves out a turn")
        parts.append(part)
    return [*parts, whole]


class ChatEncoder:
    """Turns dialogues into token ids; every distinct text is tokenised once.

    Args:
        tokenizer: of the model, as it is: strategies are plain text.
        form: what stands around turns.
        persona: whether notes are written at all.
        max_context_tokens: tokens of a dialogue, at most; whole turns are dropped from the left,
            and of a note longer than half of that the oldest sentences.
        max_target_tokens: tokens of a response in training, strategy and end token not counted.
        strategies: the strategy set.

    Raises:
        CheckpointError: the tokenizer writes strategies with indistinguishable tokens, or
            a response has no end.
    """

    def __init__(
        self,
        tokenizer: Any,
        form: ChatFormat,
        *,
        persona: bool,
        max_context_tokens: int,
        max_target_tokens: int,
        strategies: StrategySet = ESCONV,
    ):
        self.tokenizer, self.form, self.persona = tokenizer, form, persona
        self.max_context_tokens = max_context_tokens
        self.max_target_tokens = max_target_tokens
        self._ids: RecentTexts[tuple[str, bool]] = RecentTexts()
        self.strategy_ids = [self.text(strategies.token(name)) for name in strategies.names]
        self.strategies = strategies
        check_strategy_texts(self.strategy_ids, tokenizer)
        ends = self.marks(form.assistant_end)
        self.special = special_ids_of(tokenizer)
        self.end = ends[0] if ends and ends[0] in self.special else -1
        if self.end < 0:
            raise CheckpointError(
                "the chat template ends a response with plain text; give "
                "architecture.template=plain"
            )

    # -- pieces

    def text(self, text: str) -> list[int]:
        """Return the ids of what somebody wrote; what reads like a special token is text in it."""
        return self._tokenise(text, True)

    def marks(self, text: str) -> list[int]:
        """Return the ids of what stands around turns, special tokens included."""
        return self._tokenise(text, False)

    def _tokenise(self, text: str, plain: bool) -> list[int]:
        key = (text, plain)
        if key not in self._ids:
            self._ids[key] = self.tokenizer(
                text, add_special_tokens=False, split_special_tokens=plain
            ).input_ids
        return self._ids[key]

    def note(self, sentences: Iterable[str]) -> list[int]:
        """Return the ids of a note on the seeker; the newest where it is longer than it may be."""
        kept, room = list(sentences), self.max_context_tokens // 2
        ids = self._note(kept)
        while len(ids) > room and len(kept) > 1:
            kept = kept[1:]
            ids = self._note(kept)
        return ids[:room]

    def _note(self, sentences: Sequence[str]) -> list[int]:
        return self.text(NOTE.format("; ".join(s.strip().rstrip(".") for s in sentences)))

    def turn(self, turn: Turn, new: Notes) -> list[int]:
        """Return the ids of a turn and of what it made known."""
        form = self.form
        if turn["speaker"] == "seeker":
            note = self.text("\n") + self.note(new) if new else []
            return [
                *self.marks(form.user), *self.text(turn["text"]), *note,
                *self.marks(form.user_end),
            ]  # fmt: skip
        said = [*self.marks(form.assistant), *self.target(turn.get("strategy"), turn["text"])]
        said += self.marks(form.assistant_end)[1:]
        return said + (self.aside(new) if new else [])

    def aside(self, sentences: Notes) -> list[int]:
        """Return the ids of a note where no seeker's turn holds it."""
        return [
            *self.marks(self.form.user), *self.note(sentences), *self.marks(self.form.user_end)
        ]  # fmt: skip

    def target(self, strategy: str | None, text: str) -> list[int]:
        """Return strategy text, words and end token of a supporter's turn."""
        head = self.strategy_ids[self.strategies.id(strategy)] if strategy else []
        return [*head, *self.words(text), self.end]

    def words(self, text: str) -> list[int]:
        """Return the ids of a response behind its strategy."""
        return self.text(f" {text}")

    # -- samples

    def encode(self, sample: Sample) -> dict[str, list[int]]:
        """Return the prompt of a sample: ``input_ids`` with notes, ``plain_input_ids`` without.

        Both end where the strategy is to come. Notes on what is known before the first turn, as
        from a card, stand before it.
        """
        inputs = {"input_ids": self.context(sample.context, sample.persona)}
        inputs["plain_input_ids"] = (
            self.context(sample.context, ()) if self.persona and sample.persona
            else inputs["input_ids"]
        )  # fmt: skip
        return inputs

    def context(self, turns: Sequence[Turn], known: Sequence[str]) -> list[int]:
        """Return a dialogue so far, cut from the left by whole turns, its notes kept."""
        first_notes, new = self.new_notes(turns, known)
        pieces = [self.turn(turn, notes) for turn, notes in zip(turns, new, strict=True)]
        head, prompt = self.marks(self.form.head), self.marks(self.form.assistant)
        room = self.max_context_tokens - len(head) - len(prompt)
        first, dropped = 0, list(first_notes)
        while True:
            aside = self.aside(tuple(dropped)) if dropped else []
            size = len(aside) + sum(map(len, pieces[first:]))
            if size <= room or first >= len(pieces) - 1:
                break
            dropped += new[first]
            first += 1
        body = [token for piece in pieces[first:] for token in piece]
        if len(aside) + len(body) > room:  # one turn longer than the model reads
            body = body[-max(room - len(aside), 1) :]
        return [*head, *aside, *body, *prompt]

    def new_notes(
        self, turns: Sequence[Turn], known: Sequence[str] | None = None
    ) -> tuple[Notes, list[Notes]]:
        """Return what is known before the first turn, and what each turn adds.

        Args:
            turns: with the ``persona`` known after each, where that was inferred, or a ``card``'s.
            known: what is known at the end; what no turn tells of counts as known from the start.
        """
        nothing: tuple[Notes, list[Notes]] = (), [() for _ in turns]
        if not self.persona or (known is not None and not known):
            return nothing
        seen: dict[str, None] = {}
        new: list[Notes] = []
        for turn in turns:
            if turn.get("card"):  # known before anything was said
                new.append(())
                continue
            fresh = [s for s in turn.get("persona") or () if s not in seen]
            seen.update(dict.fromkeys(fresh))
            new.append(tuple(fresh))
        if turns and new[0] and turns[0]["speaker"] != "seeker":  # no turn of theirs told it
            start, new[0] = list(new[0]), ()
        else:
            start = []
        cards = [s for turn in turns[:1] if turn.get("card") for s in turn["persona"]]
        start += [s for s in known or cards if s not in seen]
        return tuple(start), new

    def decode(self, ids: Sequence[int]) -> str:
        """Return generated ids as text."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    # -- training

    def windows(self, turns: Sequence[Turn], *, persona: bool = True) -> list[dict[str, list[int]]]:
        """Return a dialogue as training sequences, ``input_ids`` and ``labels``.

        A dialogue that fits is one sequence. A longer one is several, each beginning at a whole
        turn with what was known before as a note; every supporter turn but a dialogue's first turn
        is a target once.

        Args:
            turns: of the dialogue, with the persona known after each.
            persona: False leaves all notes out.
        """
        start_notes, new = self.new_notes(turns)
        if not persona:
            start_notes, new = (), [() for _ in turns]
        pieces = [self.turn(turn, notes) for turn, notes in zip(turns, new, strict=True)]
        head = self.marks(self.form.head)
        found, first, done = [], 0, 0
        while done < len(turns):
            known = [*start_notes, *(s for notes in new[:first] for s in notes)]
            ids = [*head, *(self.aside(tuple(known)) if known else [])]
            labels = [-100] * len(ids)
            index = first
            while index < len(turns):
                piece = pieces[index]
                if index > first and len(ids) + len(piece) > self.max_context_tokens:
                    break
                labels += self._labels(turns[index], piece, index if index >= done else 0)
                ids += piece
                index += 1
            if index <= done and first < done:  # what comes before leaves no room for what is new
                first = done
                continue
            limit = self.max_context_tokens
            labels[0] = -100  # nothing stands before it
            if any(label != -100 for label in labels[:limit]):
                found.append({"input_ids": ids[:limit], "labels": labels[:limit]})
            done = max(index, done + 1)
            # The next begins where half of a sequence lies before what is new in it.
            size, first = 0, done
            while first > 0 and size + len(pieces[first - 1]) <= self.max_context_tokens // 2:
                first -= 1
                size += len(pieces[first])
        return found

    def _labels(self, turn: Turn, piece: list[int], index: int) -> list[int]:
        """Return the labels of a turn: strategy, words and end token where it is a target."""
        labels = [-100] * len(piece)
        if index and turn["speaker"] == "supporter" and not turn.get(LEFT_OUT):
            begin = len(self.marks(self.form.assistant))
            target = self.target(turn.get("strategy"), turn["text"])
            kept = target[: self.max_target_tokens + 1]
            labels[begin : begin + len(kept)] = kept
        return labels


def special_ids_of(tokenizer: Any) -> list[int]:
    """Return the ids that no text is written with: named special tokens, and other marks."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return sorted({*tokenizer.all_special_ids, *(i for i, t in added.items() if t.special)})


def check_strategy_texts(texts: Sequence[Sequence[int]], tokenizer: Any) -> None:
    """Make sure that the texts of strategies can be told apart.

    Raises:
        CheckpointError: a text is empty or unknown to the tokenizer, or begins another one.
    """
    unknown = tokenizer.unk_token_id
    special = set(tokenizer.all_special_ids)
    for text in texts:
        lost = not text or (unknown is not None and unknown in text and unknown in special)
        twins = [other for other in texts if list(other[: len(text)]) == list(text)]
        if lost or len(twins) > 1:
            raise CheckpointError(
                "the tokenizer writes the strategies, [Question] and the others, with tokens that "
                "cannot be told apart; give a base whose tokenizer knows plain English text"
            )
