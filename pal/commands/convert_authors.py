"""``pal convert-authors``: convert a checkpoint of released code to a model folder."""

import logging
from pathlib import Path

from pal.core.settings import AnyModelSource, CommandSettings, InputPath, OutputPath

logger = logging.getLogger(__name__)


class ConvertAuthorsSettings(CommandSettings):
    """Turn a checkpoint of released code, PAL's or MISC's, into a model.

    Attributes:
        state_dict: file of the weights: .bin or .pt (code in it is never executed) or .safetensors.
        config: the config.json that belongs to it.
        output: folder to write.
        tokenizer: folder or hub id of Blenderbot-small's tokenizer, which is saved with the model,
            including the added tokens.
    """

    examples = (
        "pal convert-authors pytorch_model.bin config=config.json output=runs/authors "
        "tokenizer=facebook/blenderbot_small-90M",
        "pal convert-authors weights.safetensors config=config.json output=runs/authors",
    )
    positional = "state_dict"

    state_dict: InputPath | None = None
    config: InputPath | None = None
    output: OutputPath | None = None
    tokenizer: AnyModelSource | None = None


def convert_authors(settings: ConvertAuthorsSettings) -> Path:
    """Convert ``state_dict`` with ``config`` into the folder ``output``, and return the folder.

    Raises:
        CheckpointError: files are missing, unreadable, or not those of the authors' model.
        OutputError: the folder is not empty.
    """
    settings = ConvertAuthorsSettings.of(settings)
    weights, config, output = settings.require("state_dict", "config", "output")
    from pal.data.tokenizer import load_tokenizer
    from pal.modeling.authors import convert_checkpoint

    tokenizer = None
    if settings.tokenizer is not None:  # read first: a failure then writes nothing
        tokenizer = load_tokenizer(settings.tokenizer)
    folder = convert_checkpoint(weights, config, output, tokenizer)
    if tokenizer is None:
        logger.info("no tokenizer given; copy its files into the folder before pal generate")
    logger.info("written to %s", folder)
    return folder
