"""Settings of studies with people."""

from typing import Annotated, Literal

from pydantic import Field

from pal.core.settings import (
    Count,
    ExtractorSource,
    InputPath,
    ModelSource,
    Name,
    Section,
    Seed,
    worded,
)
from pal.decoding.settings import DecodingSettings

WebAddress = Annotated[
    str,
    worded(
        r"https?://[^\s/?#]+(/[^\s?#]*)?",
        "should be an address that begins with http:// or https:// and has no question mark",
    ),
]


class StudiedSystem(Section):
    """One of the two systems that raters talk with.

    Attributes:
        model: folder or hub id of the trained response model.
        extractor: folder or hub id of a persona extractor; the persona is then inferred turn by
            turn.
        decoding: how it answers; the model's own way by default.
    """

    model: ModelSource
    extractor: ExtractorSource | None = None
    decoding: DecodingSettings = DecodingSettings()


class RaterStudySettings(Section):
    """What is studied, by whom and for how long.

    Attributes:
        kind: ``chat``: raters talk with two systems and compare them (PAL paper, section 4.5).
            ``persona``: raters judge inferred persona sentences (section 4.1).
        systems: the two systems of a chat study, name → model, extractor, decoding. Raters never
            see the names.
        raters: number of raters; each gets a link.
        items: maximum number of situations or persona samples to draw.
        items_per_rater: how many of them each rater gets; null means 1 in a chat study and all in a
            persona study.
        days: number of days for which the links are valid.
        min_messages: number of messages that a rater must send to each system before the questions
            appear.
        max_messages: maximum number of messages that a rater can send to each system.
        title: title of the pages.
        contact: whom raters can contact, such as a name and an address; on every page, and in the
            bundled consent text.
        consent: text file of your own, used instead of the bundled consent text.
        address: address at which raters reach the server; the links start with it. Without a proxy
            it is http://127.0.0.1: and the port of ``pal study serve``.
        seed: random seed of the draw, the order of the systems and token sampling; null takes a new
            one.
    """

    kind: Literal["chat", "persona"] = "chat"
    systems: dict[Name, StudiedSystem] = Field(
        default_factory=dict, examples=["{pal: {model: runs/pal}, joint: {model: runs/joint}}"]
    )
    raters: Annotated[int, Field(gt=0, le=10_000)] = 3
    items: Count = 100
    items_per_rater: Count | None = None
    days: Annotated[float, Field(gt=0, le=3650)] = 14.0
    min_messages: Annotated[int, Field(gt=0, le=100)] = 4
    max_messages: Annotated[int, Field(gt=0, le=200)] = 20
    title: Annotated[str, Field(min_length=1, max_length=200)] = "A study of emotional support"
    contact: Annotated[str, Field(max_length=500)] | None = None
    consent: InputPath | None = None
    address: WebAddress = "http://127.0.0.1:8010"
    seed: Seed | None = None


class StudyServerSettings(Section):
    """The server of a study. It listens on this machine alone; a proxy with TLS stands before it.

    Attributes:
        port: port to listen on; 0 takes a free one.
        rows: maximum number of replies that one system generates at the same time.
        timeout: seconds after which a rater is asked to try again.
        drain: seconds that requests in progress have to finish when the server is stopped.
    """

    port: Annotated[int, Field(ge=0, le=65535)] = 8010
    rows: Annotated[int, Field(gt=0, le=256)] = 16
    timeout: Annotated[float, Field(gt=0)] = 120.0
    drain: Annotated[float, Field(ge=0)] = 10.0
