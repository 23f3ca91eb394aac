"""The guard: what detectors find in a conversation, and what a talking face does about it.

It fails closed. A detector that raises, takes too long or returns nonsense leaves the status
``unavailable``: help is shown and no reply is generated. No text, no vector and no hash of either
is logged or kept on disk.
"""

import hashlib
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from pal.core.errors import ConfigError, PalError, first_line
from pal.guard.helplines import Country, load_helplines
from pal.guard.language import OTHER_LANGUAGE, LanguageDetector
from pal.guard.levels import (
    CONCERN,
    CRISIS,
    EMERGENCY,
    NONE,
    Action,
    Assessment,
    Detection,
    Detector,
    Status,
    Verdict,
)
from pal.guard.lexicon import load_lexicon
from pal.guard.normalise import has_surrogate
from pal.guard.replies import ReplyCheck
from pal.guard.settings import GuardSettings
from pal.guard.texts import GuardTexts, load_texts

logger = logging.getLogger(__name__)

# Number of the seeker's last turns that an assessment reads, each and joined.
WINDOW = 4

# Number of turns that help for a concern stays on view after it.
CONCERN_TURNS = 3

# Number of a history's last turns that detectors read which are not quick.
SLOW_TURNS = 32

# A longer turn is not read at all, so it counts as unreadable.
MAX_CHARACTERS = 20_000

# What earlier turns gave is kept in memory under keyed digests, this many at most.
REMEMBERED = 4096

# A detector is asked in parts, so that a call that is given up ends after the part it is at.
PART_TEXTS, PART_CHARACTERS = 32, 20_000

# Number of calls of one detector that may hang before it counts as failed for everybody.
MOST_STUCK = 4

THIRD_PARTY = "third_party"

# Kind of a yes to the help's own question.
ADMITTED = "ideation_active"


class Guard:
    """Assesses conversations and says what to do.

    Args:
        detectors: at least one. The highest level that any finds counts.
        texts: the fixed texts.
        country: helplines of one country, or of none.
        timeout: seconds that detectors may take for one call.

    Attributes:
        helps: all lines of help that verdicts can have.

    Example:
        >>> guard = load_guard(GuardSettings(country="GB"))
        >>> guard.review(["I want to kill myself."]).action
        'fixed'
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        *,
        texts: GuardTexts,
        country: Country,
        timeout: float = 5.0,
    ):
        if not detectors:
            raise ConfigError("a guard needs at least one detector")
        self._detectors = list(detectors)
        self._texts = texts
        self._country = country
        self._timeout = timeout
        self._check = ReplyCheck(country)
        self._says_yes = load_lexicon().says_yes
        self.helps = frozenset(
            texts.help_lines(country, kinds, helpers=helpers, asked=asked)
            for kinds in ((), (OTHER_LANGUAGE,))
            for helpers in (False, True)
            for asked in (False, True)
        )
        self._stuck: dict[str, list[tuple[threading.Thread, bytes]]] = {}
        self._lock = threading.Lock()
        self._memory = _Memory(REMEMBERED)
        versions = [f"{detector.name}-{detector.version}" for detector in self._detectors]
        whole = "/".join([*versions, texts.version, country.version, self._check.version])
        self._version = hashlib.sha256(whole.encode()).hexdigest()[:12]

    @property
    def off(self) -> bool:
        """Whether nothing is assessed."""
        return False

    @property
    def standing_help(self) -> str | None:
        """Help that a face can keep on view whatever is said: it asks nothing."""
        return self._texts.standing_lines(self._country)

    @property
    def first_help(self) -> tuple[str, ...]:
        """The lines of all help that a face with little room keeps on view: whom to turn to."""
        return self._texts.first_lines(self._country)

    def describe(self) -> dict[str, Any]:
        """Return what runs: for a health page and the API."""
        return {
            "version": self._version,
            "off": self.off,
            "detectors": [
                {"name": detector.name, "version": detector.version} for detector in self._detectors
            ],
            "country": self._country.code,
            "language": self._texts.language,
        }

    def assess(self, turns: Sequence[str], situation: str | None = None) -> Assessment:
        """Return the state of a conversation after its last turn.

        The seeker's last four turns and the situation are read, each and joined. It never raises
        and never takes longer than the timeout.

        Args:
            turns: what the seeker said, oldest first.
            situation: what the seeker wrote of their situation before.
        """
        return self.assess_many([(turns, situation)])[0]

    def assess_many(self, items: Sequence[tuple[Sequence[str], str | None]]) -> list[Assessment]:
        """Return the assessment of each (turns, situation), in one batch; see :meth:`assess`."""
        try:
            spans = [_Span.of(turns, situation) for turns, situation in items]
            texts = [text for span in spans for text in span.texts]
            found = self._run(texts, timeout=self._timeout * max(1, len(items)))
            return [self._assess(span, found) for span in spans]
        except Exception as error:
            self._report("the guard", error)
            return [self._unavailable() for _ in items]

    def review(
        self, seeker_turns: Sequence[str], situation: str | None = None, pinned: int = 0
    ) -> Verdict:
        """Return what to do with the last turn of a conversation.

        The whole history is read each time, so a face that holds no state is served rightly. Help
        for a crisis stays on view for the rest of the conversation, for a concern for three turns.
        A yes to the help, which asks about suicide, is a crisis.

        Args:
            seeker_turns: all that the seeker said, oldest first.
            situation: what the seeker wrote of their situation before.
            pinned: level that help was on view for before these turns, as in an earlier chat of
                the same session.
        """
        try:
            return self._review(seeker_turns, situation, pinned)
        except Exception as error:
            self._report("the guard", error)
            return self._verdict(NONE, NONE, pinned or CONCERN, "unavailable", frozenset(), 0)

    def check_reply(self, reply: str, verdict: Verdict) -> str | None:
        """Return None if a generated reply may be shown, else the text to show in its place.

        A reply is dropped that agrees with the wish to die, asks for or names means, speaks of its
        own wish to die, or carries a phone number or link that is not among the helplines.
        """
        if self.off:
            return None
        try:
            readable = len(reply) <= MAX_CHARACTERS and not has_surrogate(reply)
            if readable and not self._check.is_harmful(reply, verdict):
                return None
        except Exception as error:
            self._report("the check of replies", error)
        return self._texts.replaced_with_help if verdict.pinned else self._texts.replaced

    def levels(self, seeker_turns: Sequence[str]) -> list[int]:
        """Return the level that each turn of a conversation adds, read after those before it.

        Raises:
            PalError: a detector failed.
        """
        ends = range(1, len(seeker_turns) + 1)
        spans = [_Span.of(seeker_turns[max(0, end - WINDOW) : end], None) for end in ends]
        texts = [text for span in spans for text in span.texts]
        found = self._run(texts, timeout=self._timeout * max(1, len(spans)))
        if not found.complete:
            raise PalError("the guard could not read a conversation: a detector failed")
        return [found.of_last(span) for span in spans]

    # How a conversation is read

    def _assess(self, span: "_Span", found: "_Found") -> Assessment:
        level, kinds, names = found.of_span(span)
        return Assessment(
            level=level,
            categories=tuple(sorted(kinds)),
            detectors=tuple(sorted(names)),
            status="ok" if found.complete and span.readable else "unavailable",
            guard_version=self._version,
        )

    def _unavailable(self) -> Assessment:
        return Assessment(NONE, (), (), "unavailable", self._version)

    def _review(self, turns: Sequence[str], situation: str | None, pinned: int) -> Verdict:
        turns = [turns] if isinstance(turns, str) else list(turns)
        told = turns if situation is None else [situation, *turns]
        spans = [
            _Span.of(told[max(0, end - WINDOW) : end], None) for end in range(1, len(told) + 1)
        ]
        now = _Span.of(turns, situation)
        recent = {text for span in [now, *spans[-SLOW_TURNS:]] for text in span.texts}
        texts = list(dict.fromkeys(text for span in [now, *spans] for text in span.texts))
        found = self._run(texts, slow=recent, fresh=set(now.texts))
        pins, asking = _Pins(pinned), _Pins(NONE)
        levels: list[int] = []
        admitted: int | None = None
        fixed = 0
        for place, span in enumerate(spans):
            level = found.of_last(span)
            is_turn = situation is None or place > 0
            # The help for a concern asks about suicide, and so does the first text for a crisis.
            if place > (situation is not None) and (
                fixed == 1 or (asking.level == CONCERN and fixed == 0)
            ):
                earlier, before, _ = found.of_span(spans[place - 1])
                asked = earlier < EMERGENCY and not before & {THIRD_PARTY, OTHER_LANGUAGE}
                if asked and self._says_yes(span.turns[-1]):
                    level, admitted = max(level, CRISIS), place
            levels.append(level)
            pins.add(level, is_turn)
            asking.add(level, is_turn)
            from_the_start = situation is not None and levels[0] >= CRISIS
            is_fixed = is_turn and (from_the_start or max(levels[-WINDOW:]) >= CRISIS)
            fixed = fixed + 1 if is_fixed else 0
        around, kinds, _ = found.of_span(now)
        if admitted is not None and admitted >= len(spans) - WINDOW:
            around, kinds = max(around, CRISIS), kinds | {ADMITTED}
        level = levels[-1] if levels else NONE
        status: Status = "ok" if found.complete and now.readable else "unavailable"
        return self._verdict(level, around, pins.level, status, kinds, max(0, fixed - 1))

    def _verdict(
        self, level: int, around: int, pinned: int, status: Status, kinds: frozenset[str], nth: int
    ) -> Verdict:
        """Return the verdict on a turn.

        Args:
            level: level of the turn itself.
            around: level of the last turns together.
            pinned: level that help is on view for.
            status: status.
            kinds: what was found in the last turns.
            nth: number of fixed replies just before this one.
        """
        helpers = _for_helpers(kinds)
        action: Action = "reply_with_help" if pinned else "reply"
        text = None
        if around >= CRISIS:
            action = "fixed"
            text = self._texts.fixed(around, helpers=helpers, nth=nth, country=self._country)
        elif status == "unavailable":
            action, text = "help_only", self._texts.unavailable
        elif helpers and level:
            action = "fixed"
            text = self._texts.fixed(around, helpers=True, nth=nth, country=self._country)
        helps = None
        if action != "reply":
            helps = self._texts.help_lines(
                self._country, kinds, helpers=helpers, asked=text is not None
            )
        return Verdict(level, pinned, status, action, text, helps, tuple(sorted(kinds)))

    # How detectors are run

    def _run(
        self,
        texts: Sequence[str],
        *,
        slow: set[str] | None = None,
        fresh: set[str] | None = None,
        timeout: float | None = None,
    ) -> "_Found":
        """Return what every detector finds in every text.

        Args:
            texts: the texts.
            slow: those that detectors read which are not quick; all if None.
            fresh: those that are read even if their findings are remembered; all if None.
            timeout: seconds for all detectors together.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        found = _Found()
        for detector in self._detectors:
            wanted = list(dict.fromkeys(texts))
            if slow is not None and not detector.quick:
                wanted = [text for text in wanted if text in slow]
            known: dict[str, Detection] = {}
            if fresh is not None:
                for text in wanted:
                    if text not in fresh:
                        before = self._memory.get(detector.name, text)
                        if before is not None:
                            known[text] = before
            new = [text for text in wanted if text not in known]
            results = self._ask(detector, new, deadline) if new else []
            if results is None:
                found.complete = False
                results = []
            else:
                for text, result in zip(new, results, strict=True):
                    self._memory.put(detector.name, text, result)
            found.add(detector.name, known)
            found.add(detector.name, dict(zip(new, results, strict=False)))
        return found

    def _ask(
        self, detector: Detector, texts: Sequence[str], deadline: float
    ) -> list[Detection] | None:
        """Return a detector's findings, or None if it fails, in a thread that may hang.

        A call that hangs is its own: others are read meanwhile. The same texts are not tried again
        as long as it hangs, and a detector that hangs on many gets no more of them.
        """
        with self._lock:
            stuck = [one for one in self._stuck.get(detector.name, ()) if one[0].is_alive()]
            self._stuck[detector.name] = stuck
        key = self._memory.digest(detector.name, "\0".join(texts))
        if len(stuck) >= MOST_STUCK or any(key == other for _, other in stuck):
            return None
        answer: list[Any] = []
        given_up = threading.Event()

        def work() -> None:
            try:
                found: list[Any] = []
                for part in _parts(texts):
                    if given_up.is_set():
                        return
                    results = list(detector.detect(part))
                    found += results if len(results) == len(part) else [None]
                answer.append(found)
            except BaseException as error:  # a thread's own report would show the text
                answer.append(error)

        thread = threading.Thread(target=work, name=f"guard {detector.name}", daemon=True)
        thread.start()
        thread.join(max(0.0, deadline - time.monotonic()))
        if not answer:
            given_up.set()
            with self._lock:
                self._stuck[detector.name] = [*self._stuck[detector.name], (thread, key)]
            logger.error("guard: detector %s took too long; help is shown instead", detector.name)
            return None
        results = answer[0]
        if isinstance(results, BaseException):
            self._report(f"detector {detector.name}", results)
            return None
        if len(results) != len(texts) or not all(map(_is_sound, results)):
            logger.error("guard: detector %s returned an invalid result", detector.name)
            return None
        return results

    def _report(self, what: str, error: BaseException) -> None:
        """Log a failure by its kind alone: messages and tracebacks can hold the text."""
        logger.error("guard: %s failed (%s); help is shown instead", what, type(error).__name__)


class NoGuard(Guard):
    """What takes the guard's place where the user turned it off: it assesses nothing."""

    def __init__(self) -> None:
        self._version = "off"
        self.helps = frozenset()

    @property
    def off(self) -> bool:
        """Whether nothing is assessed."""
        return True

    @property
    def standing_help(self) -> str | None:
        """None."""
        return None

    @property
    def first_help(self) -> tuple[str, ...]:
        """None."""
        return ()

    def describe(self) -> dict[str, Any]:
        """Return that nothing runs."""
        return {"version": "off", "off": True, "detectors": [], "country": None, "language": None}

    def assess_many(self, items: Sequence[tuple[Sequence[str], str | None]]) -> list[Assessment]:
        """Return assessments that say that there is none."""
        return [Assessment(NONE, (), (), "off", self._version) for _ in items]

    def review(
        self, seeker_turns: Sequence[str], situation: str | None = None, pinned: int = 0
    ) -> Verdict:
        """Return the verdict to reply."""
        return Verdict(NONE, NONE, "off", "reply", None, None, ())


def load_guard(settings: GuardSettings, *, shows_help: bool = True) -> Guard:
    """Load the guard of the settings.

    Args:
        settings: the settings.
        shows_help: whether people are shown its help, so that a notice says what is missing.

    Raises:
        PalError: anything it needs is missing or cannot be used; without its guard a face does not
            start.
    """
    if settings.off:
        logger.warning(
            "THE GUARD IS OFF (guard.off=true): nothing checks for signs of suicide or self-harm, "
            "and no help is shown"
        )
        return NoGuard()
    detectors: list[Detector] = [load_lexicon(), LanguageDetector()]
    if settings.model is not None:
        from pal.guard.models import load_detector

        detectors.append(load_detector(settings.model, settings.labels, settings.threshold))
    elif settings.labels or settings.threshold is not None:
        raise ConfigError(
            "guard.labels and guard.threshold are for guard.model, which is not given"
        )
    guard = Guard(
        detectors,
        texts=load_texts(settings.texts),
        country=load_helplines(settings.helplines).country(settings.country, tell=shows_help),
        timeout=settings.timeout,
    )
    for detector in detectors:
        try:  # a model that cannot run is found now, not at the first turn
            results = list(detector.detect(["How are you today?", ""]))
        except PalError:
            raise
        except Exception as error:
            raise ConfigError(
                f"guard: detector {detector.name} cannot run ({first_line(error):.200})"
            ) from None
        if len(results) != 2 or not all(map(_is_sound, results)):
            raise ConfigError(f"guard: detector {detector.name} returns no valid findings")
    return guard


def _for_helpers(kinds: frozenset[str]) -> bool:
    """Whether all that was found is that somebody else is at risk."""
    return THIRD_PARTY in kinds and kinds <= {THIRD_PARTY, OTHER_LANGUAGE}


def _is_sound(result: Any) -> bool:
    return isinstance(result, Detection) and all(
        isinstance(level, int) and not isinstance(level, bool) and NONE <= level <= EMERGENCY
        for level in (result.level, result.hinted_level)
    )


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield texts in parts of so many texts or characters, at most; a long text is one."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and (len(part) == PART_TEXTS or size + len(text) > PART_CHARACTERS):
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part


class _Span:
    """The texts that an assessment reads: the last turns and the situation, each and joined."""

    def __init__(self, turns: list[str], situation: str | None, joined: str | None, readable: bool):
        self.turns = turns
        self.situation = situation
        self.joined = joined
        self.readable = readable
        self.singles = [*turns, *([] if situation is None else [situation])]
        self.texts = [*self.singles, *([] if joined is None else [joined])]

    @classmethod
    def of(cls, turns: Sequence[str], situation: str | None) -> "_Span":
        """Return the span of a conversation's last turn; what cannot be read is cut down."""
        given = [turns] if isinstance(turns, str) else list(turns)[-WINDOW:]
        clean, readable = [], True
        for text in given if situation is None else [*given, situation]:
            fine = isinstance(text, str) and len(text) <= MAX_CHARACTERS and not has_surrogate(text)
            readable = readable and fine
            if not isinstance(text, str):
                text = ""
            clean.append(text if fine else _readable_part(text))
        told = None if situation is None else clean.pop()
        joined = " ".join(clean) if len(clean) > 1 else None
        return cls(clean, told, joined, readable)


def _readable_part(text: str) -> str:
    """Return the letters of a text that can be read, from its beginning and its end."""
    half = MAX_CHARACTERS // 4
    text = text if len(text) <= 2 * half else text[:half] + "\n" + text[-half:]
    return "".join(letter for letter in text if not "\ud800" <= letter <= "\udfff")


class _Found:
    """What detectors found, by text."""

    def __init__(self) -> None:
        self.complete = True
        self._by_text: dict[str, list[tuple[str, Detection]]] = {}

    def add(self, name: str, results: dict[str, Detection]) -> None:
        """Add one detector's findings."""
        for text, result in results.items():
            self._by_text.setdefault(text, []).append((name, result))

    def level(self, text: str) -> int:
        """Return the level of a text by itself."""
        return max((found.level for _, found in self._by_text.get(text, ())), default=NONE)

    def of_span(self, span: _Span) -> tuple[int, frozenset[str], frozenset[str]]:
        """Return level, kinds and detectors of all the texts of a span."""
        kinds: set[str] = set()
        names: set[str] = set()
        level = NONE
        last = span.turns[-1] if span.turns else None
        caused = self._caused([*span.turns[:-1], *span.singles[len(span.turns) :]])
        alone = max(map(self.level, span.singles), default=NONE)
        for text in span.texts:
            for name, found in self._by_text.get(text, ()):
                here, what = found.level, found.categories
                if text == span.joined and text not in span.singles and here <= alone:
                    continue
                if caused and text == last:
                    here, what = max(here, found.hinted_level), what | found.hinted_categories
                if here:
                    level = max(level, here)
                    kinds |= what
                    names.add(name)
        return level, frozenset(kinds), frozenset(names)

    def of_last(self, span: _Span) -> int:
        """Return the level that the last turn of a span adds, read in the light of the others."""
        before = span.singles[: len(span.turns) - 1]
        level = self.of_span(span)[0]
        if level > max(map(self.level, before), default=NONE):
            return level
        last = [found for _, found in self._by_text.get(span.turns[-1], ())]
        hinted = max((found.hinted_level for found in last), default=NONE)
        return max(self.level(span.turns[-1]), hinted if self._caused(before) else NONE)

    def _caused(self, texts: Sequence[str]) -> bool:
        """Return whether any of these texts gives cause for concern."""
        return any(
            found.level or found.despair
            for text in texts
            for _, found in self._by_text.get(text, ())
        )


class _Pins:
    """The level that help is on view for, turn by turn."""

    def __init__(self, level: int):
        self.level = level
        self._left = CONCERN_TURNS if level == CONCERN else 0

    def add(self, level: int, is_turn: bool) -> None:
        """Take the level of the next turn, or of the situation."""
        if level >= CRISIS or level > self.level:
            self.level = max(self.level, level)
            self._left = CONCERN_TURNS
        elif level == CONCERN:
            self._left = CONCERN_TURNS
        elif self.level == CONCERN and is_turn:
            if self._left == 0:
                self.level = NONE
            else:
                self._left -= 1


class _Memory:
    """Findings of earlier turns under digests with a key of this process; it holds no text."""

    def __init__(self, size: int):
        self._size = size
        self._key = secrets.token_bytes(32)
        self._found: OrderedDict[bytes, Detection] = OrderedDict()
        self._lock = threading.Lock()

    def digest(self, name: str, text: str) -> bytes:
        """Return what stands for a text in memory."""
        whole = f"{name}\0{text}".encode()
        return hashlib.blake2b(whole, key=self._key, digest_size=16).digest()

    def get(self, name: str, text: str) -> Detection | None:
        digest = self.digest(name, text)
        with self._lock:
            return self._found.get(digest)

    def put(self, name: str, text: str, found: Detection) -> None:
        digest = self.digest(name, text)
        with self._lock:
            self._found[digest] = found
            self._found.move_to_end(digest)
            while len(self._found) > self._size:
                self._found.popitem(last=False)
