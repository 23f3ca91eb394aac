"""Playing dialogues: turn by turn, all dialogues side by side, every turn kept as it comes.

A turn is a function of the models, the card, the turns before it, settings and seed, so the number
of dialogues, their order and interruptions change nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pal.conversation.session import Ask, Session
from pal.core.journal import Journal
from pal.data.texts import normalise_text
from pal.llm.base import LanguageModel, Request
from pal.llm.prompts import Prompt, load_prompt
from pal.simulation.settings import SimulationSettings
from pal.supporter.replies import (
    Situation,
    ask_supporter,
    refuse_unanswered,
    seed_of,
    transcribe,
)
from pal.supporter.settings import SupporterSettings
from pal.traits.readers import persona_text
from pal.traits.synthesis import card_sentences

SAID = {
    "type": "object",
    "properties": {"message": {"type": "string"}, "finished": {"type": "boolean"}},
    "required": ["message", "finished"],
    "additionalProperties": False,
}

Made = dict[str, Any]  # one turn, as the journal keeps it


@dataclass
class PlayedTalk:
    """A dialogue on its way.

    Attributes:
        id: unique name of the dialogue.
        card: the card of its seeker.
        turns: the turns so far.
        ended: whether no turn follows.
        failed: why it could not be played to its end.
    """

    id: str
    card: Mapping[str, Any]
    turns: list[Made] = field(default_factory=list)
    ended: bool = False
    failed: str | None = None

    @property
    def pinned(self) -> int:
        """Level that help is on view for, from the guard's last verdict."""
        return next((turn["pinned"] for turn in reversed(self.turns) if "pinned" in turn), 0)

    def take(self, turn: Made) -> None:
        """Add a turn."""
        if turn.get("failed"):
            self.failed = turn["failed"]
            return
        self.turns.append(turn)
        if turn["speaker"] == "supporter" and self.turns[-2].get("finished"):
            self.ended = True


class Speaker(Protocol):
    """A seeker or a supporter.

    Attributes:
        rows: how many dialogues it answers at once; None for all.
    """

    rows: int | None

    def say(self, talks: Sequence[PlayedTalk]) -> list[Made]:
        """Return the next turn of every dialogue."""
        ...


def load_seeker_prompt() -> Prompt:
    """Return the prompt of a seeker's turn."""
    return load_prompt(Path(__file__).parent / "prompts", "seeker")


class CardSeeker:
    """A language model that plays the person of a card.

    Args:
        model: the language model.
        how: temperature, length, traits, and when it may end the talk.
        seed: key of the server's sampling.
    """

    rows = None

    def __init__(self, model: LanguageModel, how: SimulationSettings, seed: int):
        self.model, self.how, self.seed = model, how, seed
        self.prompt = load_seeker_prompt()

    def say(self, talks: Sequence[PlayedTalk]) -> list[Made]:
        """Return the seeker's next turn of every dialogue.

        Raises:
            PalError: a request brought no answer for a passing reason.
        """
        requests = [
            Request(
                id=one.id, schema=SAID, schema_name="said", max_tokens=self.how.max_tokens,
                temperature=self.how.temperature,
                seed=seed_of(self.seed, "seeker", one.id, str(len(one.turns)))
                if self.how.temperature else None,
                messages=self.prompt.fill(
                    description=persona_text(one.card, use_traits=self.how.use_traits),
                    problem=one.card.get("problem"), dialogue=transcribe(one.turns),
                ),
            )
            for one in talks
        ]  # fmt: skip
        outcomes = self.model.ask(requests, description="seeker", check=_check)
        refuse_unanswered(outcomes, "seeker")
        made: list[Made] = []
        for talk, outcome in zip(talks, outcomes, strict=True):
            if outcome.reason:
                made.append({"failed": f"seeker: {outcome.reason}"})
                continue
            free = len(talk.turns) // 2 + 1 >= self.how.least
            text = normalise_text(outcome.value["message"])
            ends = {"finished": True} if free and outcome.value["finished"] else {}
            made.append({"speaker": "seeker", "text": text, **ends})
        return made


def _check(request: Request, value: Any) -> str | None:
    return None if normalise_text(value["message"]) else "the message is empty"


class AskedSupporter:
    """A language model as supporter.

    Args:
        model: the language model.
        how: persona, strategy, temperature and length.
        seed: key of the server's sampling.
    """

    rows = None

    def __init__(self, model: LanguageModel, how: SupporterSettings, seed: int):
        self.model, self.how, self.seed = model, how, seed

    def say(self, talks: Sequence[PlayedTalk]) -> list[Made]:
        """Return the supporter's next turn of every dialogue.

        Raises:
            PalError: a request brought no answer for a passing reason.
        """
        known = [card_sentences(one.card) if self.how.persona else [] for one in talks]
        situations = [
            Situation(f"{one.id}/{len(one.turns)}", one.turns, persona)
            for one, persona in zip(talks, known, strict=True)
        ]
        replies = ask_supporter(self.model, situations, self.how, seed=self.seed)
        return [
            {"failed": f"supporter: {reply.failed}"} if reply.failed else {
                "speaker": "supporter", "text": reply.text, "strategy": reply.strategy,
                "persona": persona,
            }
            for reply, persona in zip(replies, known, strict=True)
        ]  # fmt: skip


class TrainedSupporter:
    """A trained model behind its guard.

    Args:
        session: the session; it has a guard.
        told: whether the model is told the card's description.
        seed: key of the noise.
    """

    def __init__(self, session: Session, told: bool, seed: int):
        self.session, self.told, self.seed = session, told, seed
        self.rows: int | None = session.rows

    def say(self, talks: Sequence[PlayedTalk]) -> list[Made]:
        """Return the supporter's next turn of every dialogue, help and fixed texts included."""
        asks = [
            Ask(
                [{"role": turn["speaker"], "content": turn["text"],
                  "strategy": turn.get("strategy")} for turn in one.turns],
                persona=card_sentences(one.card) if self.told else None,
                seed=self.seed, id=one.id, pinned=one.pinned,
            )
            for one in talks
        ]  # fmt: skip
        made: list[Made] = []
        for reply in self.session.answer_all(asks):
            turn: Made = {
                "speaker": "supporter", "text": normalise_text(reply.text),
                # A text of the guard is support that fits none of the other seven.
                "strategy": reply.strategy or "Others", "persona": list(reply.persona),
            }  # fmt: skip
            if reply.guard.level or reply.guard.pinned or reply.finish == "guard":
                turn["guard"] = reply.guard.level
                turn["pinned"] = reply.guard.pinned
            if reply.finish == "guard":
                turn["by"] = "guard"
            made.append(turn if turn["text"] else {"failed": "supporter: an empty reply"})
        return made


def play_talks(
    talks: Sequence[PlayedTalk],
    seeker: Speaker,
    supporter: Speaker,
    *,
    exchanges: int,
    journal: Journal,
    done: Mapping[str, Made],
    progress: Callable[[int], Any] = lambda count: None,
) -> None:
    """Play dialogues to their end, exchange by exchange; turns in the journal are not played again.

    Args:
        talks: the dialogues, which get their turns.
        seeker: speaks first.
        supporter: answers.
        exchanges: maximum number of exchanges.
        journal: where each turn goes as it comes.
        done: what the journal holds.
        progress: called with the number of turns that came.

    Raises:
        PalError: a speaker cannot be used.
    """
    for number in range(2 * exchanges):
        speaker = supporter if number % 2 else seeker
        open_ones = [one for one in talks if not one.ended and one.failed is None]
        missing = [one for one in open_ones if f"{one.id}/{number}" not in done]
        for one in open_ones:
            kept = done.get(f"{one.id}/{number}")
            if kept is not None:
                one.take(dict(kept))
        rows = speaker.rows or max(len(missing), 1)
        for start in range(0, len(missing), rows):
            batch = missing[start : start + rows]
            for one, turn in zip(batch, speaker.say(batch), strict=True):
                journal.append(f"{one.id}/{number}", turn)
                one.take(turn)
            progress(len(batch))


def talk_record(talk: PlayedTalk, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a played dialogue in ESConv's form.

    ``persona`` of a seeker's turn is what the supporter knew when it answered that turn.

    Args:
        talk: the dialogue.
        names: what ``model`` (the supporter) and ``seeker`` are.
    """
    head = {
        "id": talk.id, "card": str(talk.card["id"]), "dataset": talk.card["dataset"], **names,
    }  # fmt: skip
    if talk.failed is not None:
        return {**head, "failed": talk.failed}
    dialog = []
    for turn, answer in zip(talk.turns[::2], talk.turns[1::2], strict=True):
        dialog.append({"speaker": "seeker", "text": turn["text"], "persona": answer["persona"]})
        shown = {k: answer[k] for k in ("strategy", "by", "guard") if answer.get(k) is not None}
        dialog.append({"speaker": "supporter", "text": answer["text"], **shown})
    problem = talk.card.get("problem")
    return {
        **head, **({"situation": problem} if problem else {}), "dialog": dialog,
        "ended_by": "seeker" if talk.ended else "limit",
    }  # fmt: skip
