"""Settings: how a model is trained."""

from typing import Annotated, Any

from pydantic import model_validator

from pal.core.settings import CommandSettings, Count, KeysFrom
from pal.modeling.settings import ArchitectureSettings


class OptionSettings(CommandSettings):
    """A command that takes the options of transformers' trainer.

    Attributes:
        training: options of transformers' Seq2SeqTrainingArguments, by their own names.
    """

    training: Annotated[dict[str, Any], KeysFrom("pal.training.options:option_names")] = {}

    @model_validator(mode="after")
    def _check_options(self) -> "OptionSettings":
        if self.training:
            from pal.training.options import check_options

            checked, mistakes = check_options(self.training)
            if mistakes:
                raise ValueError("; ".join(mistakes))
            self.__dict__["training"] = checked
        return self


class TrainingSettings(OptionSettings):
    """A command that trains.

    Attributes:
        seed: decides initial weights, the order of samples and dropout.
        global_batch_size: samples of an update, over all processes together; then the model is
            the same on any number of them, and a run may continue on another number. By default
            what ``training.per_device_train_batch_size`` and ``gradient_accumulation_steps`` come
            to.
        early_stopping_patience: stop after so many validations without improvement.
        architecture: what training starts from.
    """

    seed: int = 42
    global_batch_size: Count | None = None
    early_stopping_patience: Count | None = None
    architecture: ArchitectureSettings = ArchitectureSettings()
