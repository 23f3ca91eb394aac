"""``pal export``: a trained model as a plain folder that other programs load.

LoRA adapters are merged into their base, so that nothing but the library is needed to load it, and
engines that know no adapters take it.
"""

import logging
import re
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from pal.core.errors import ConfigError, OutputError
from pal.core.settings import INERT, CommandSettings, ModelSource, OutputPath

logger = logging.getLogger(__name__)


class ExportSettings(CommandSettings):
    """Write a trained model as a plain folder, LoRA adapters merged.

    Attributes:
        model: folder or hub id of the trained model: a response model or a persona extractor.
        output: folder to write.
        overwrite: replace an existing output.
        dtype: number format of the written weights.
        trusted_code: classes from outside the package that the model's configuration may name,
            their_package.module:Class.
        push_to: repository on the model hub, owner/name, to upload weights, configuration,
            tokenizer and model card to; null uploads nothing.
        private: make a new repository of push_to private.
    """

    examples = (
        "pal export model=runs/lora output=runs/merged",
        "pal export model=runs/lora output=runs/merged dtype=bfloat16",
    )

    model: ModelSource | None = None
    output: OutputPath | None = None
    overwrite: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    trusted_code: list[str] = []
    push_to: Annotated[str | None, INERT] = None
    private: Annotated[bool, INERT] = True


def export(settings: ExportSettings) -> Path:
    """Load ``model``, merge what is to merge, and write it to the folder ``output``.

    Raises:
        CheckpointError: the model cannot be loaded.
        ConfigError: ``push_to`` is no repository's name.
        OutputError: the folder holds something or cannot be written, or the hub refuses.
    """
    settings = ExportSettings.of(settings)
    source, target = settings.require("model", "output")
    output = Path(target)
    if settings.push_to and not re.fullmatch(r"[\w.-]+/[\w.-]+", settings.push_to):
        raise ConfigError(f"push_to={settings.push_to}: give a repository as owner/name")
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; give the name of a folder as output")
    if output.is_dir() and any(output.iterdir()) and not settings.overwrite:
        raise OutputError(f"{output} is not empty; choose another output, or overwrite=true")
    inside = Path(source).resolve()
    if Path(source).exists() and output.resolve() in (inside, *inside.parents):
        raise OutputError(f"output={output} holds the model itself; choose another output")
    if output.is_dir() and any(output.iterdir()) and not (output / "config.json").is_file():
        raise OutputError(
            f"{output} holds something that is not a model, which overwrite=true does not replace; "
            "choose another output"
        )
    from pal.core.files import new_folder
    from pal.core.job import output_lock
    from pal.core.registry import trust
    from pal.training.card import CARD, EVAL_RESULTS
    from pal.training.folder import tidy_saved_files

    trust(*settings.trusted_code)
    with output_lock(output):
        model, tokenizer = load_any(source, settings.dtype)
        with new_folder(output) as saving:
            model.save_pretrained(str(saving))
            tokenizer.save_pretrained(str(saving))
            tidy_saved_files(saving)
            if (inside / CARD).is_file():
                shutil.copyfile(inside / CARD, saving / CARD)
            if (inside / EVAL_RESULTS).is_dir():
                shutil.copytree(inside / EVAL_RESULTS, saving / EVAL_RESULTS)
    logger.info("written to %s", output)
    if settings.push_to:
        from pal.core.upload import upload_model

        place = upload_model(output, settings.push_to, private=settings.private)
        logger.info("uploaded: %s", place)
    return output


def load_any(source: str, dtype: str) -> tuple[Any, Any]:
    """Load a response model or a persona extractor, and its tokenizer.

    Raises:
        CheckpointError: neither of the two is there.
    """
    from pal.modeling.checkpoint import is_response_model, read_model_config
    from pal.modeling.responder import load_model_and_tokenizer
    from pal.persona.extractor import load_extractor

    if is_response_model(read_model_config(source, f"model={source}")):
        return load_model_and_tokenizer(source, dtype)
    return load_extractor(source, dtype)
