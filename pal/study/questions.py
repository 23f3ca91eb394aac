"""What raters are asked, and the consent text."""

from collections.abc import Mapping
from typing import Any

from pal.human_eval.sheets import Question

# PAL paper, appendix F, Figure 7: two conversations about one situation are compared.
CHAT_QUESTIONS = (
    Question(
        "Coherence",
        "Which system's replies made more sense in themselves and had more to do with what you "
        "said?",
    ),
    Question(
        "Identification",
        "Which system explored your situation in more depth and helped more to find out what the "
        "problem is?",
    ),
    Question("Comforting", "Which system was more skilful at comforting you?"),
    Question("Suggestion", "Which system gave you more helpful suggestions for your problem?"),
    Question(
        "Information", "Which system's replies were more specific and contained more information?"
    ),
    Question("Overall", "All in all, whose emotional support do you prefer?"),
)
CHAT_ANSWERS = {"A": "A", "B": "B", "Tie": "Tie"}

CONSENT = {
    "chat": """\
You are asked to take part in a study. You get a situation, imagine that it is yours, and chat \
about it with two computer programs, A and B. Then you answer six questions on which of them did \
better.

A and B are programs, not people. What they say can be wrong, unhelpful or hurtful. Neither they \
nor this study are a crisis service, and nobody reads along while you write. If you are not well \
at the moment, please do not take part; the help named on every page is for you.

Talk about the situation that you are given. Do not write names, addresses or other things by \
which you or others could be recognised.
""",
    "persona": """\
You are asked to take part in a study. You read parts of conversations between somebody who \
seeks emotional support and somebody who gives it, and sentences about the seeker that a \
computer program has inferred. You say of each whether the sentences are right.

Many of the conversations are about distress. This study is not a crisis service. If you are not \
well at the moment, please do not take part; the help named on every page is for you.
""",
}
STORED = """\
What you write and answer is stored as you go, with the time, under a number and not \
under your name. It is used for research on such programs.

Taking part is up to you. You can stop at any moment without giving a reason. With the button \
“Withdraw and delete” you can have everything that is stored about you deleted, now or later, \
with the same link, even after it has expired. What was included in results before then cannot \
be removed from them.
"""
CONTACT = "If you have questions, ask {}."


def consent_text(kind: str, contact: str | None) -> str:
    """Return the bundled consent text of a study, paragraphs behind blank lines.

    Args:
        kind: ``chat`` or ``persona``.
        contact: whom raters can ask.
    """
    asked = f"\n{_asking(contact)}\n" if contact else ""
    return f"{CONSENT[kind]}\n{STORED}{asked}"


def contact_line(config: Mapping[str, Any]) -> str:
    """Return the sentence that says on every page whom raters can ask; empty if nobody is named.

    Studies of earlier versions name the contact in nothing but the last paragraph of their consent
    text.

    Args:
        config: of the study's file.

    Example:
        >>> contact_line({"contact": "Dr. Lee", "consent": "What we do."})
        'If you have questions, ask Dr. Lee.'
    """
    if "contact" in config:
        contact = config["contact"]
        return _asking(contact) if contact else ""
    last = str(config["consent"]).strip().rpartition("\n\n")[2]
    before, after = CONTACT.split("{}")
    return last if last.startswith(before) and last.endswith(after) else ""


def _asking(contact: str) -> str:
    """Return the sentence on a contact; the full stop of ``Lee & Co.`` ends the sentence too."""
    return CONTACT.format(contact.removesuffix("."))
