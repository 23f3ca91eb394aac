"""Blenderbot (Roller et al., 2021), 400M and larger: PAL on it. The library decodes."""

from torch import Tensor
from transformers import BlenderbotForConditionalGeneration, BlenderbotTokenizer

from pal.modeling.backbones.base import Backbone
from pal.modeling.configuration import PalBlenderbotConfig
from pal.modeling.pal import PalMixin


class PalBlenderbotForConditionalGeneration(  # type: ignore[misc]  # generate takes forward's inputs
    PalMixin, BlenderbotForConditionalGeneration
):
    """PAL's response model on Blenderbot, whose own embeddings scale themselves.

    Published ones have 128 positions for either input and for the response.

    Example:
        >>> model = PalBlenderbotForConditionalGeneration.from_pretrained("runs/blenderbot").eval()
        >>> model.generate(**inputs, strategy="Question", alpha={"Question": 0.5})
    """

    config_class = PalBlenderbotConfig
    config: PalBlenderbotConfig

    def project(self, hidden: Tensor) -> Tensor:
        """Return the logits, [..., V], of the decoder's states, [..., d]."""
        return self.lm_head(hidden) + self.final_logits_bias


class Blenderbot(Backbone):
    """Blenderbot; from scratch it has the sizes of ``facebook/blenderbot-400M-distill``."""

    name = "blenderbot"
    start = "bos"
    config_class = PalBlenderbotConfig
    model_class = PalBlenderbotForConditionalGeneration
    tokenizer_class = BlenderbotTokenizer
    sizes = {
        "d_model": 1280, "encoder_layers": 2, "decoder_layers": 12, "encoder_ffn_dim": 5120,
        "decoder_ffn_dim": 5120, "scale_embedding": True,
    }  # fmt: skip
