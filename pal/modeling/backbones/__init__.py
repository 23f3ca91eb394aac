"""The families of pretrained models that PAL builds on: one file each, one line here.

A name is the ``model_type`` of the family's own configuration, which a pretrained base tells and
``architecture.from_scratch.model_type`` may give. See :class:`pal.modeling.backbones.base.Backbone`
for what a file holds. A family from outside of the package is ``their_package.module:Class``, in
``architecture.backbone``.
"""

from importlib import import_module
from typing import Any

from pal.core.errors import ConfigError
from pal.core.registry import Registry

BACKBONES = Registry(
    "backbone",
    {
        "blenderbot-small": "pal.modeling.backbones.blenderbot_small:BlenderbotSmall",
        "bart": "pal.modeling.backbones.bart:Bart",
        "t5": "pal.modeling.backbones.t5:T5",
        "blenderbot": "pal.modeling.backbones.blenderbot:Blenderbot",
        "misc": "pal.modeling.backbones.misc:Misc",
        "decoder-only": "pal.modeling.backbones.decoder_only:DecoderOnly",
    },
    classes=True,
)


def get_backbone(name: str, *, trusted: bool = False) -> Any:
    """Return a family; one from outside is checked, and its configuration registered.

    Args:
        name: a key of ``BACKBONES``, or ``their_package.module:Class``.
        trusted: whether the name comes from the user's own settings; one from a checkpoint imports
            nothing unless the user gave it to this process (:func:`pal.core.registry.trust`).

    Raises:
        ConfigError: no such family, one that is not trusted, or a class that is no family.

    Example:
        >>> get_backbone("my_lab.pegasus:Pegasus", trusted=True)
    """
    found = BACKBONES.find(name, trusted=trusted)
    if name not in BACKBONES:
        mistake = _mistake(found)
        if mistake:
            raise ConfigError(f"backbone {name!r} {mistake}")
        if found.decoder_only:
            return found
        found.config_class.backbone = name  # what its checkpoints say
        auto: Any = import_module("transformers").AutoConfig
        auto.register(found.config_class.model_type, found.config_class, exist_ok=True)
    return found


def _mistake(found: Any) -> str | None:
    """Return what keeps a class from outside from being a family; None where nothing does."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    from pal.modeling.backbones.base import Backbone
    from pal.modeling.configuration import CONFIGURATIONS, PalEntries

    if not issubclass(found, Backbone):
        return "is not a subclass of pal.modeling.backbones.base.Backbone"
    if found.decoder_only:
        return None
    for attribute in ("name", "config_class", "model_class", "tokenizer_class"):
        if not hasattr(found, attribute):
            return f"has no {attribute}; see pal.modeling.backbones.base.Backbone"
    config = found.config_class
    if not (isinstance(config, type) and issubclass(config, PalEntries)):
        return "has a config_class without pal.modeling.configuration.PalEntries"
    taken = {*CONFIG_MAPPING_NAMES, *(known.model_type for known in CONFIGURATIONS), ""}
    if config.model_type in taken:
        return (
            f"has a config_class with the model_type {config.model_type!r}, which is another "
            "model's; give it one of its own"
        )
    return None
