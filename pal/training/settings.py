"""Settings: how a model is trained."""

from typing import Annotated, Any

from pydantic import field_validator

from pal.core.settings import CommandSettings, Count, KeysFrom, Seed
from pal.modeling.settings import ArchitectureSettings


class OptionSettings(CommandSettings):
    """A command that takes the options of transformers' trainer.

    Attributes:
        training: options of transformers' Seq2SeqTrainingArguments, by the names they have there.
    """

    training: Annotated[dict[str, Any], KeysFrom("pal.training.options:option_names")] = {}

    @field_validator("training")
    @classmethod
    def _check_options(cls, training: dict[str, Any]) -> dict[str, Any]:
        if not training:
            return training
        from pal.training.options import check_options

        checked, mistakes = check_options(training)
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return checked


class TrainingSettings(OptionSettings):
    """A command that trains.

    Attributes:
        seed: random seed of initial weights, the order of samples, and dropout.
        global_batch_size: training samples per update, summed over all processes. With it the
            trained model is the same on any number of processes, and a run may continue on a
            different number. When null, training.per_device_train_batch_size and
            gradient_accumulation_steps decide.
        early_stopping_patience: stop after this many validations in a row without improvement.
        architecture: what training starts from.
    """

    seed: Seed = 42
    global_batch_size: Count | None = None
    early_stopping_patience: Count | None = None
    architecture: ArchitectureSettings = ArchitectureSettings()
