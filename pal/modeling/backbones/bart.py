"""BART (Lewis et al., 2020): PAL on it. The library decodes."""

from torch import Tensor
from transformers import BartForConditionalGeneration, BartTokenizer

from pal.modeling.backbones.base import Backbone
from pal.modeling.configuration import PalBartConfig
from pal.modeling.pal import PalMixin


class PalBartForConditionalGeneration(  # type: ignore[misc]  # generate takes forward's inputs
    PalMixin, BartForConditionalGeneration
):
    """PAL's response model on BART, whose own embeddings scale themselves.

    Example:
        >>> model = PalBartForConditionalGeneration.from_pretrained("runs/bart").eval()
        >>> model.generate(**inputs, strategy="Question", alpha={"Question": 0.5})
    """

    config_class = PalBartConfig
    config: PalBartConfig

    def project(self, hidden: Tensor) -> Tensor:
        """Return the logits, [..., V], of the decoder's states, [..., d]."""
        return self.lm_head(hidden) + self.final_logits_bias


class Bart(Backbone):
    """BART; a model from scratch has the sizes of ``facebook/bart-base``."""

    name = "bart"
    start = "eos"
    config_class = PalBartConfig
    model_class = PalBartForConditionalGeneration
    tokenizer_class = BartTokenizer
    sizes = {
        "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12,
        "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
    }  # fmt: skip
