"""The persona extractor, which infers persona sentences from the utterances of one speaker.

It is BART fine-tuned on PersonaChat (PAL paper, section 3.2 and appendix A). The input joins
utterances by ``<sep>``, the target joins persona sentences by ``<persona>``; both are added tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pal.core.errors import CheckpointError, ConfigError, first_line
from pal.data.batches import lengths_mask, pad, plan_batches
from pal.data.spilled import RecentTexts
from pal.data.tokenizer import check_fit, load_tokenizer, text_encoder
from pal.modeling.checkpoint import (
    REACHABLE,
    build_of_sizes,
    check_sizes,
    is_response_model,
    read_model_config,
    read_weights,
    scaled_init,
)
from pal.modeling.language import language_task, load_language_model
from pal.modeling.packed import packed_model

SEPARATORS = ("<sep>", "<persona>")


class ExtractorEncoder:
    """Converts utterances and persona sentences to token ids; a text is tokenised once.

    Args:
        tokenizer: a tokenizer with ``<sep>`` and ``<persona>``.
        max_source_tokens: maximum input length, in tokens; the newest utterances that fit are kept.
        max_target_tokens: maximum target length, in tokens.
    """

    def __init__(self, tokenizer: Any, *, max_source_tokens: int, max_target_tokens: int):
        self.tokenizer = tokenizer
        self.max_source_tokens = max_source_tokens
        self.max_target_tokens = max_target_tokens
        self.sep, self.persona = tokenizer.convert_tokens_to_ids(list(SEPARATORS))
        probe = tokenizer("a", add_special_tokens=True).input_ids
        self.start = probe[:1] if probe[0] == tokenizer.bos_token_id else []
        self._ids: RecentTexts[str] = RecentTexts()
        self._tokenise = text_encoder(tokenizer)

    @classmethod
    def from_config(cls, tokenizer: Any, config: Any) -> "ExtractorEncoder":
        """Build the encoder that the configuration of a trained extractor describes."""
        positions = getattr(config, "max_position_embeddings", 1024)
        return cls(
            tokenizer,
            max_source_tokens=getattr(config, "max_source_tokens", positions),
            max_target_tokens=getattr(config, "max_target_tokens", positions),
        )

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a text, without start or end token."""
        found = self._ids.get(text)
        if found is None:
            found = self._ids[text] = self._tokenise(text)
        return found

    def encode_source(self, utterances: Sequence[str]) -> list[int]:
        """Return the input of one speaker's utterances, oldest dropped first."""
        room = self.max_source_tokens - len(self.start) - 1
        kept: list[int] = []
        for utterance in reversed(utterances):
            ids = self.ids(utterance) + ([self.sep] if kept else [])
            if len(kept) + len(ids) > room:
                kept = kept or ids[-room:]
                break
            kept = ids + kept
        return [*self.start, *kept, self.tokenizer.eos_token_id]

    def encode_target(self, sentences: Sequence[str]) -> list[int]:
        """Return the target of persona sentences; a truncated target has no end token."""
        joined: list[int] = list(self.start)
        for index, sentence in enumerate(sentences):
            joined += ([self.persona] if index else []) + self.ids(sentence)
        return [*joined, self.tokenizer.eos_token_id][: self.max_target_tokens]

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Return the sentences between ``<persona>`` tokens of a generated sequence."""
        sentences: list[list[int]] = [[]]
        for token in ids:
            if token == self.persona:
                sentences.append([])
            else:
                sentences[-1].append(token)
        return [
            self.tokenizer.decode(
                sentence, skip_special_tokens=True, clean_up_tokenization_spaces=True
            ).strip()
            for sentence in sentences
        ]


def beam_cache(config: Any) -> Any:
    """Return a cache for beam search that does not reorder the encoder's keys and values.

    Beams change places within their own row only, and those of a row read the same encoder states,
    so the library's copy of these, which are most of the cache, changes nothing at each step.

    Args:
        config: of the decoder, whose number of layers may be its own.
    """
    from transformers import DynamicCache, EncoderDecoderCache

    class BeamCache(EncoderDecoderCache):
        def reorder_cache(self, beam_idx: Any) -> None:
            self.self_attention_cache.reorder_cache(beam_idx)

    return BeamCache(DynamicCache(config=config), DynamicCache(config=config))


def beam_budget(batch_tokens: int, num_beams: int) -> int:
    """Return the number of encoder positions of a batch, each of which is stored once per beam."""
    return max(batch_tokens // num_beams, 1)


class BeamExtractor:
    """Runs the extractor on batches of token ids."""

    def __init__(self, model: Any, encoder: ExtractorEncoder, *, num_beams: int, max_new: int):
        from transformers import GenerationConfig

        self.model, self.encoder = packed_model(model), encoder
        config = model.config
        self.options = GenerationConfig(
            num_beams=num_beams,
            max_new_tokens=max_new,
            do_sample=False,
            early_stopping=num_beams > 1,
            decoder_start_token_id=config.decoder_start_token_id,
            pad_token_id=config.pad_token_id,
            eos_token_id=config.eos_token_id,
            bos_token_id=config.bos_token_id,
        )

    @property
    def encode_source(self) -> Callable[[Sequence[str]], list[int]]:
        """What returns the input of one speaker's utterances."""
        return self.encoder.encode_source

    def plan(self, sources: Sequence[Sequence[int]], *, tokens: int, rows: int) -> list[list[int]]:
        """Group inputs of similar length: long ones together.

        Args:
            sources: N inputs.
            tokens: encoder positions that a batch holds at most, once for every beam.
            rows: inputs that a batch holds at most.
        """
        budget = beam_budget(tokens, int(self.options.num_beams or 1))
        return plan_batches(list(map(len, sources)), max_tokens=budget, max_rows=rows)

    def __call__(self, sources: Sequence[list[int]]) -> list[list[str]]:
        """Return the sentences inferred from each source."""
        import torch

        device = self.model.device
        with torch.inference_mode():
            generated = self.model.generate(
                input_ids=pad(sources, self.model.config.pad_token_id).to(device),
                attention_mask=lengths_mask(sources).to(device),
                generation_config=self.options,
                past_key_values=beam_cache(self.model.get_decoder().config),
            )
        return [self.encoder.decode(row) for row in generated[:, 1:].tolist()]


def add_separators(model: Any, tokenizer: Any) -> Any:
    """Add the two separators to tokenizer and model, and clear inherited generation options."""
    from transformers import GenerationConfig

    tokenizer.add_tokens(list(SEPARATORS), special_tokens=True)
    if model.get_input_embeddings().num_embeddings < len(tokenizer):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=model.config.decoder_start_token_id,
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    return model


def load_extractor(source: str, dtype: str = "float32", *, key: str = "model") -> tuple[Any, Any]:
    """Load a trained extractor: (model, tokenizer).

    Args:
        source: folder or hub id.
        dtype: number format of the weights.
        key: the setting that named it, for messages.

    Raises:
        CheckpointError: the source is missing, or the model is not a persona extractor.
    """
    from transformers import AutoModelForSeq2SeqLM

    where = f"{key}={source}"
    config, tokenizer = read_extractor(source, where)
    if language_task(config):
        return _fitting(load_language_model(source, config, dtype), tokenizer, where)
    model = read_weights(AutoModelForSeq2SeqLM, source, config, where, dtype=dtype)
    return _fitting(model.eval(), tokenizer, where)


def read_extractor(source: str, where: str) -> tuple[Any, Any]:
    """Read a trained extractor without its weights: (configuration, tokenizer).

    Args:
        source: folder or hub id.
        where: the setting that named it, for messages.

    Raises:
        CheckpointError: the source is missing, or the model is not a persona extractor.

    Example:
        >>> config, tokenizer = read_extractor("runs/extractor", "extractor=runs/extractor")
    """
    remedy = "give the folder that task=persona_extractor wrote"
    config = read_model_config(source, where, remedy=remedy)
    if language_task(config) == "persona_extractor":
        return config, load_tokenizer(source)
    tokenizer = None if is_response_model(config) else load_tokenizer(source)
    if tokenizer is None or not set(SEPARATORS) <= set(tokenizer.get_vocab()):
        raise CheckpointError(
            f"{where}: a {config.model_type} model, but not a persona extractor; {remedy}"
        )
    return config, tokenizer


def _fitting(model: Any, tokenizer: Any, where: str) -> tuple[Any, Any]:
    check_fit(tokenizer, model, where)
    return model, tokenizer


def make_extractor(model: Any, tokenizer: Any, *, num_beams: int, max_new: int, rows: int) -> Any:
    """Return what infers sentences with a trained extractor, as its family has it.

    Args:
        model: from :func:`load_extractor`.
        tokenizer: likewise.
        num_beams: beam width.
        max_new: longest output, tokens.
        rows: inputs at once, at most.
    """
    if language_task(model.config):
        from pal.persona.language_extractor import LanguageExtractor

        return LanguageExtractor(model, tokenizer, num_beams=num_beams, max_new=max_new, rows=rows)
    encoder = ExtractorEncoder.from_config(tokenizer, model.config)
    return BeamExtractor(model, encoder, num_beams=num_beams, max_new=max_new)


def build_extractor(
    *,
    base: str,
    from_scratch: dict[str, Any] | None,
    tokenizer: Any,
) -> Any:
    """Build the model to train: the pretrained ``base``, or random weights of given sizes.

    Raises:
        CheckpointError: the base cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    if from_scratch is not None:
        sizes = dict(from_scratch)
        model_type = sizes.pop("model_type", "bart")
        try:
            known = AutoConfig.for_model(model_type)
        except ValueError as error:
            raise ConfigError(
                f"architecture.from_scratch.model_type: {first_line(error)}"
            ) from error
        check_sizes(sizes, known)

        def make_config() -> Any:
            return AutoConfig.for_model(
                model_type,
                vocab_size=len(tokenizer) + len(SEPARATORS),
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                decoder_start_token_id=tokenizer.eos_token_id,
                forced_eos_token_id=None,
                **{**scaled_init(sizes), **sizes},
            )

        model = build_of_sizes(make_config, AutoModelForSeq2SeqLM)
        return add_separators(model, tokenizer)
    where = f"architecture.base={base}"
    config = read_model_config(base, where, own=False, remedy=REACHABLE)
    model = read_weights(AutoModelForSeq2SeqLM, base, config, where, own=False)
    return add_separators(model, tokenizer)
