"""Settings of the guard, which every talking face has."""

from typing import Annotated

from pydantic import Field

from pal.core.settings import INERT, InputPath, Section, Source


class GuardSettings(Section):
    """The guard that watches a conversation for signs of suicide and self-harm.

    Attributes:
        off: run without a guard. A banner says so at every start, and the API shows it.
        country: two letters of the country whose helplines are shown, such as ``US`` or ``GB``;
            null shows no number and a link to an international directory. It is never guessed.
        helplines: YAML of your own with emergency numbers and helplines by country, in place of
            the bundled one.
        texts: YAML of your own with the fixed texts, in place of the bundled English ones.
        model: a second detector beside the lexicon: a folder written by ``pal guard train``, or a
            text classification model (folder or hub id). Null uses the lexicon alone.
        labels: for a text classification model, each of its labels and the level that it means:
            0 none, 1 concern, 2 crisis, 3 emergency.
        threshold: probability from which on the model's finding counts; null takes the one
            that training chose, 0.5 for a text classification model.
        timeout: seconds after which an assessment counts as failed; then help is shown and no
            reply.
    """

    off: bool = False
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")] | None = None
    helplines: InputPath | None = None
    texts: InputPath | None = None
    model: Source | None = None
    labels: dict[str, Annotated[int, Field(ge=0, le=3)]] = {}
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    timeout: Annotated[float, INERT, Field(gt=0)] = 5.0
