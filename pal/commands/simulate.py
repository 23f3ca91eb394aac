"""``pal simulate``: whole dialogues between simulated seekers and a supporter.

A language model plays the person of each persona card; the supporter is a trained model behind its
guard (``model=…``), or a language model. Turns are kept as they come, so that an interrupted run
goes on where it stopped. The dialogues are read by every command that reads dialogues.
"""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from pal.commands.common import WriterSettings, model_name
from pal.conversation.settings import TalkSettings
from pal.core.errors import ConfigError, DataError
from pal.core.settings import Count, InputPath
from pal.llm.settings import LlmSettings
from pal.simulation.settings import SimulatedSupporterSettings, SimulationSettings

logger = logging.getLogger(__name__)

NO_PEOPLE = (
    "played by a language model with a persona card: no people, and no evidence about people"
)


class SimulateSettings(TalkSettings, WriterSettings):
    """Play whole dialogues between simulated seekers and a supporter.

    Attributes:
        input: persona cards, as `pal traits cards` and `pal traits expand` write them.
        limit: use at most this many cards.
        output: file of the dialogues; cards that could not be played are listed beside it.
        model: folder or hub id of a trained model that plays the supporter; null uses a language
            model.
        seed: random seed of the supporter's token sampling and of sampling at the endpoint.
        llm: the language model that plays the seekers, and the supporter where ``model`` is null.
        supporter: the supporter.
        simulation: the seekers.
    """

    examples = (
        "pal simulate input=cards.jsonl model=runs/pal extractor=runs/extractor "
        "output=runs/talks_pal.jsonl llm.base_url=http://localhost:8000/v1 llm.model=qwen",
        "pal simulate input=cards.jsonl output=runs/talks_llm.jsonl "
        "simulation.supporter='{model: llama}' llm.base_url=http://localhost:8000/v1 "
        "llm.model=qwen",
    )

    input: InputPath | None = None
    limit: Count | None = None
    llm: LlmSettings = LlmSettings()
    supporter: SimulatedSupporterSettings = SimulatedSupporterSettings()
    simulation: SimulationSettings = SimulationSettings()


def simulate(settings: SimulateSettings) -> str:
    """Play a dialogue for every card of ``input`` and write them to ``output``.

    Returns:
        A Markdown summary.

    Raises:
        PalError: cards, models or output cannot be used, or a request brought no answer.
    """
    settings = SimulateSettings.of(settings)
    source, target = settings.require("input", "output")
    check_supporter(settings)
    from pal.core.files import sweep_temporary, write_jsonl
    from pal.core.job import COMPUTING, interruptible
    from pal.llm.facts import asking_job
    from pal.simulation.talks import load_seeker_prompt, play_talks, talk_record
    from pal.supporter.replies import load_supporter_prompt
    from pal.traits.steps import failures_path

    talks = read_talks_to_play(source, settings.limit)
    prompts = [load_seeker_prompt(), *([] if settings.model else [load_supporter_prompt()])]
    models = [settings.llm, *([] if settings.model else [supporter_llm(settings)])]
    job = asking_job(
        "simulate", settings, target, models=models, prompts=prompts,
        versions=COMPUTING if settings.model else (),
    )  # fmt: skip
    failures = failures_path(job.output)
    job.spare_inputs(failures)
    if job.is_finished():
        return _summary(job.output)
    with job.claimed(processes=False):
        from tqdm.auto import tqdm

        seeker, supporter, names, asked = _speakers(settings)
        journal = job.journal()
        done = job.open_journal(journal)
        exchanges = settings.simulation.exchanges
        bar = tqdm(
            total=2 * exchanges * len(talks), initial=len(done), desc="simulate", unit="turn",
            dynamic_ncols=True, disable=None,
        )  # fmt: skip
        with interruptible(job.output, journal.places), bar:
            play_talks(
                talks, seeker, supporter, exchanges=exchanges, journal=journal, done=done,
                progress=bar.update,
            )  # fmt: skip
        journal.close()
        records = [talk_record(talk, names) for talk in talks]
        kept = [record for record in records if "failed" not in record]
        failed = [record for record in records if "failed" in record]

        def write(path: Path) -> None:
            sweep_temporary(failures)
            failures.unlink(missing_ok=True)
            if failed:
                write_jsonl(failures, failed)
            write_jsonl(path, kept)

        job.publish(
            write, dialogues=len(kept), failed=len(failed), note=NO_PEOPLE,
            prompts={prompt.name: prompt.version for prompt in prompts},
            **{role: model.describe() for role, model in asked.items()},  # known once asked
        )  # fmt: skip
    return _summary(job.output)


def check_supporter(settings: SimulateSettings) -> None:
    """Refuse settings that the kind of supporter has no use for.

    Raises:
        ConfigError: there is one.
    """
    if settings.simulation.least > settings.simulation.exchanges:
        raise ConfigError(
            f"simulation.least={settings.simulation.least} is more than "
            f"simulation.exchanges={settings.simulation.exchanges}"
        )
    if settings.model is not None:
        from pal.decoding.plan import check_decoding

        check_decoding(settings.decoding)
        idle = sorted(settings.supporter.model_fields_set - {"persona"})
        names = [f"supporter.{name}" for name in idle]
        names += ["simulation.supporter"] if settings.simulation.supporter else []
        if names:
            raise ConfigError(
                f"{names[0]} is for a language model as supporter, and model={settings.model} is "
                "one that was trained; leave one of the two out"
            )
    elif settings.extractor is not None:
        raise ConfigError(
            "extractor is for a trained supporter; give model=…, or leave the extractor out"
        )


def supporter_llm(settings: SimulateSettings) -> LlmSettings:
    """Return the settings of the language model that is the supporter.

    Raises:
        ConfigError: ``simulation.supporter`` holds what no language model has.
    """
    from pal.llm.facts import changed_llm

    return changed_llm(settings.llm, settings.simulation.supporter, "simulation.supporter")


def read_talks_to_play(source: str, limit: int | None) -> list[Any]:
    """Return a dialogue without turns for every usable card.

    Raises:
        DataError: the file holds no usable card.
    """
    from pal.simulation.talks import PlayedTalk
    from pal.traits.readers import is_usable, read_cards

    cards = [card for card in read_cards(source) if is_usable(card)][:limit]
    if not cards:
        raise DataError(f"{source}: no card that can be played; make some with `pal traits cards`")
    counts = Counter(card["id"] for card in cards)
    return [
        PlayedTalk(c["id"] if counts[c["id"]] == 1 else f"{c['dataset']}-{c['id']}", c)
        for c in cards
    ]


def _speakers(settings: SimulateSettings) -> tuple[Any, Any, dict[str, str], dict[str, Any]]:
    """Return seeker and supporter, their names, and the language models that play them."""
    from pal.llm import connect
    from pal.simulation.talks import AskedSupporter, CardSeeker, TrainedSupporter

    playing = connect(settings.llm, settings.dtype)
    seeker = CardSeeker(playing, settings.simulation, settings.seed)
    asked: dict[str, Any] = {"seeker": playing}
    if settings.model is not None:
        from pal.conversation.session import open_session
        from pal.core.runtime import configure_runtime

        configure_runtime()
        session = open_session(settings, shows_help=False)
        told = settings.supporter.persona
        trained = TrainedSupporter(session, told, settings.seed)
        names = {"model": model_name(settings.model), "seeker": playing.name}
        return seeker, trained, names, asked
    model = connect(supporter_llm(settings), settings.dtype)
    asked["supporter"] = model
    names = {"model": model.name, "seeker": playing.name}
    return seeker, AskedSupporter(model, settings.supporter, settings.seed), names, asked


def _summary(output: Path) -> str:
    """Count what was played, as a Markdown table."""
    from pal.core.files import read_jsonl
    from pal.traits.steps import failures_path

    def rows(path: Path) -> list[dict[str, Any]]:
        if not path.exists() or not path.stat().st_size:
            return []
        return [row for _, row in read_jsonl(path)]

    talks, failed = rows(output), rows(failures_path(output))
    turns = [turn for talk in talks for turn in talk["dialog"]]
    counts: dict[str, Any] = {"dialogues": len(talks)}
    if talks:
        counts["turns a dialogue"] = f"{len(turns) / len(talks):.1f}"
    counts["ended by the seeker"] = sum(talk["ended_by"] == "seeker" for talk in talks)
    counts["turns of the guard"] = sum(turn.get("by") == "guard" for turn in turns)
    reasons = Counter(row["failed"] for row in failed)
    counts |= {f"failed, {reason}": count for reason, count in reasons.most_common()}
    lines = ["| simulate | count |", "| --- | ---: |"]
    lines += [f"| {name.replace('|', '/')} | {count} |" for name, count in counts.items()]
    return "\n".join([*lines, "", f"Seekers are {NO_PEOPLE}.", f"written to {output}"])
