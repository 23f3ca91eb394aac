"""What a terminal shows: words that flow into its width as they come, in its encoding."""

import os
import re
import shutil
import unicodedata
from typing import TextIO

from pal.guard.normalise import has_surrogate

STYLES = {"bold": "1", "dim": "2", "help": "1;33"}
NARROWEST = 8

# What stands for signs that an encoding lacks.
PLAIN = {
    "α": "alpha", "·": "-", "…": "...", "’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-",
}  # fmt: skip
# Controls, which could move the cursor or clear the screen.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Screen:
    """Writes to a terminal.

    Args:
        out: where to.
        styled: whether escape codes may be written; found out by default.
        width: columns; the terminal's own, which may change, by default.
    """

    def __init__(self, out: TextIO, *, styled: bool | None = None, width: int | None = None):
        self.out = out
        self.styled = takes_escapes(out) if styled is None else styled
        self._width = width
        self._column = 0
        self._space = False

    @property
    def width(self) -> int:
        """Columns that a line may take."""
        if self._width is None:
            return max(NARROWEST, shutil.get_terminal_size((80, 24)).columns - 1)
        return self._width

    def line(self, text: str, style: str | None = None, *, head: str = "") -> None:
        """Write a text on lines of its own, each of which starts with ``head``."""
        for part in text.split("\n"):
            self._start(style)
            indent = part[: len(part) - len(part.lstrip())]
            self.flow(head + part, head=head + indent)
            self.end(style)

    def flow(self, text: str, *, head: str = "") -> None:
        """Write what comes next; a word that does not fit goes to the next line.

        Args:
            text: any number of words, and spaces before them.
            head: what lines after the first start with.
        """
        for token in re.findall(r"\n|[^\S\n]+|\S+", self.shown(text)):
            if token == "\n":
                self._break(head)
            elif token.isspace():
                if self._column == 0:  # an indent
                    self._put(token)
                else:
                    self._space = True
            else:
                needed = self._space + width_of(token)
                if self._space and self._column + needed > self.width:
                    self._break(head)
                elif self._space:
                    self._put(" ")
                self._put(token)
                self._space = False
        self.out.flush()

    def end(self, style: str | None = None) -> None:
        """End the line."""
        if style and self.styled:
            self.out.write("\x1b[0m")
        self.out.write("\n")
        self.out.flush()
        self._column, self._space = 0, False

    def shown(self, text: str) -> str:
        """Return a text as the terminal can show it: no controls, signs of its encoding."""
        return encodable(CONTROLS.sub("", text), self.out)

    def _start(self, style: str | None) -> None:
        if style and self.styled:
            self.out.write(f"\x1b[{STYLES[style]}m")

    def _break(self, head: str) -> None:
        self.out.write("\n")
        self._column, self._space = 0, False
        self._put(head)

    def _put(self, text: str) -> None:
        self.out.write(text)
        self._column += width_of(text)


def takes_escapes(out: TextIO) -> bool:
    """Whether a stream is a terminal that may be written escape codes to."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def encodable(text: str, out: TextIO) -> str:
    """Return a text in signs that a stream's encoding has.

    Example:
        >>> encodable("α = 0 – “fine”", open("ascii.txt", "w", encoding="ascii"))
        'alpha = 0 - "fine"'
    """
    try:
        text.encode(out.encoding or "utf-8")
        return text
    except UnicodeEncodeError:
        plain = "".join(PLAIN.get(sign, sign) for sign in text)
        encoding = out.encoding or "utf-8"
        return plain.encode(encoding, "backslashreplace").decode(encoding)


def width_of(text: str) -> int:
    """Return the columns that a text takes."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )


def read_as_text(line: str, encoding: str) -> str:
    """Return a line as UTF-8 where its bytes were none of the terminal's encoding, if it is that.

    Args:
        line: read with ``surrogateescape``.
        encoding: what it was read as.
    """
    if not has_surrogate(line):
        return line
    try:
        return line.encode(encoding, "surrogateescape").decode("utf-8")
    except UnicodeError:
        return line
