"""COMET (Bosselut et al., 2019; Hwang et al., 2021): an encoder-decoder that completes events.

A query is ``EVENT RELATION [GEN]``, and the beams are the tails. Published ones are BART and T5
models fine-tuned on ATOMIC 2020.
"""

from collections.abc import Sequence
from typing import Any

from pal.core.errors import CheckpointError, ConfigError
from pal.data.batches import lengths_mask, pad, plan_batches
from pal.data.knowledge import RELATIONS
from pal.data.texts import normalise_text
from pal.data.tokenizer import check_fit, load_tokenizer
from pal.knowledge.queries import clean_tails
from pal.modeling.checkpoint import (
    REACHABLE,
    is_response_model,
    read_model_config,
    read_weights,
)
from pal.modeling.packed import packed_model

GENERATE = "[GEN]"  # what a query ends with


def load_comet(source: str, dtype: str = "float32") -> tuple[Any, Any]:
    """Load a COMET model and its tokenizer.

    Args:
        source: folder or hub id.
        dtype: number format of the weights.

    Raises:
        CheckpointError: nothing there, or another kind of model.
    """
    from transformers import AutoModelForSeq2SeqLM

    where = f"model={source}"
    config = read_model_config(source, where, own=False, remedy=REACHABLE)
    if is_response_model(config) or not config.is_encoder_decoder:
        raise CheckpointError(
            f"{where}: a {config.model_type} model, not a COMET model; give an encoder-decoder "
            "fine-tuned on ATOMIC, such as COMET-BART, or annotate.knowledge=llm"
        )
    model = read_weights(AutoModelForSeq2SeqLM, source, config, where, dtype=dtype, own=False)
    tokenizer = load_tokenizer(source)
    check_fit(tokenizer, model, where)
    return model.eval(), tokenizer


class Comet:
    """Asks a COMET model for all relations of texts.

    Args:
        model: from :func:`load_comet`.
        tokenizer: likewise.
        tails: of a relation, at most.
        num_beams: beam width, from which the tails come.
        max_new: longest tail, tokens.

    Raises:
        ConfigError: fewer beams than tails.
    """

    def __init__(self, model: Any, tokenizer: Any, *, tails: int, num_beams: int, max_new: int):
        if num_beams < tails:
            raise ConfigError(
                f"annotate.num_beams={num_beams} gives fewer than annotate.tails={tails}; raise "
                "one or lower the other"
            )
        from transformers import GenerationConfig

        self.model, self.tokenizer, self.tails = packed_model(model), tokenizer, tails
        config = model.config
        self.options = GenerationConfig(
            num_beams=num_beams, num_return_sequences=tails, max_new_tokens=max_new,
            do_sample=False, early_stopping=num_beams > 1,
            decoder_start_token_id=config.decoder_start_token_id,
            pad_token_id=config.pad_token_id, eos_token_id=config.eos_token_id,
            bos_token_id=config.bos_token_id,
        )  # fmt: skip
        self.longest = getattr(config, "max_position_embeddings", None)

    def encode(self, text: str, relation: str) -> list[int]:
        """Return the token ids of a query; a text too long loses its beginning."""
        ids: list[int] = self.tokenizer(f"{normalise_text(text)} {relation} {GENERATE}").input_ids
        return ids if self.longest is None else ids[:1] + ids[1:][-(self.longest - 1) :]

    def plan(self, queries: Sequence[Sequence[int]], *, tokens: int, rows: int) -> list[list[int]]:
        """Group queries of similar length.

        Args:
            queries: N of them.
            tokens: encoder positions that a batch holds at most, once for every beam.
            rows: queries that a batch holds at most.
        """
        budget = max(tokens // int(self.options.num_beams or 1), 1)
        return plan_batches(list(map(len, queries)), max_tokens=budget, max_rows=rows)

    def __call__(self, queries: Sequence[Sequence[int]]) -> list[list[str]]:
        """Return the tails of each query, the best first."""
        import torch

        device = self.model.device
        with torch.inference_mode():
            generated = self.model.generate(
                input_ids=pad(queries, self.model.config.pad_token_id).to(device),
                attention_mask=lengths_mask(queries).to(device),
                generation_config=self.options,
            )
        texts = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
        return [
            clean_tails(texts[first : first + self.tails], self.tails)
            for first in range(0, len(texts), self.tails)
        ]


def all_queries(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return every text with every relation."""
    return [(text, name) for text in texts for name in RELATIONS]
