"""``pal study``: people talk with two blinded systems over the web, or judge inferred personas.

``create`` makes the study's file and prints a link a rater, ``serve`` serves the pages, ``export``
writes answers, conversations and results, ``withdraw`` deletes what a rater gave.
"""

import logging
import os
import secrets
import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pal.commands.common import DialogueSettings
from pal.core.errors import ConfigError, DataError, OutputError, first_line
from pal.core.files import make_private, new_folder, read_text
from pal.core.job import counted, output_lock
from pal.core.runtime import configure_runtime
from pal.core.settings import CommandSettings, InputPath, OutputPath
from pal.guard.settings import GuardSettings
from pal.persona.settings import PersonaSettings
from pal.study.settings import RaterStudySettings, StudyServerSettings

logger = logging.getLogger(__name__)

LOCAL = ("127.0.0.1", "localhost", "::1")  # hosts that are the machine of the server
MARK = ".pal-study-export"  # a folder with this file is replaced with overwrite=true


class CreateStudySettings(DialogueSettings):
    """Make a study: its file, and a link for every rater.

    Attributes:
        input: situations for a chat study: a .txt file with one per line, or dialogues that have
            situations. For a persona study, dialogues with personas.
        output: file of the study. It will hold everything that raters write.
        dtype: number format of the weights.
        trusted_code: classes from outside the package that a model's configuration may name,
            their_package.module:Class.
    """

    examples = (
        "pal study create input=situations.txt output=study.db study.raters=10 guard.country=US "
        "study.systems='{pal: {model: runs/pal, extractor: runs/extractor}, "
        "joint: {model: runs/joint}}'",
        "pal study create input=pesconv.jsonl output=personas.db study.kind=persona",
    )

    output: OutputPath | None = None
    study: RaterStudySettings = RaterStudySettings()
    annotate: PersonaSettings = PersonaSettings()
    guard: GuardSettings = GuardSettings()
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    trusted_code: list[str] = []


class ServeStudySettings(CommandSettings):
    """Serve the pages of a study on this machine.

    Attributes:
        input: file that pal study create wrote.
    """

    positional = "input"
    examples = (
        "pal study serve input=study.db",
        "pal study serve study.db study_server.port=8020",
    )

    input: InputPath | None = None
    study_server: StudyServerSettings = StudyServerSettings()


class ExportStudySettings(CommandSettings):
    """Write answers, conversations and results of a study; it can go on meanwhile.

    Attributes:
        input: file that pal study create wrote.
        output: folder to write.
        overwrite: replace an earlier export.
    """

    examples = (
        "pal study export input=study.db output=runs/study",
        "pal study export input=study.db output=runs/study overwrite=true",
    )

    input: InputPath | None = None
    output: OutputPath | None = None
    overwrite: bool = False


class WithdrawSettings(CommandSettings):
    """Delete all that a rater wrote and answered, as the button on the pages does.

    Attributes:
        input: file that pal study create wrote.
        link: the rater's link, or the part of it after the last slash.
    """

    examples = (
        "pal study withdraw input=study.db link=http://127.0.0.1:8010/s/8pSgLcVhm2uCqkY3ZzQ0Tw",
        "pal study withdraw input=study.db link=8pSgLcVhm2uCqkY3ZzQ0Tw",
    )

    input: InputPath | None = None
    link: str | None = None


def create_study(settings: CreateStudySettings) -> str:
    """Make the file ``output`` and return the links, which are stored nowhere.

    Raises:
        PalError: settings, input, guard, systems or output cannot be used.
    """
    settings = CreateStudySettings.of(settings)
    source, target = settings.require("input", "output")
    chosen = settings.study
    from pal.guard.helplines import load_helplines
    from pal.modeling.checkpoint import read_model_config
    from pal.study.draw import deal, draw_items, read_persona_samples, read_situations
    from pal.study.questions import consent_text
    from pal.study.store import StudyStore
    from pal.study.systems import fingerprints_of

    _check_study(chosen)
    if os.path.lexists(target):
        raise OutputError(
            f"{target} exists, and answers of raters are never overwritten; give another name"
        )
    for name, system in chosen.systems.items():
        read_model_config(system.model, f"study.systems.{name}: model={system.model}")
        if system.extractor:
            where = f"study.systems.{name}: extractor={system.extractor}"
            read_model_config(system.extractor, where)
    left_out = 0
    if chosen.kind == "chat":
        found = read_situations(source, settings.split, settings.data, settings.limit)
        calm = _without_crises(found, settings.guard)
        left_out = len(found) - len(calm)
        shown = [{"sample": f"situation {n}", "situation": text} for n, text in calm]
        if not shown:
            raise DataError(f"{source}: the guard finds signs of a crisis in every situation")
    else:
        shown = read_persona_samples(source, settings.split, settings.data, settings.limit)
    seed = secrets.randbelow(2**53) if chosen.seed is None else chosen.seed
    items = draw_items(shown, chosen.items, seed)
    if len(items) < chosen.items:
        what = "situations" if chosen.kind == "chat" else "supporter turns with a persona"
        logger.warning(
            "%s, fewer than study.items=%d: %s has no more %s",
            counted(len(items), "item"), chosen.items, source, what,
        )  # fmt: skip
    if not settings.guard.off:  # told while it can still be given
        load_helplines(settings.guard.helplines).country(settings.guard.country)
    contact = (chosen.contact or "").strip()
    if not contact and not chosen.consent:
        logger.warning(
            "study.contact is not set: the pages name nobody whom raters can ask; create the study "
            "with study.contact=… or a text of your own, study.consent=FILE"
        )
    each = chosen.items_per_rater or (1 if chosen.kind == "chat" else len(items))
    pair: Any = tuple(chosen.systems) or None
    dealt = deal(list(items), raters=chosen.raters, each=each, systems=pair, seed=seed)
    own = read_text(chosen.consent).strip() if chosen.consent else None
    if own == "":
        raise DataError(f"study.consent={chosen.consent}: the file is empty")
    systems = {
        name: system.model_copy(update={
            "model": _absolute(system.model),
            "extractor": system.extractor and _absolute(system.extractor),
        }).model_dump(exclude_unset=True)
        for name, system in chosen.systems.items()
    }  # fmt: skip
    guard = settings.guard.model_copy(update={
        key: value and _absolute(value)
        for key in ("helplines", "texts", "model") if (value := getattr(settings.guard, key))
    })  # fmt: skip
    config = {
        "title": chosen.title, "consent": own or consent_text(chosen.kind, contact),
        "contact": contact,
        "address": chosen.address.rstrip("/"), "min_messages": chosen.min_messages,
        "max_messages": chosen.max_messages, "seed": seed, "systems": systems,
        "fingerprints": {name: fingerprints_of(one) for name, one in chosen.systems.items()},
        "guard": guard.model_dump(), "annotate": settings.annotate.model_dump(),
        "dtype": settings.dtype, "trusted_code": settings.trusted_code,
    }  # fmt: skip
    expires = time.time() + chosen.days * 86400
    tokens = StudyStore.create(
        target, kind=chosen.kind, config=config, items=items, raters=dealt, expires=expires
    )
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires))
    lines = [
        f"{target}: {counted(len(items), 'item')}, {counted(len(tokens), 'rater')}; "
        f"links until {until}"
    ]
    if left_out:
        lines.append(f"situations left out, in which the guard finds signs of a crisis: {left_out}")
    if chosen.kind == "chat" and chosen.raters * min(each, len(items)) < 2 * len(items):
        lines.append(
            "not every item gets two raters, so κ can cover only part of them; raise "
            "study.raters or study.items_per_rater, or lower study.items"
        )
    lines += ["These links are stored nowhere; give each to one rater:"]
    lines += [f"{config['address']}/s/{token}" for token in tokens]
    port = _local_port(chosen.address)
    usual = StudyServerSettings().port
    given = "" if port in (None, usual) else f" study_server.port={port}"
    return "\n".join([*lines, f"Then: pal study serve input={target}{given}"])


def _check_study(chosen: RaterStudySettings) -> None:
    """Check what the settings of a study say together.

    Raises:
        ConfigError: they say something that cannot be.
    """
    if chosen.kind == "persona" and chosen.systems:
        raise ConfigError("study.systems: a persona study has no systems; leave them out")
    if chosen.kind == "chat" and len(chosen.systems) != 2:
        raise ConfigError(f"study.systems: expected two, name → model, got {len(chosen.systems)}")
    if "Tie" in chosen.systems:
        raise ConfigError("study.systems: 'Tie' is an answer; give that system another name")
    if chosen.min_messages > chosen.max_messages:
        raise ConfigError(
            f"study.min_messages={chosen.min_messages} is more than "
            f"study.max_messages={chosen.max_messages}; lower it"
        )
    try:
        _local_port(chosen.address)
    except ValueError as error:
        raise ConfigError(f"study.address={chosen.address}: {first_line(error)}") from None


def _without_crises(situations: list[str], settings: GuardSettings) -> list[tuple[int, str]]:
    """Return (number, situation) without those that the guard answers with its fixed texts."""
    from pal.guard import load_guard
    from pal.guard.levels import CRISIS

    guard = load_guard(settings, shows_help=False)
    return [
        (number, text) for number, text in enumerate(situations, start=1)
        if guard.assess([text]).level < CRISIS
    ]  # fmt: skip


def _absolute(source: str) -> str:
    """Return the absolute path of a file or folder, and other names as they are."""
    return str(Path(source).resolve()) if os.path.exists(source) else source


def serve_study(settings: ServeStudySettings) -> None:
    """Serve the pages until the process is told to stop.

    Raises:
        PalError: the study, its systems, guard or port cannot be used.
    """
    settings = ServeStudySettings.of(settings)
    configure_runtime()
    (source,) = settings.require("input")
    from pal.study.store import StudyStore

    store = StudyStore(source)
    logger.info("loading %s", source)
    chosen = settings.study_server
    from pal.guard import GuardSettings, load_guard
    from pal.serve.running import listen, run_server
    from pal.study.app import StudyServer
    from pal.study.systems import load_supporters, recorded

    listening = listen("127.0.0.1", chosen.port, "study_server")
    supporters: dict[str, Any] = {}
    if store.kind == "chat":
        supporters = load_supporters(store.config, rows=chosen.rows, timeout=chosen.timeout)
        guard = next(iter(supporters.values())).guard
    else:
        guard = load_guard(recorded(GuardSettings, store.config["guard"]))
    server = StudyServer(store, supporters, guard, chosen)
    port = listening.getsockname()[1]
    if astray := _links_astray(store.config["address"], port):
        logger.warning("%s", astray)
    logger.info(
        "the study is at http://127.0.0.1:%d; raters reach it at %s; Ctrl-C stops",
        port, store.config["address"],
    )  # fmt: skip
    try:
        # Nothing replies to raters who judge personas.
        noun = "replies" if store.kind == "chat" else "requests"
        run_server(server, listening, noun=noun)
    finally:
        for supporter in supporters.values():
            supporter.close()
        store.close()


def _links_astray(address: str, port: int) -> str | None:
    """Return what to do where the links of a study lead to another port of this machine."""
    try:
        wanted = _local_port(address)
    except ValueError:  # create refuses such an address; a file can hold it all the same
        return None
    if wanted in (None, port):
        return None
    return (
        f"the raters' links start with {address}, but the server listens at port {port}: without a "
        f"proxy between them the links are dead; serve with study_server.port={wanted}, or create "
        f"the study with study.address=http://127.0.0.1:{port}"
    )


def _local_port(address: str) -> int | None:
    """Return the port that a browser opens for an address of this machine, None for another's.

    Raises:
        ValueError: it cannot be an address.
    """
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return port if parts.hostname in LOCAL else None


def export_study(settings: ExportStudySettings) -> str:
    """Write the folder ``output``, completely or not at all, and return the tables.

    Raises:
        PalError: the study cannot be read or the folder not written.
    """
    settings = ExportStudySettings.of(settings)
    source, target = settings.require("input", "output")
    from pal.study.export import ANSWER_FOLDER, write_export
    from pal.study.store import StudyStore

    folder = Path(target)
    if os.path.lexists(folder):
        if not (folder / MARK).is_file():
            raise OutputError(
                f"{folder} exists and is not an export; give the name of a new folder"
            )
        if not settings.overwrite:
            raise OutputError(
                f"{folder} exists; replace it with overwrite=true, or give a new name"
            )
    with output_lock(folder):
        store = StudyStore(source)
        try:
            with new_folder(folder, private=True) as unfinished:
                tables = write_export(store, unfinished)
                make_private(unfinished / MARK)
        finally:
            store.close()
    lines = [tables, f"written to {folder}; keep it private, as the study's file"]
    if (folder / ANSWER_FOLDER).is_dir() and any((folder / ANSWER_FOLDER).iterdir()):
        lines.append(
            f"to score these answers again: pal human-eval score input={folder} "
            f"human_eval.answers={folder / ANSWER_FOLDER}"
        )
    return "\n".join(lines)


def withdraw_rater(settings: WithdrawSettings) -> str:
    """Delete all that the rater with ``link`` wrote and answered.

    Raises:
        PalError: the study cannot be used, or has no such link.
    """
    settings = WithdrawSettings.of(settings)
    source, link = settings.require("input", "link")
    from pal.study.store import StudyStore

    store = StudyStore(source)
    try:
        rater = store.rater_of(link.rstrip("/").rpartition("/")[2])
        if rater is None:
            raise DataError(f"{source}: no rater has this link; check that it is whole")
        store.withdraw(rater.rater)
    except OSError as error:
        raise OutputError(f"{source}: cannot be written ({first_line(error)})") from None
    finally:
        store.close()
    return (
        f"rater-{rater.rater}: everything is deleted from {source}. Delete earlier exports and "
        "copies of the file yourself."
    )
