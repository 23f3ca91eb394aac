"""Normalisation of texts: one kind of space, and no invisible characters."""

import re

# Invisible code points: Unicode's Default_Ignorable_Code_Point (zero-width spaces
# and joiners, byte order marks, soft hyphens, direction and variation marks, tags) and controls.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def normalise_text(text: str) -> str:
    r"""Return a text without invisible characters, with one space between words.

    The authors' preprocessing joins words in the same way, ``" ".join(text.split())``.

    Example:
        >>> normalise_text(" I am\n so\u200b tired\ufeff ")
        'I am so tired'
    """
    return " ".join(without_invisible(text).split())


def without_invisible(text: str) -> str:
    r"""Return a text without the characters that nobody sees.

    Example:
        >>> without_invisible("ti\x00red\nso\u200b")
        'tired\nso'
    """
    if text.isascii() and text.isprintable():
        return text
    return _INVISIBLE.sub("", text)
