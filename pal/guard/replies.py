"""The check of generated replies: what must not be said to somebody who may be at risk."""

import re

from pal.guard.helplines import Country
from pal.guard.levels import CRISIS, NONE, Verdict
from pal.guard.lexicon import load_lexicon

# Links, and what reads as one.
_LINK = re.compile(
    r"(?:https?://|www\.)\S+|\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|gov|edu|info|io|co\.uk|uk|de|eu|ca|au)\b"
    r"(?:/\S*)?",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
# What only a turn that gives cause for concern makes harmful: "That sounds lovely."
APPROVES = "approves"
_YOU = re.compile(r"\b(?:you|your|yours|u|ur)\b", re.IGNORECASE)

# Seven digits or more, however they are grouped, are a phone number.
_PHONE = re.compile(r"\+?\(?\d(?:[\s().\-–/]{0,3}\d){6,}")
# A shorter number is one where the words around it say so.
_SHORT = re.compile(
    r"\b(?:call|dial|text|phone|ring|number|hotline|lifeline|helpline|line)\b[^.!?\d]{0,40}?"
    r"(\d(?:[\s-]?\d){2,5})\b(?!\s*(?:%|percent|times|minutes|hours|days|people|words|am\b|pm\b))",
    re.IGNORECASE,
)


class ReplyCheck:
    """Finds what a reply must not say.

    Args:
        country: helplines whose numbers and link a reply may carry.
    """

    def __init__(self, country: Country):
        self._numbers = frozenset(country.numbers())
        self._host = _host(country.directory_url)
        self._lexicon = load_lexicon("replies.yaml")
        self._seeker = load_lexicon()
        self.version = self._lexicon.version

    def is_harmful(self, reply: str, verdict: Verdict) -> bool:
        """Return whether a reply must not be shown.

        It must not agree with the wish to die, encourage it, name means, or tell of such a wish of
        its own; where help is on view, it must not ask for means either, and where the very turn
        gives cause for concern, it must not be pleased with it. A number or a link must be one of
        the helplines.
        """
        found = self._lexicon.detect([reply])[0]
        wrong_here = found.hinted_categories if verdict.pinned or verdict.level else frozenset()
        if verdict.level == NONE:
            wrong_here -= {APPROVES}
        if found.level or wrong_here:
            return True
        of_itself = [part for part in _SENTENCE.split(reply) if not _YOU.search(part)]
        if any(one.level >= CRISIS for one in self._seeker.detect(of_itself)):
            return True
        if any(_host(link) != self._host for link in _LINK.findall(reply)):
            return True
        numbers = [found.group() for found in _PHONE.finditer(reply)]
        numbers += [found.group(1) for found in _SHORT.finditer(reply)]
        return any(re.sub(r"\D", "", number) not in self._numbers for number in numbers)


def _host(link: str) -> str:
    """Return the name of a link's machine."""
    return re.sub(r"^(?:https?://)?(?:www\.)?|[/?#:].*$|[.,;:!?)'\"]+$", "", link.lower())
