"""The families of pretrained models that PAL builds on: one file each, one line here.

A name is the ``model_type`` of the family's own configuration, which a pretrained base tells and
``architecture.from_scratch.model_type`` may give. See :class:`pal.modeling.backbones.base.Backbone`
for what a file holds.
"""

from pal.core.registry import Registry

BACKBONES = Registry(
    "backbone",
    {"blenderbot-small": "pal.modeling.backbones.blenderbot_small:BlenderbotSmall"},
)
