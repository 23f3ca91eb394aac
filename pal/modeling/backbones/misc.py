"""MISC (Tu et al., 2022) on Blenderbot-small: knowledge and a mixture of strategies.

Mode ``released`` computes what the published code computes, slips included, so that its numbers
come out again. Mode ``paper`` computes what the paper describes: one refinement of the knowledge
after the encoder, the backbone's cross-attention for all that is read, the mixture of strategies in
training as in decoding, no statistics over a batch; and a stream that a row does not have
contributes nothing to it.

To the rest of the package MISC looks like PAL's models: a target is strategy, response and end
token, and the strategy's logits stand at the first position. Inside, the strategy is no token.

Shapes: B rows, L context positions, N blocks of knowledge, K tokens a block, T target positions,
d model width, V vocabulary.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BlenderbotSmallForConditionalGeneration,
    BlenderbotSmallTokenizer,
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
)
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from pal.core.errors import ConfigError
from pal.data.misc import (
    CODEBOOK_ORDER,
    MiscCollator,
    MiscEncoder,
    add_misc_tokens,
    misc_special_ids,
)
from pal.data.strategies import ESCONV
from pal.data.tokenizer import check_strategy_tokens
from pal.decoding.noise import keyed_gumbel, sample_keys
from pal.decoding.plan import alpha_of, strategies_of
from pal.decoding.sampling import KeyedDraw, Sampler
from pal.modeling.backbones.base import Backbone
from pal.modeling.backbones.blenderbot_small import PalForConditionalGeneration
from pal.modeling.configuration import MiscConfig
from pal.modeling.misc_parts import (
    CROSS,
    MUTUAL,
    STREAMS,
    ContextRules,
    KnowledgeStream,
    MiscDecoderLayer,
    MiscStates,
    MutualAttention,
    Refinement,
    Source,
    StrategyPredictor,
    additive_mask,
)
from pal.modeling.pal import REFUSED, SAMPLING_DEFAULTS, PalGenerateOutput

NGRAM = 3  # the released code bans a repeated one, as the configuration of its base says
NO_CONTRAST = "MISC has no second branch to contrast with"


@dataclass
class MiscOutput(Seq2SeqLMOutput):
    """What MISC returns.

    Attributes:
        strategy_logits: of the strategies, in the order of the strategy set, [B, 8].
        strategy_loss: mean cross-entropy of the gold strategies, where labels are given.
    """

    strategy_logits: Tensor | None = None
    strategy_loss: Tensor | None = None


class MiscForConditionalGeneration(  # type: ignore[misc]  # generate takes forward's inputs
    PalForConditionalGeneration
):
    """MISC on Blenderbot-small (Tu et al., 2022, arXiv 2203.13560).

    The names of the weights are those of the released code, in mode ``released`` all of them.

    Example:
        >>> model = MiscForConditionalGeneration.from_pretrained("runs/misc").eval()
        >>> model.generate(**inputs, strategy="Question", max_new_tokens=30)
    """

    config_class = MiscConfig  # type: ignore[assignment]
    config: MiscConfig  # type: ignore[assignment]
    _supports_flash_attn = False
    _supports_flex_attn = False
    counts_rows = True  # its loss is a mean over words and one over rows

    def __init__(self, config: MiscConfig):
        super().__init__(config)  # type: ignore[arg-type]
        encoder, decoder, width = self.model.encoder, self.model.decoder, config.d_model
        released = config.misc_mode == "released"
        decoder.layers = nn.ModuleList(
            [MiscDecoderLayer(config, index) for index in range(config.decoder_layers)]
        )
        count = len(ESCONV)
        encoder.strategy_embedding = nn.Embedding(count + 1 if released else count, width)
        if released:
            encoder.strategy_head = nn.Linear(width, count)
            encoder.batchNorm_strategy = nn.BatchNorm1d(count)
        else:
            encoder.strategy_head = StrategyPredictor(width, count)
        for stream in STREAMS if config.with_knowledge else ():
            if released:
                for layer in encoder.layers:
                    layer.add_module(MUTUAL[stream], MutualAttention(width))
            else:
                encoder.add_module(f"refine_{stream}", Refinement(width))
        self.post_init()

    @property
    def released(self) -> bool:
        """Whether the model computes what the released code does."""
        return self.config.misc_mode == "released"

    def make_encoder(self, tokenizer: Any, *, trusted: bool = False) -> MiscEncoder:
        """Return what turns samples into the token ids that the model reads; see the base class."""
        return MiscEncoder.from_config(tokenizer, self.config, trusted=trusted)

    def make_collator(self) -> MiscCollator:
        """Return what makes batches of such ids."""
        config = self.config
        limits = {"utterance": config.utterance_blocks, "situation": config.situation_blocks}
        return MiscCollator(
            pad_token_id=config.pad_token_id or 0,
            decoder_start_token_id=config.decoder_start_token_id or 0,
            blocks={
                name: limits[name] if self.released else None
                for name in STREAMS if config.with_knowledge
            },
            block_tokens=config.block_tokens,
        )  # fmt: skip

    def fast_decoder(self, suppressed: Sequence[int]) -> Any:
        """Return None: the library decodes, since the engine's decoders attend to one thing."""
        return None

    # -- encoding

    def encode(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        utterance_blocks: Tensor | None = None,
        situation_blocks: Tensor | None = None,
    ) -> MiscStates:
        """Encode the context, and the knowledge in its light.

        Args:
            input_ids: context tokens, [CLS] first, right-padded, [B, L].
            attention_mask: [B, L]; all ones by default.
            utterance_blocks: tokens of the blocks on the last seeker turn, padded, [B, N, K].
            situation_blocks: likewise on the situation.
        """
        self._check_length("input_ids", input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        blocks = {"utterance": utterance_blocks, "situation": situation_blocks}
        streams = {
            name: self.encode_blocks(self._room(of, len(input_ids)))
            for name, of in blocks.items()
            if self.config.with_knowledge and (self.released or (of is not None and of.shape[1]))
        }
        hidden, streams = self._run_encoder(input_ids, mask, streams)
        if not self.released:
            for name, stream in streams.items():
                refine = getattr(self.model.encoder, f"refine_{name}")
                streams[name] = KnowledgeStream(refine(hidden, mask, stream.states), stream.mask)
        first = self.model.encoder.strategy_head(hidden[:, 0])
        return MiscStates(hidden, mask, input_ids, first, streams)

    def _room(self, blocks: Tensor | None, rows: int) -> Tensor:
        """Return blocks, [B, N, K]; an empty one where there are none at all."""
        if blocks is not None and blocks.shape[1]:
            return blocks
        shape = (rows, 1, self.config.block_tokens)
        return torch.full(shape, self.config.pad_token_id or 0, device=self.device)

    def encode_blocks(self, blocks: Tensor) -> KnowledgeStream:
        """Return the first state of every block, [B, N, d], and which blocks are there.

        Without dropout equal blocks have equal states, and each is encoded once. The released code
        encodes without gradient, and the places of padding too.

        Args:
            blocks: token ids, padded, [B, N, K].
        """
        pad = self.config.pad_token_id or 0
        rows, count, length = blocks.shape
        kept = blocks != pad
        there = kept.any(-1)
        flat = blocks.reshape(-1, length)
        if not self.released:
            flat = flat[there.flatten()]
        back = None
        if len(flat) and not (self.training and self.config.dropout):
            flat, back = flat.unique(dim=0, return_inverse=True)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.released):
            states = self._run_encoder(flat, (flat != pad).long(), {})[0][:, 0]
            states = states if back is None else states[back]
            if not self.released:
                whole = states.new_zeros(rows * count, states.shape[-1])
                states = whole.masked_scatter(there.flatten()[:, None], states)
        return KnowledgeStream(states.view(rows, count, -1), there.long())

    def _run_encoder(
        self, ids: Tensor, mask: Tensor, streams: dict[str, KnowledgeStream]
    ) -> tuple[Tensor, dict[str, KnowledgeStream]]:
        """Return the encoder's states of ids [B, L], and streams refined in every layer."""
        encoder = self.model.encoder
        (embedded,) = self.embed(ids)
        x = embedded + self._positions(encoder.embed_positions, ids.shape[1])
        x = F.dropout(encoder.layernorm_embedding(x), p=self.config.dropout, training=self.training)
        added = additive_mask(mask, x)
        for layer in encoder.layers:
            x = layer(x, added)
            if self.released:
                streams = {
                    name: KnowledgeStream(
                        getattr(layer, MUTUAL[name])(x, mask, stream.states), stream.mask
                    )
                    for name, stream in streams.items()
                }
        return x, streams

    def _positions(self, table: nn.Embedding, length: int, first: int = 0) -> Tensor:
        """Return embeddings of positions; in the released code the first is never trained."""
        positions = torch.arange(first, first + length, device=table.weight.device)
        return F.embedding(positions, table.weight, 0 if self.released else None)

    # -- strategies

    def strategy_logits(self, states: MiscStates, *, given: bool) -> Tensor:
        """Return the logits of the strategies, [B, 8], in the model's own order.

        Args:
            states: from :meth:`encode`.
            given: whether a strategy is given; where not, the released code normalises twice.
        """
        logits = states.strategy
        if self.released:
            norm = self.model.encoder.batchNorm_strategy
            logits = norm(logits)
            if not given:
                logits = norm(logits)
        return logits

    def in_house_order(self, logits: Tensor) -> Tensor:
        """Return logits [B, 8] of the model's order in the order of the strategy set."""
        return torch.empty_like(logits).index_copy(
            1, torch.tensor(CODEBOOK_ORDER, device=logits.device), logits
        )

    def strategy_vector(self, logits: Tensor, strategies: Tensor | None) -> Tensor:
        """Return what the decoder reads of the strategy, [B, 1, d].

        Args:
            logits: from :meth:`strategy_logits`, [B, 8].
            strategies: given ones, ids of the strategy set, [B]; None mixes all by their
                probabilities.
        """
        codes = self.model.encoder.strategy_embedding.weight[: len(ESCONV)]
        if strategies is None:
            return (logits.softmax(-1) @ codes)[:, None]
        order = torch.tensor(CODEBOOK_ORDER, device=strategies.device).argsort()
        return codes[order[strategies]][:, None]

    # -- training and one step

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        utterance_blocks: Tensor | None = None,
        situation_blocks: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        strategies: Tensor | None = None,
        encoded: MiscStates | None = None,
        sources: dict[str, Source] | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        num_rows_in_batch: Tensor | int | None = None,
        skip_logits: bool = False,
        return_dict: bool | None = None,
    ) -> MiscOutput | tuple:
        """Compute logits of strategy and response, and the sum of their mean losses.

        With ``labels`` the logits stand at the labels' places: at the first the strategy's, which
        come from the encoder. Without, they are those of ``decoder_input_ids``, which hold start
        token and words.

        Args:
            input_ids: context tokens, [B, L].
            attention_mask: [B, L], 1 = keep.
            utterance_blocks: see :meth:`encode`.
            situation_blocks: see :meth:`encode`.
            decoder_input_ids: [B, T]; with ``labels`` they are made from those.
            labels: strategy token, response and end token, −100 = ignored, [B, T].
            strategies: given strategies, ids of the strategy set, [B].
            encoded: states to use instead of encoding.
            sources: what the decoder reads, of a response that is being generated.
            encoder_outputs: taken for the library's sake, and not read.
            past_key_values: cache of the decoder's self-attention.
            use_cache: taken for the library's sake: a cache is used where it is given.
            num_items_in_batch: targets of the whole step, all accumulated batches together.
            num_rows_in_batch: rows of the whole step; without them a batch's share of its loss is
                that of its targets.
            skip_logits: return the loss without logits.
            return_dict: False gives a tuple.

        Raises:
            ValueError: an argument is missing, or an input longer than the model.
        """
        gold = words = None
        if labels is not None:
            gold, words = self._gold(labels), labels[:, 1:]
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(words)
        if decoder_input_ids is None:
            raise ValueError("forward needs decoder_input_ids or labels")
        self._check_length("decoder_input_ids", decoder_input_ids)
        if sources is not None:
            hidden = self._run_decoder(decoder_input_ids, sources, past_key_values)
            return MiscOutput(logits=self.project(hidden), past_key_values=past_key_values)
        if encoded is None:
            if input_ids is None:
                raise ValueError("forward needs input_ids or encoded")
            encoded = self.encode(input_ids, attention_mask, utterance_blocks, situation_blocks)
        known = strategies if gold is None else gold.clamp(min=0)
        own = self.strategy_logits(encoded, given=known is not None)
        # The paper mixes in training as in decoding; the released code reads the gold row.
        read = None if labels is not None and not self.released else known
        sources = self.sources(encoded, self.strategy_vector(own, read))
        hidden = self._run_decoder(decoder_input_ids, sources, past_key_values)
        strategy_logits = self.in_house_order(own)
        if labels is None or gold is None or words is None:
            output = MiscOutput(
                logits=self.project(hidden), past_key_values=past_key_values,
                strategy_logits=strategy_logits,
            )  # fmt: skip
            return output if return_dict is not False else output.to_tuple()
        kept = words != -100
        hidden, targets = (hidden[kept], words[kept]) if skip_logits else (hidden, words)
        logits = self.project(hidden)
        total = F.cross_entropy(
            logits.flatten(0, -2).float(), targets.flatten(), reduction="sum", ignore_index=-100
        )
        of_strategies = F.cross_entropy(strategy_logits.float(), gold, reduction="sum")
        rows = (gold != -100).sum()
        strategy_loss = of_strategies / rows
        if num_items_in_batch is not None and num_rows_in_batch is not None:
            # this batch's part of two means over the whole step
            words_of_step = num_items_in_batch - num_rows_in_batch
            loss = total / words_of_step + of_strategies / num_rows_in_batch
        else:
            loss = total / kept.sum() + strategy_loss
            if num_items_in_batch is not None:
                loss = loss * (labels != -100).sum() / num_items_in_batch
        whole = None
        if not skip_logits:
            whole = torch.cat([self._as_tokens(strategy_logits, logits), logits], dim=1)
        output = MiscOutput(
            loss=loss, logits=whole, strategy_logits=strategy_logits, strategy_loss=strategy_loss
        )
        return output if return_dict is not False else output.to_tuple()

    def _gold(self, labels: Tensor) -> Tensor:
        """Return the strategies that labels begin with, as ids of the strategy set, [B].

        A row whose labels are all ignored has −100.

        Raises:
            ValueError: a row begins with another token.
        """
        tokens = torch.tensor(self.config.strategy_token_ids, device=labels.device)
        equal = labels[:, :1] == tokens
        ignored = (labels == -100).all(1)
        if not (equal.any(1) | ignored).all():
            raise ValueError("labels begin with a strategy token; see pal.data.misc.MiscEncoder")
        return equal.long().argmax(1).masked_fill(ignored, -100)

    def _as_tokens(self, strategy_logits: Tensor, like: Tensor) -> Tensor:
        """Return logits of strategies, [B, 8], as logits of the vocabulary, [B, 1, V]."""
        tokens = torch.tensor(self.config.strategy_token_ids, device=like.device)
        lowest = torch.finfo(like.dtype).min
        whole = like.new_full((len(like), like.shape[-1]), lowest)
        return whole.index_copy(1, tokens, strategy_logits.to(like.dtype))[:, None]

    def sources(self, encoded: MiscStates, strategy: Tensor) -> dict[str, Source]:
        """Return what the decoder reads.

        Args:
            encoded: from :meth:`encode`.
            strategy: from :meth:`strategy_vector`.
        """
        found = {"context": Source(encoded.states, encoded.mask)}
        for name, stream in encoded.streams.items():
            there = None if self.released else stream.mask.any(1)
            found[name] = Source(stream.states, stream.mask, there)
        return {**found, "strategy": Source(strategy)}

    def _run_decoder(self, ids: Tensor, sources: dict[str, Source], cache: Any) -> Tensor:
        """Return the decoder's states, [B, T, d], of ids [B, T] behind those in the cache."""
        decoder, length = self.model.decoder, ids.shape[1]
        past = 0 if cache is None else cache.get_seq_length()
        (embedded,) = self.embed(ids)
        positions = self._positions(decoder.embed_positions, length, past)
        # The released code normalises the sum; the published weights of the base were trained
        # otherwise, which is the paper's own model too.
        norm = decoder.layernorm_embedding
        x = norm(embedded + positions) if self.released else norm(embedded) + positions
        x = F.dropout(x, p=self.config.dropout, training=self.training)
        seen = torch.ones(length, past + length, device=x.device).tril(past)
        added = additive_mask(seen, x).transpose(0, 2)  # [1, 1, T, past + T]
        for layer in decoder.layers:
            x = layer(x, added, sources, past_key_values=cache)
        return x

    # -- decoding

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        utterance_blocks: Tensor | None = None,
        situation_blocks: Tensor | None = None,
        *,
        inputs: Tensor | None = None,
        encoded: MiscStates | None = None,
        strategy: str | int | Sequence[str | int] | Tensor = "argmax",
        strategy_ids: str | int | Sequence[str | int] | Tensor | None = None,
        alpha: Any = None,
        strategy_alpha: float | None = None,
        seed: int = 0,
        sample_ids: Sequence[str | int] | None = None,
        return_strategies: bool = False,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        **kwargs: Any,
    ) -> Any:
        """Decode a response for every row, under a mixture of strategies or given ones.

        Sampling draws with noise keyed by (seed, sample id, step, token). In mode ``released`` the
        repetition penalty, the ban of repeated n-grams (of three tokens unless
        ``no_repeat_ngram_size`` says otherwise) and ``min_length`` count the context too.

        Args:
            input_ids: context tokens, [B, L].
            attention_mask: [B, L], 1 = keep.
            utterance_blocks: see :meth:`encode`.
            situation_blocks: see :meth:`encode`.
            inputs: the library's other name of ``input_ids``.
            encoded: what :meth:`encode` returned, instead of these.
            strategy: ``argmax`` reads the mixture and reports the most probable one; ``sample``
                draws one and reads it alone, as names, aliases or ids are.
            strategy_ids: given strategies, instead of ``strategy``.
            alpha: None or zeros; MISC has no contrast.
            strategy_alpha: likewise.
            seed: key of the noise.
            sample_ids: one id a row, key of the noise; row numbers by default.
            return_strategies: return a :class:`pal.modeling.pal.PalGenerateOutput`.
            generation_config: options of the library; the model's own by default.
            logits_processor: further processors, run before temperature, top-k and top-p.
            **kwargs: single generation options, such as ``do_sample=False``.

        Returns:
            Start token, strategy token and response, [B, T].

        Raises:
            ValueError: an argument that MISC cannot take, an unknown strategy, too long an input.
        """
        for name in (*REFUSED, "output_scores", "output_logits", "return_dict_in_generate"):
            if kwargs.get(name):
                raise ValueError(f"{name} is not taken by MISC's generate; leave it out")
        if any(alpha_of(alpha, own=[0.0] * len(ESCONV))) or strategy_alpha:
            raise ValueError(f"alpha is not taken: {NO_CONTRAST}")
        options = copy.deepcopy(generation_config or self.generation_config)
        kwargs = options.update(**kwargs)
        options.use_cache = True
        for name in SAMPLING_DEFAULTS:
            if getattr(options, name) is None:
                setattr(options, name, getattr(self.generation_config, name))
        if (options.num_beams or 1) > 1 or (options.num_return_sequences or 1) > 1:
            raise ValueError("MISC samples or takes the most probable token: give num_beams=1")
        positions = self.config.max_position_embeddings
        if (options.max_new_tokens or 0) + 1 > positions:
            raise ValueError(
                f"max_new_tokens={options.max_new_tokens} and a start token do not fit the model's "
                f"{positions} positions"
            )
        input_ids = inputs if input_ids is None else input_ids
        if encoded is None:
            if input_ids is None:
                raise ValueError("generate needs input_ids or encoded")
            encoded = self.encode(input_ids, attention_mask, utterance_blocks, situation_blocks)
        rows, device = len(encoded.states), encoded.states.device
        ids: list[str | int] = list(range(rows) if sample_ids is None else sample_ids)
        if len(ids) != rows:
            raise ValueError(f"got {len(ids)} sample_ids for {rows} rows")
        keys = sample_keys(seed, ids, device)

        asked = strategy if strategy_ids is None else strategy_ids
        predicted = isinstance(asked, str) and asked in ("argmax", "sample")
        given = None if predicted else torch.tensor(strategies_of(asked, rows), device=device)
        # Given a strategy or not, what is reported is what the model predicts without.
        own = self.strategy_logits(encoded, given=False)
        logits = self.in_house_order(own).float()
        tokens = torch.tensor(self.config.strategy_token_ids, device=device)
        if isinstance(asked, str) and asked == "sample":
            noise = keyed_gumbel(keys, 0, tokens.expand(rows, -1))
            given = (logits.log_softmax(-1) + noise).argmax(-1)
        chosen = logits.argmax(-1) if given is None else given
        sources = self.sources(encoded, self.strategy_vector(own, given))

        processors = LogitsProcessorList(logits_processor or [])
        if self.released:
            ngram = options.no_repeat_ngram_size
            processors.append(ContextRules(
                encoded.context, encoded.mask, penalty=options.repetition_penalty or 1.0,
                ngram=NGRAM if ngram is None else ngram, least=options.min_length or 0,
                end=int(self.config.eos_token_id),  # type: ignore[arg-type]
            ))  # fmt: skip
            options.repetition_penalty, options.no_repeat_ngram_size = 1.0, None
            options.min_length = None
        if options.do_sample:
            processors.append(KeyedDraw(Sampler.from_options(options), keys))
        for name, neutral in SAMPLING_DEFAULTS.items():
            setattr(options, name, neutral)
        options.suppress_tokens = self.suppressed_tokens(options.suppress_tokens)
        start = self.start_tokens(rows)
        sequences: Any = BlenderbotSmallForConditionalGeneration.generate(
            self,
            decoder_input_ids=start,
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.states),
            attention_mask=encoded.mask,
            sources=sources,
            past_key_values=DynamicCache(config=self.config),
            generation_config=options,
            logits_processor=processors,
            **kwargs,
        )
        whole = torch.cat([start, tokens[chosen][:, None], sequences[:, 1:]], dim=1)
        if not return_strategies:
            return whole
        return PalGenerateOutput(
            sequences=whole, strategy_ids=chosen, strategy_probs=logits.softmax(-1),
            alpha=torch.zeros(rows, device=device),
        )  # fmt: skip


class Misc(Backbone):
    """MISC; it starts from Blenderbot-small."""

    name = "misc"
    config_class = MiscConfig
    model_class = MiscForConditionalGeneration
    tokenizer_class = BlenderbotSmallTokenizer
    sizes = {"scale_embedding": True}
    builds_on = "blenderbot-small"
    new_weights = (
        r"model\.(encoder|decoder)\..*("
        + "|".join(["strategy", "refine_", *MUTUAL.values(), *CROSS.values()])
        + ").*"
    )
    reads_knowledge = True

    @classmethod
    def prepare_tokenizer(cls, tokenizer: Any) -> Any:
        """Give a tokenizer MISC's tokens, and return it; see the base class."""
        return add_misc_tokens(tokenizer)

    @classmethod
    def token_entries(cls, tokenizer: Any) -> dict[str, list[int]]:
        """Return what a configuration says of a prepared tokenizer."""
        return {
            "strategy_token_ids": check_strategy_tokens(tokenizer),
            "special_token_ids": misc_special_ids(tokenizer),
        }

    @classmethod
    def own_entries(cls, architecture: Any, *, knowledge: bool) -> dict[str, Any]:
        """Return the entries of a configuration that settings decide; see the base class."""
        if architecture.persona_mode not in (None, "none"):
            raise ConfigError(
                f"architecture.persona_mode={architecture.persona_mode}: MISC sees no persona; "
                "leave it out"
            )
        mode = architecture.misc_mode or "paper"
        return {
            "persona_mode": "none",
            "template": architecture.template or ("clean" if mode == "paper" else "authors"),
            "misc_mode": mode,
            "with_knowledge": knowledge,
        }

    @classmethod
    def check_decoding(cls, decoding: Any) -> None:
        """Check for settings that no model of the family can be decoded with."""
        if decoding.num_beams > 1:
            raise ConfigError(
                f"decoding.num_beams={decoding.num_beams}: MISC samples or takes the most "
                "probable token; give num_beams=1"
            )

    @classmethod
    def slug(cls, architecture: Any) -> str:
        """Return what a model is, for names of files."""
        return f"misc-{architecture.misc_mode or 'paper'}"
