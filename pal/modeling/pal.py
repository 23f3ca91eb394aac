"""PAL on an encoder-decoder: a decoder that reads persona-fused dialogue states.

What is here knows no family of models; see :mod:`pal.modeling.backbones` for those.

It is long because ``forward`` and ``generate`` take the library's arguments and explain each.

Shapes: B batch, D dialogue tokens, P persona tokens, L fused positions, T target tokens,
d model width, V vocabulary.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import ModelOutput

from pal.data.batches import Collator
from pal.data.templates import SampleEncoder
from pal.decoding.contrast import ContrastiveCache
from pal.decoding.noise import keyed_gumbel, sample_keys
from pal.decoding.plan import alpha_of, strategies_of
from pal.decoding.sampling import KeyedDraw, Sampler
from pal.decoding.states import EncodedInputs
from pal.modeling.fusion import Fusion, build_fusion, pad_to

# The library's own values of the sampling options. Drawing is done by our last processor, so the
# library searches greedily and gets these, which its checks let pass.
SAMPLING_DEFAULTS = {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0}

# Arguments of the library's ``generate`` that a contrast of two branches cannot take, and why.
REFUSED = {
    "decoder_input_ids": "responses begin with a strategy; give strategy=…",
    "decoder_inputs_embeds": "responses begin with a strategy; give strategy=…",
    "decoder_attention_mask": "responses begin with a strategy; give strategy=…",
    "inputs_embeds": "give input_ids",
    "encoder_outputs": "give encoded=…, from model.encode",
    "past_key_values": "the cache of both branches is made here",
    "cache_implementation": "the cache of both branches is made here",
    "assistant_model": "the contrast decodes one token at a time",
    "prompt_lookup_num_tokens": "the contrast decodes one token at a time",
    "custom_generate": "no code from elsewhere decodes",
    "guidance_scale": "give alpha=…",
    "negative_prompt_ids": "the second branch is the dialogue without persona",
    "negative_prompt_attention_mask": "the second branch is the dialogue without persona",
}


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


# For the type checker: what a backbone's class brings.
_Base: Any = object
if TYPE_CHECKING:
    from transformers import PreTrainedModel as _Base


class PalMixin(_Base):
    """What PAL adds to an encoder-decoder of the library (PAL paper, section 3.3).

    One encoder reads dialogue and persona; a fusion joins the two; the decoder predicts strategy
    token, response and end token. In persona modes ``prompt`` and ``none`` there is no fusion and
    the model is the backbone on what the text holds.

    It stands before the backbone's own class, whose weights keep their names. A backbone overrides
    :meth:`embedding_scale`, :meth:`project` and, where it has one, :meth:`fast_decoder`.
    """

    accepts_loss_kwargs = True  # the loss below honours ``num_items_in_batch``
    config: Any

    def __init__(self, config: Any):
        super().__init__(config)  # type: ignore[call-arg]
        self.embed_scale = self.embedding_scale()
        self.fusion = (
            build_fusion(config.fusion, config.d_model) if config.persona_mode == "fusion" else None
        )
        if self.fusion is not None and self.fusion.common_length:
            # There padding is attended to, and the released code (which resizes the embeddings and
            # so forgets the padding index) trains its row.
            for part in (self, self.get_encoder(), self.get_decoder()):
                part.get_input_embeddings().padding_idx = None
        self.post_init()

    # -- what a backbone says

    def embedding_scale(self) -> float:
        """Return what token embeddings are multiplied by before encoder and decoder get them."""
        return 1.0

    def project(self, hidden: Tensor) -> Tensor:
        """Return the logits, [..., V], of the decoder's states, [..., d]."""
        return self.lm_head(hidden)

    def fast_decoder(self, suppressed: Sequence[int]) -> Any:
        """Return the decoder as the engine takes it; None where the backbone has none.

        Args:
            suppressed: tokens that no response may contain.
        """
        return None

    def fast_encoder(self) -> Any:
        """Return what encodes texts one behind the other; None where the backbone has nothing."""
        return None

    def make_encoder(self, tokenizer: Any, *, trusted: bool = False) -> SampleEncoder:
        """Return what turns samples into the token ids that the model reads.

        Args:
            tokenizer: of the model.
            trusted: whether the user's own settings named the template, as in training.
        """
        return SampleEncoder.from_config(tokenizer, self.config, trusted=trusted)

    def make_collator(self) -> Collator:
        """Return what makes batches of such ids."""
        return Collator(
            pad_token_id=self.config.pad_token_id,
            decoder_start_token_id=self.config.decoder_start_token_id,
        )

    # -- encoding

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[misc]
        if isinstance(module, Fusion):
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

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the encoder's states, [B, L, d], of one kind of text alone, [B, L]."""
        self._check_length("input_ids", input_ids)
        (embedded,) = self.embed(input_ids)
        return self.get_encoder()(inputs_embeds=embedded, attention_mask=attention_mask)[0]

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
        self._check_length("input_ids", input_ids)
        self._check_length("persona_input_ids", persona_input_ids)
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

    def _check_length(self, name: str, ids: Tensor | None) -> None:
        positions = getattr(self.config, "max_position_embeddings", None)
        if ids is not None and positions is not None and ids.shape[1] > positions:
            raise ValueError(
                f"{name} has {ids.shape[1]} positions and the model {positions}; cut it, as "
                "pal.data.templates.SampleEncoder does"
            )

    def _encode_embedded(self, embedded: list[Tensor], masks: list[Tensor]) -> EncodedInputs:
        encoder = self.get_encoder()
        encoded = [
            encoder(inputs_embeds=part, attention_mask=mask)[0]
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

    # -- training and one step

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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
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
            output_attentions: return the decoder's attentions, its own and to the encoder states.
            output_hidden_states: return the decoder's hidden states.
            inputs_embeds: refused; both branches are made from token ids.
            decoder_inputs_embeds: refused likewise.

        Raises:
            ValueError: an argument is missing or refused, or an input longer than the model.
        """
        if inputs_embeds is not None or decoder_inputs_embeds is not None:
            prefix = "decoder_" if inputs_embeds is None else ""
            raise ValueError(f"{prefix}inputs_embeds is not taken: give {prefix}input_ids")
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if decoder_input_ids is None:
            raise ValueError("forward needs decoder_input_ids or labels")
        self._check_length("decoder_input_ids", decoder_input_ids)

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
        wanted = {
            name: True
            for name, value in (
                ("output_attentions", output_attentions),
                ("output_hidden_states", output_hidden_states),
            )
            if value
        }
        decoded = self.get_decoder()(
            inputs_embeds=embedded,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            past_key_values=past_key_values,
            use_cache=use_cache if labels is None else False,
            **wanted,
        )
        hidden, targets = decoded.last_hidden_state, labels
        if labels is not None and skip_logits:
            hidden, targets = hidden[labels != -100], labels[labels != -100]
        logits = self.project(hidden)
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
        rows = None if contrast is None else len(contrast.alpha)
        output = Seq2SeqLMOutput(
            loss=loss,
            logits=None if skip_logits else logits,
            past_key_values=decoded.past_key_values,
            encoder_last_hidden_state=states if contrast is None else None,
            decoder_hidden_states=_first_rows(decoded.get("hidden_states"), rows),
            decoder_attentions=_first_rows(decoded.get("attentions"), rows),
            cross_attentions=_first_rows(decoded.get("cross_attentions"), rows),
        )
        return output if return_dict is not False else output.to_tuple()

    # -- decoding

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        persona_input_ids: Tensor | None = None,
        persona_attention_mask: Tensor | None = None,
        *,
        inputs: Tensor | None = None,
        encoded: EncodedInputs | None = None,
        strategy: str | int | Sequence[str | int] | Tensor = "argmax",
        strategy_ids: str | int | Sequence[str | int] | Tensor | None = None,
        alpha: float | Sequence[float] | Mapping[str, float] | Tensor | None = None,
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
        depend on its batch. All other options are those of the library's ``generate``; attentions
        and hidden states, where asked for, are those of the branch with persona.

        Args:
            input_ids: dialogue tokens, right-padded, [B, D].
            attention_mask: [B, D], 1 = keep.
            persona_input_ids: persona tokens, right-padded, [B, P].
            persona_attention_mask: [B, P], 1 = keep.
            inputs: the library's other name of ``input_ids``.
            encoded: what :meth:`encode` returned, instead of these.
            strategy: ``argmax`` predicts the most probable one, ``sample`` draws one; a name, an
                alias or an id of the strategy set is given to all rows, a list of them to one each.
            strategy_ids: given strategies, instead of ``strategy``.
            alpha: contrast weight for all strategies, eight of them, or a mapping of strategy
                names; the configuration's (PAL paper, Table 2) for what is left out.
            strategy_alpha: contrast weight of the strategy step; the configuration's by default.
            seed: key of the noise.
            sample_ids: one id a row, key of the noise; row numbers by default.
            return_strategies: return a :class:`PalGenerateOutput` instead of the sequences.
            generation_config: options of the library; the model's own by default.
            logits_processor: further processors, run before temperature, top-k and top-p.
            **kwargs: single generation options, such as ``do_sample=False``.

        Raises:
            ValueError: an argument that a contrast cannot take, beams together with sampling, a
                contrast without anything to fuse, an unknown strategy, or too long an input.

        Example:
            >>> model.generate(**batch, strategy="Question", alpha=0.5, max_new_tokens=30)
        """
        for name, reason in REFUSED.items():
            if kwargs.get(name) is not None:
                raise ValueError(f"{name} is not taken by PAL's generate: {reason}")
        if kwargs.pop("use_cache", True) is False:
            raise ValueError("use_cache=False is not taken by PAL's generate: it needs the cache")
        options = copy.deepcopy(generation_config or self.generation_config)
        kwargs = options.update(**kwargs)
        options.use_cache = True
        for name in SAMPLING_DEFAULTS:  # as the library does: what is left open, the model decides
            if getattr(options, name) is None:
                setattr(options, name, getattr(self.generation_config, name))
        beams, copies = options.num_beams or 1, options.num_return_sequences or 1
        if options.do_sample and beams > 1:
            raise ValueError("num_beams > 1 with do_sample=True is not supported; choose one")
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions is not None and (options.max_new_tokens or 0) + 2 > positions:
            raise ValueError(
                f"max_new_tokens={options.max_new_tokens} and two start tokens do not fit the "
                f"model's {positions} positions"
            )
        input_ids = inputs if input_ids is None else input_ids
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
        given = strategy if strategy_ids is None else strategy_ids
        predicted = isinstance(given, str) and given in ("argmax", "sample")
        strategies = None if predicted else strategies_of(given, rows)

        weights = alpha_of(alpha, own=self.config.alpha)
        if strategy_alpha is None:
            strategy_alpha = self.config.strategy_alpha
        if not encoded.is_fused:
            if alpha is not None and any(alpha_of(alpha, own=[0.0] * len(weights))):
                raise ValueError(
                    "alpha contrasts fused with unfused states: it needs persona_mode='fusion' "
                    "and persona_input_ids"
                )
            weights, strategy_alpha = (0.0,) * len(weights), 0.0
        table = torch.tensor(weights, device=device)  # [8]

        contrasted = bool(strategy_alpha or any(weights))
        cache = ContrastiveCache.pair(
            self.get_decoder().config,  # T5's number of layers is there
            fused=(encoded.states, encoded.mask),
            plain=(encoded.dialogue_states, encoded.dialogue_mask),
            alpha=torch.full((rows,), float(strategy_alpha), device=device),
            rows=torch.arange(rows if contrasted else 0, device=device),
        )
        start = self.start_tokens(rows)
        logits = self(decoder_input_ids=start, past_key_values=cache, use_cache=True).logits
        strategy_tokens = torch.tensor(self.config.strategy_token_ids, device=device)
        strategy_logits = logits[:, -1, strategy_tokens].float()  # [B, 8]

        keys = sample_keys(seed, ids, device)
        if strategies is not None:
            chosen = torch.tensor(strategies, device=device)
        elif given == "sample":
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
            # The library would run temperature, top-k and top-p after any processor it is given,
            # hence all of them are in this one, and the library searches greedily.
            processors.append(KeyedDraw(Sampler.from_options(options), keys))
            options.num_return_sequences = 1
        elif beams > 1:
            cache.repeat(beams)
        for name, neutral in SAMPLING_DEFAULTS.items():
            setattr(options, name, neutral)
        options.suppress_tokens = self.suppressed_tokens(options.suppress_tokens)
        # Made here: the library would hand the tokenizer on to every step.
        tokenizer, stops = kwargs.pop("tokenizer", None), options.stop_strings
        if stops:
            if tokenizer is None:
                raise ValueError("stop_strings needs tokenizer=… beside it")
            options.stop_strings = None
            criteria = StoppingCriteriaList(kwargs.pop("stopping_criteria", None) or [])
            criteria.append(StopStringCriteria(tokenizer, stops))
            kwargs["stopping_criteria"] = criteria
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

    def suppressed_tokens(self, further: Sequence[int] | None = None) -> list[int]:
        """Return the ids that no response may contain: special tokens, strategies and others.

        Args:
            further: the user's own list.
        """
        special = set(self.config.special_token_ids or []) - {self.config.eos_token_id}
        return sorted(special | set(further or []))


def _first_rows(layers: Any, rows: int | None) -> Any:
    """Return the first rows of a tensor a layer; all where ``rows`` is None."""
    if layers is None or rows is None:
        return layers
    return tuple(layer if layer is None else layer[:rows] for layer in layers)
