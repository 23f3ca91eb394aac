"""PAL's response model: Blenderbot-small whose decoder reads persona-fused dialogue states.

Shapes: B batch, D dialogue tokens, P persona tokens, L fused positions, T target tokens,
d model width, V vocabulary.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BlenderbotSmallForConditionalGeneration,
    BlenderbotSmallTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import ModelOutput

from pal.decoding.contrast import ContrastiveCache
from pal.decoding.noise import GumbelSampler, keyed_gumbel, sample_keys
from pal.modeling.configuration import PalConfig
from pal.modeling.fusion import CoAttentionFusion, build_fusion, pad_to

# The library's own values of the sampling options. Drawing is done by our last processor, so the
# library searches greedily and gets these, which its checks let pass.
SAMPLING_DEFAULTS = {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0}


class EncodedInputs(NamedTuple):
    """What the decoder reads, with persona and without.

    Attributes:
        states: fused states, [B, L, d]; the dialogue's own where there is no persona to fuse.
        mask: [B, L], 1 = keep.
        dialogue_states: H_D, [B, D, d].
        dialogue_mask: [B, D].
    """

    states: Tensor
    mask: Tensor
    dialogue_states: Tensor
    dialogue_mask: Tensor

    @property
    def is_fused(self) -> bool:
        """Whether a persona went into ``states``."""
        return self.states is not self.dialogue_states

    def rows(self, index: Sequence[int]) -> "EncodedInputs":
        """Return some of the rows."""
        states, mask = self.states[index], self.mask[index]
        if not self.is_fused:
            return EncodedInputs(states, mask, states, mask)
        return EncodedInputs(states, mask, self.dialogue_states[index], self.dialogue_mask[index])


@dataclass
class PalGenerateOutput(ModelOutput):
    """What ``generate(..., return_strategies=True)`` returns.

    Attributes:
        sequences: start token, strategy token, response, [B, T].
        strategy_ids: the strategy each row was generated with, 0 to 7, [B].
        strategy_probs: the model's strategy distribution, [B, 8].
        alpha: the contrast weight each row was generated with, [B].
    """

    sequences: Tensor | None = None
    strategy_ids: Tensor | None = None
    strategy_probs: Tensor | None = None
    alpha: Tensor | None = None


class PalForConditionalGeneration(BlenderbotSmallForConditionalGeneration):
    """Persona-augmented response model (PAL paper, section 3.3).

    One encoder reads dialogue and persona; a fusion joins the two; the decoder predicts strategy
    token, response and end token. In persona modes ``prompt`` and ``none`` there is no fusion and
    the model is Blenderbot-small on what the text holds.
    """

    config_class = PalConfig
    config: PalConfig
    accepts_loss_kwargs = True  # the loss below honours ``num_items_in_batch``

    def __init__(self, config: PalConfig):
        super().__init__(config)
        # transformers 5 defines the decoder's embedding scale but does not apply it, though the
        # published weights were trained with it; embeddings are passed to the decoder scaled.
        self.embed_scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.fusion = (
            build_fusion(config.fusion, config.d_model) if config.persona_mode == "fusion" else None
        )
        if self.fusion is not None and self.fusion.common_length:
            # There padding is attended to, and the released code (which resizes the embeddings and
            # so forgets the padding index) trains its row.
            encoder, decoder = self.model.encoder, self.model.decoder
            for embedding in (self.model.shared, encoder.embed_tokens, decoder.embed_tokens):
                embedding.padding_idx = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CoAttentionFusion):
            module.reset_parameters()

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        persona_input_ids: Tensor | None = None,
        persona_attention_mask: Tensor | None = None,
    ) -> EncodedInputs:
        """Encode the dialogue and, where a persona is given in mode ``fusion``, fuse it in.

        Args:
            input_ids: dialogue tokens, right-padded, [B, D].
            attention_mask: [B, D]; all ones by default.
            persona_input_ids: persona tokens, right-padded, [B, P].
            persona_attention_mask: [B, P]; all ones by default.
        """
        ids, masks = self._encoder_inputs(
            input_ids, attention_mask, persona_input_ids, persona_attention_mask
        )
        return self._encode_embedded(self.embed(*ids), masks)

    def embed(self, *ids: Tensor) -> list[Tensor]:
        """Return the scaled embeddings of several inputs, [B, L] each, as [B, L, d] each.

        By one look-up: its backward then fills one gradient of the size of the whole table, where
        a look-up for each input would fill one for each.
        """
        flat = self.get_input_embeddings()(torch.cat([part.flatten() for part in ids]))
        parts = (flat * self.embed_scale).split([part.numel() for part in ids])
        return [part.view(*of.shape, -1) for part, of in zip(parts, ids, strict=True)]

    def _encoder_inputs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        persona_input_ids: Tensor | None,
        persona_attention_mask: Tensor | None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return ids and masks of what the encoder reads: the dialogue, and a persona to fuse."""
        ids, masks = [input_ids], [attention_mask]
        if self.fusion is not None and persona_input_ids is not None:
            ids, masks = [input_ids, persona_input_ids], [attention_mask, persona_attention_mask]
        kept = [
            torch.ones_like(of) if mask is None else mask.long()
            for of, mask in zip(ids, masks, strict=True)
        ]
        if self.fusion is not None and self.fusion.common_length:
            length = max(of.shape[1] for of in ids)
            ids, kept = ([pad_to(part, length) for part in parts] for parts in (ids, kept))
        return ids, kept

    def _encode_embedded(self, embedded: list[Tensor], masks: list[Tensor]) -> EncodedInputs:
        encoded = [
            self.model.encoder(inputs_embeds=part, attention_mask=mask)[0]
            for part, mask in zip(embedded, masks, strict=True)
        ]
        if self.fusion is None or len(encoded) == 1:
            return EncodedInputs(encoded[0], masks[0], encoded[0], masks[0])
        fused, fused_mask = self.fusion(encoded[0], masks[0], encoded[1], masks[1])
        return EncodedInputs(fused, fused_mask, encoded[0], masks[0])

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Shift labels [B, T] right behind the start token; ignored positions become padding."""
        shifted = torch.cat([self.start_tokens(len(labels)), labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id or 0)

    def start_tokens(self, rows: int) -> Tensor:
        """Return the decoder's start token for every row, [rows, 1]."""
        return torch.full((rows, 1), self.config.decoder_start_token_id or 0, device=self.device)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        persona_input_ids: Tensor | None = None,
        persona_attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        skip_logits: bool = False,
    ) -> Seq2SeqLMOutput | tuple:
        """Compute logits conditioned on dialogue and persona, and the loss (paper, equation 5).

        Without ``persona_input_ids`` the logits are those of the unfused dialogue.

        Args:
            input_ids: dialogue tokens, right-padded, [B, D].
            attention_mask: [B, D], 1 = keep; the mask of ``encoder_outputs`` when those are given.
            persona_input_ids: persona tokens, right-padded, [B, P].
            persona_attention_mask: [B, P], 1 = keep.
            decoder_input_ids: [B, T]; made from ``labels`` when left out.
            decoder_attention_mask: [B, T], 1 = keep.
            encoder_outputs: states to use instead of encoding, first element [B, L, d].
            past_key_values: a cache; a ``ContrastiveCache`` brings both branches' encoder states
                with it and makes the logits the contrasted ones (equation 6).
            labels: target tokens, −100 = ignored, [B, T].
            use_cache: whether to fill and return a cache.
            return_dict: False gives a tuple.
            num_items_in_batch: divisor of the summed loss; by default the number of target tokens.
            skip_logits: return the loss of ``labels`` without logits; ignored positions are then
                never projected to the vocabulary.
        """
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if decoder_input_ids is None:
            raise ValueError("forward needs decoder_input_ids or labels")

        mask: Tensor | None
        embedded = None
        contrast = past_key_values if isinstance(past_key_values, ContrastiveCache) else None
        if contrast is not None:
            states, mask = contrast.states, contrast.mask
            decoder_input_ids = contrast.both(decoder_input_ids)
            if decoder_attention_mask is not None:
                decoder_attention_mask = contrast.both(decoder_attention_mask)
        elif encoder_outputs is not None:
            states, mask = encoder_outputs[0], attention_mask
        elif input_ids is not None:
            ids, masks = self._encoder_inputs(
                input_ids, attention_mask, persona_input_ids, persona_attention_mask
            )
            *read, embedded = self.embed(*ids, decoder_input_ids)
            states, mask, *_ = self._encode_embedded(read, masks)
        else:
            raise ValueError("forward needs input_ids or encoder_outputs")

        if embedded is None:
            (embedded,) = self.embed(decoder_input_ids)
        decoded = self.model.decoder(
            inputs_embeds=embedded,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            past_key_values=past_key_values,
            use_cache=use_cache if labels is None else False,
        )
        hidden, targets = decoded.last_hidden_state, labels
        if labels is not None and skip_logits:
            hidden, targets = hidden[labels != -100], labels[labels != -100]
        logits = self.lm_head(hidden) + self.final_logits_bias
        if contrast is not None:
            logits = contrast.contrast(logits)

        loss = None
        if labels is not None and targets is not None:
            loss = F.cross_entropy(
                logits.flatten(0, -2).float(), targets.flatten(), reduction="sum", ignore_index=-100
            )
            loss = loss / (
                (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
            )
        output = Seq2SeqLMOutput(
            loss=loss,
            logits=None if skip_logits else logits,
            past_key_values=decoded.past_key_values,
            encoder_last_hidden_state=states if contrast is None else None,
        )
        return output if return_dict is not False else output.to_tuple()

    @torch.no_grad()
    def generate(  # type: ignore[override]  # ours takes the inputs by the names of forward
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        persona_input_ids: Tensor | None = None,
        persona_attention_mask: Tensor | None = None,
        *,
        encoded: EncodedInputs | None = None,
        strategy_ids: Sequence[int] | Tensor | None = None,
        strategy_choice: Literal["argmax", "sample"] = "argmax",
        alpha: float | Sequence[float] | Tensor | None = None,
        strategy_alpha: float | None = None,
        seed: int = 0,
        sample_ids: Sequence[str | int] | None = None,
        return_strategies: bool = False,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        **kwargs: Any,
    ) -> Any:
        """Predict a strategy for every row, then decode its response with that strategy's α.

        Sampling draws with noise keyed by (seed, sample id, step, token), so a response does not
        depend on its batch. All other options are those of the library's ``generate``.

        Args:
            input_ids: dialogue tokens, right-padded, [B, D].
            attention_mask: [B, D], 1 = keep.
            persona_input_ids: persona tokens, right-padded, [B, P].
            persona_attention_mask: [B, P], 1 = keep.
            encoded: what :meth:`encode` returned, instead of these four.
            strategy_ids: given strategies 0 to 7, [B]; predicted when left out.
            strategy_choice: how to predict: the most probable one, or a draw.
            alpha: contrast weight for all rows, or eight of them, one a strategy; the
                configuration's (PAL paper, Table 2) when left out.
            strategy_alpha: contrast weight of the strategy step; the configuration's by default.
            seed: key of the noise.
            sample_ids: one id a row, key of the noise; row numbers by default.
            return_strategies: return a :class:`PalGenerateOutput` instead of the sequences.
            generation_config: options of the library; the model's own by default.
            logits_processor: further processors, run before temperature, top-k and top-p.
            **kwargs: single generation options, such as ``do_sample=False``.

        Raises:
            ValueError: beams together with sampling, or a contrast without anything to fuse.
        """
        options = copy.deepcopy(generation_config or self.generation_config)
        kwargs = options.update(**kwargs)
        for name in SAMPLING_DEFAULTS:  # as the library does: what is left open, the model decides
            if getattr(options, name) is None:
                setattr(options, name, getattr(self.generation_config, name))
        beams, copies = options.num_beams or 1, options.num_return_sequences or 1
        if options.do_sample and beams > 1:
            raise ValueError("num_beams > 1 with do_sample=True is not supported; choose one")
        if encoded is None:
            if input_ids is None:
                raise ValueError("generate needs input_ids or encoded")
            encoded = self.encode(
                input_ids, attention_mask, persona_input_ids, persona_attention_mask
            )
        device, rows = encoded.states.device, len(encoded.states)
        ids: list[str | int] = list(range(rows) if sample_ids is None else sample_ids)
        if len(ids) != rows:
            raise ValueError(f"got {len(ids)} sample_ids for {rows} rows")

        if alpha is not None and not encoded.is_fused and torch.as_tensor(alpha).any():
            raise ValueError(
                "alpha contrasts fused with unfused states: it needs persona_mode='fusion' and "
                "persona_input_ids"
            )
        table = torch.as_tensor(self.config.alpha if alpha is None else alpha, device=device)
        table = table.float().expand(len(self.config.alpha))  # [8]
        if strategy_alpha is None:
            strategy_alpha = self.config.strategy_alpha
        if not encoded.is_fused:
            table, strategy_alpha = torch.zeros_like(table), 0.0

        contrasted = bool(strategy_alpha or table.any())
        cache = ContrastiveCache.pair(
            self.config,
            fused=(encoded.states, encoded.mask),
            plain=(encoded.dialogue_states, encoded.dialogue_mask),
            alpha=torch.full((rows,), strategy_alpha, device=device),
            rows=torch.arange(rows if contrasted else 0, device=device),
        )
        start = self.start_tokens(rows)
        logits = self(decoder_input_ids=start, past_key_values=cache, use_cache=True).logits
        strategy_tokens = torch.tensor(self.config.strategy_token_ids, device=device)
        strategy_logits = logits[:, -1, strategy_tokens].float()  # [B, 8]

        keys = sample_keys(seed, ids, device)
        if strategy_ids is not None:
            chosen = torch.as_tensor(strategy_ids, device=device)
        elif strategy_choice == "sample":
            noise = keyed_gumbel(keys, 0, strategy_tokens.expand(rows, -1))
            chosen = (strategy_logits.log_softmax(-1) + noise).argmax(-1)
        else:
            chosen = strategy_logits.argmax(-1)
        row_alpha = table[chosen]
        cache.set_alpha(row_alpha)

        prompt = torch.cat([start, strategy_tokens[chosen][:, None]], dim=1)
        states, mask = encoded.states, encoded.mask
        processors = LogitsProcessorList(logits_processor or [])
        if options.do_sample:
            if copies > 1:
                ids = [f"{sample_id}#{copy}" for sample_id in ids for copy in range(copies)]
                keys = sample_keys(seed, ids, device)
                cache.repeat(copies)
                prompt, states, mask = (
                    x.repeat_interleave(copies, dim=0) for x in (prompt, states, mask)
                )
            processors.extend(sampling_processors(options, keys))
            options.num_return_sequences = 1
        elif beams > 1:
            cache.repeat(beams)
        for name, neutral in SAMPLING_DEFAULTS.items():
            setattr(options, name, neutral)
        options.suppress_tokens = self.suppressed_tokens(options)
        sequences: Any = super().generate(  # type: ignore[misc]
            decoder_input_ids=prompt,
            # tells the library that the cache holds a part of the prompt already
            decoder_attention_mask=torch.ones_like(prompt),
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            past_key_values=cache,
            generation_config=options,
            logits_processor=processors,
            **kwargs,
        )
        if not return_strategies:
            return sequences
        return PalGenerateOutput(
            sequences=getattr(sequences, "sequences", sequences),
            strategy_ids=chosen,
            strategy_probs=strategy_logits.softmax(-1),
            alpha=row_alpha,
        )

    def suppressed_tokens(self, options: GenerationConfig) -> list[int]:
        """Ids no response may contain: special tokens, strategies and the user's own list."""
        special = set(self.config.special_token_ids or []) - {self.config.eos_token_id}
        return sorted(special | set(options.suppress_tokens or []))


def sampling_processors(options: GenerationConfig, keys: Tensor) -> LogitsProcessorList:
    """The sampling chain of the options, top-k first, with the keyed draw at its end.

    ``generate`` then searches greedily. The library would run temperature, top-k and top-p after
    any processor it is given, hence the chain is built here.
    """
    chain = LogitsProcessorList()
    if options.temperature is not None and options.temperature != 1.0:
        chain.append(TemperatureLogitsWarper(options.temperature))
    if options.top_k:
        chain.append(TopKLogitsWarper(options.top_k))
    if options.top_p is not None and options.top_p < 1.0:
        chain.append(TopPLogitsWarper(options.top_p))
    chain.append(GumbelSampler(keys, top_k=options.top_k or 0))
    return chain


AutoConfig.register(PalConfig.model_type, PalConfig)
AutoModelForSeq2SeqLM.register(PalConfig, PalForConditionalGeneration)
AutoTokenizer.register(PalConfig, slow_tokenizer_class=BlenderbotSmallTokenizer)
