"""What a backbone tells about its family of models."""

from typing import Any, ClassVar

from pal.core.errors import ConfigError
from pal.data.tokenizer import add_pal_tokens, check_strategy_tokens, special_token_ids


class Backbone:
    """A family of pretrained models, as PAL builds on it.

    A new one is a subclass in a file of its own, with the two classes that the library needs:

    - a configuration: the family's own with :class:`pal.modeling.configuration.PalEntries`, in
      that module, which needs no torch (one from outside of the package is anywhere, with a
      ``model_type`` of its own);
    - a model: for an encoder-decoder the family's own with :class:`pal.modeling.pal.PalMixin`,
      whose hooks say how its embeddings are scaled, how hidden states become logits and, where it
      has one, what its fast decoder is. Without a fast decoder the library's ``generate`` decodes,
      with the same responses and records.

    Attributes:
        name: the ``model_type`` of pretrained models of the family.
        config_class: configuration of response models; its ``backbone`` is ``name``.
        model_class: the response model.
        tokenizer_class: of its tokenizer, where a folder does not tell.
        sizes: entries of the configuration that a model from scratch gets, unless it is told
            otherwise.
        start: which of the tokenizer's special tokens the decoder starts with, ``bos``, ``eos`` or
            ``pad``; None leaves all tokens of a model from scratch as its configuration has them.
        builds_on: the ``model_type`` of the pretrained models that it starts from, where that is
            not ``name``.
        new_weights: pattern of the names of weights that a pretrained model does not have.
        reads_knowledge: whether it reads ``data.knowledge``.
        decoder_only: whether models are the library's own causal language models, without the
            classes above.
    """

    name: ClassVar[str]
    config_class: ClassVar[Any]
    model_class: ClassVar[Any]
    tokenizer_class: ClassVar[Any]
    sizes: ClassVar[dict[str, Any]] = {}
    start: ClassVar[str | None] = None
    builds_on: ClassVar[str | None] = None
    new_weights: ClassVar[str] = r"fusion\..*"
    reads_knowledge: ClassVar[bool] = False
    decoder_only: ClassVar[bool] = False

    @classmethod
    def prepare_tokenizer(cls, tokenizer: Any) -> Any:
        """Give a tokenizer of the family the tokens that PAL's text needs, and return it.

        Raises:
            CheckpointError: it cannot hold a strategy as one token.
        """
        return add_pal_tokens(tokenizer)

    @classmethod
    def token_entries(cls, tokenizer: Any) -> dict[str, list[int]]:
        """Return what a configuration says of a prepared tokenizer."""
        return {
            "strategy_token_ids": check_strategy_tokens(tokenizer),
            "special_token_ids": special_token_ids(tokenizer),
        }

    @classmethod
    def own_entries(cls, architecture: Any, *, knowledge: bool) -> dict[str, Any]:
        """Return the entries of a configuration that settings decide besides limits and tokens.

        Args:
            architecture: the settings.
            knowledge: whether there is knowledge in the data.

        Raises:
            ConfigError: settings that the family cannot have.
        """
        if architecture.misc_mode is not None:
            raise ConfigError(
                f"architecture.misc_mode is for MISC, and this model is of {cls.name} models; "
                "leave it out, or give architecture.backbone=misc"
            )
        if knowledge:
            raise ConfigError(
                "only MISC reads data.knowledge; leave it out, or give architecture.backbone=misc"
            )
        return {
            "persona_mode": architecture.persona_mode or "fusion",
            "template": architecture.template or "clean",
        }

    @classmethod
    def slug(cls, architecture: Any) -> str:
        """Return what a model is, for names of files."""
        kind = architecture.persona_mode or "fusion"
        return f"{kind}-{architecture.fusion}" if kind == "fusion" else kind

    @classmethod
    def scratch_entries(cls, tokenizer: Any) -> dict[str, Any]:
        """Return the special tokens of a model from scratch, unless its sizes say otherwise.

        Args:
            tokenizer: of the model.
        """
        if cls.start is None:
            return {}
        ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
        entries = {f"{name}_token_id": token for name, token in ids.items() if token is not None}
        known = {name: e for name, e in entries.items() if hasattr(cls.config_class, name)}
        return {**known, "decoder_start_token_id": ids[cls.start]}

    @classmethod
    def check_decoding(cls, decoding: Any) -> None:
        """Check for settings that no model of the family can be decoded with.

        Raises:
            ConfigError: there is one.
        """

    @classmethod
    def make_responder(cls, model: Any, tokenizer: Any, decoding: Any, seed: int) -> Any:
        """Return what answers samples with a model of the family.

        Raises:
            ConfigError: decoding settings that contradict each other or the model.
        """
        from pal.modeling.responder import Responder

        cls.check_decoding(decoding)
        return Responder(model, tokenizer, decoding, seed)
