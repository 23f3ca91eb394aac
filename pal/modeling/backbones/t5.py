"""T5, also v1.1 and Flan-T5 (Raffel et al., 2020): PAL on it. The library decodes."""

from typing import Any

from torch import Tensor
from transformers import T5ForConditionalGeneration, T5Tokenizer

from pal.modeling.backbones.base import Backbone
from pal.modeling.configuration import PalT5Config
from pal.modeling.pal import PalMixin


class PalT5ForConditionalGeneration(  # type: ignore[misc]  # generate takes forward's inputs
    PalMixin, T5ForConditionalGeneration
):
    """PAL's response model on T5, whose positions are relative, so that none is the last.

    Example:
        >>> model = PalT5ForConditionalGeneration.from_pretrained("runs/t5").eval()
        >>> model.generate(**inputs, strategy="Question", alpha={"Question": 0.5})
    """

    config_class = PalT5Config
    config: PalT5Config

    def __init__(self, config: PalT5Config):
        if config.own_head:
            self._leave_head_untied()
        super().__init__(config)

    def tie_weights(self, missing_keys: Any = None, recompute_mapping: bool = True) -> None:
        """Tie all embeddings, and the head unless the weights that are read hold another one.

        Args:
            missing_keys: what files of weights do not hold, once they are read.
            recompute_mapping: whether what is tied may have changed.
        """
        super().tie_weights(missing_keys=missing_keys, recompute_mapping=recompute_mapping)
        if missing_keys is not None and self.lm_head.weight is not self.shared.weight:
            self.config.own_head = True
            self._leave_head_untied()

    def _leave_head_untied(self) -> None:
        tied = dict(type(self)._tied_weights_keys)
        del tied["lm_head.weight"]
        self._tied_weights_keys = tied

    def project(self, hidden: Tensor) -> Tensor:
        """Return the logits, [..., V], of the decoder's states, [..., d].

        The first T5 projects by the embeddings and scales states for it; v1.1 and Flan-T5 have a
        head of their own, which is trained for states as they are.
        """
        scaled: Any = self.config.scale_decoder_outputs  # type: ignore[attr-defined]
        return self.lm_head(hidden * self.config.d_model**-0.5 if scaled else hidden)


class T5(Backbone):
    """T5; a model from scratch has the sizes of ``google-t5/t5-small``.

    One of v1.1 has ``feed_forward_proj: gated-gelu, tie_word_embeddings: false`` among its sizes.
    """

    name = "t5"
    start = "pad"
    config_class = PalT5Config
    model_class = PalT5ForConditionalGeneration
    tokenizer_class = T5Tokenizer
