"""Decoder-only language models (Llama, Qwen, SmolLM2, …): the persona is text, the model is theirs.

The library's own class is trained and saved, so that there is no configuration or model of ours
here; see :mod:`pal.modeling.language` for loading and building, :mod:`pal.data.chat` for the text
and :mod:`pal.decoding.language` for the engine.
"""

from typing import Any

from pal.modeling.backbones.base import Backbone


class DecoderOnly(Backbone):
    """Any causal language model of the library."""

    name = "decoder-only"
    decoder_only = True

    @classmethod
    def prepare_tokenizer(cls, tokenizer: Any) -> Any:
        """Return the tokenizer as it is: strategies are plain text."""
        return tokenizer

    @classmethod
    def token_entries(cls, tokenizer: Any) -> dict[str, list[int]]:
        """Return nothing: no token has a meaning of its own."""
        return {}

    @classmethod
    def make_responder(cls, model: Any, tokenizer: Any, decoding: Any, seed: int) -> Any:
        """Return what answers samples with a model of the family.

        Raises:
            ConfigError: decoding settings that contradict each other or the model.
        """
        from pal.modeling.language_responder import LanguageResponder

        return LanguageResponder(model, tokenizer, decoding, seed)
