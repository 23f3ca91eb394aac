"""Settings of the guard, which every talking face has."""

from typing import Annotated

from pydantic import AfterValidator, Field

from pal.core.settings import INERT, InputPath, ModelPlace, Section, Source, worded

CountryCode = Annotated[
    str,
    worded("[A-Za-z]{2}", "give the country's two letters (ISO 3166), for example GB or DE"),
    AfterValidator(str.upper),
]

# A folder that pal guard train wrote, or a text classification model.
DetectorSource = Annotated[
    Source, ModelPlace("give the folder that pal guard train wrote, or a hub id", loaded=True)
]


class GuardSettings(Section):
    """The guard that watches a conversation for signs of suicide and self-harm.

    Attributes:
        off: run without a guard. A warning says so at every start, and the API shows it.
        country: two-letter code of the country whose helplines are shown, such as US or GB. Null
            shows no number, only a link to an international directory. The country is never
            guessed.
        helplines: YAML file of your own with emergency numbers and helplines by country, used
            instead of the bundled one.
        texts: YAML file of your own with the fixed texts, used instead of the bundled English ones.
        model: a second detector besides the lexicon: a folder written by pal guard train, or a text
            classification model (folder or hub id). Null uses the lexicon alone.
        labels: for a text classification model, the level of each of its labels: 0 none, 1 concern,
            2 crisis, 3 emergency.
        threshold: probability at which the second detector's finding counts; null takes the
            threshold chosen in its training, or 0.5 for a text classification model.
        timeout: seconds after which an assessment counts as failed; then help is shown instead of a
            reply.
    """

    off: bool = False
    country: CountryCode | None = None
    helplines: InputPath | None = None
    texts: InputPath | None = None
    model: DetectorSource | None = None
    labels: dict[str, Annotated[int, Field(ge=0, le=3)]] = {}
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    timeout: Annotated[float, INERT, Field(gt=0)] = 5.0
