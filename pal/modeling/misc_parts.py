"""What MISC (Tu et al., 2022) adds to an encoder-decoder: knowledge refined by the dialogue.

Shapes: B rows, L context positions, N blocks of knowledge, K tokens a block, T target positions,
d model width, H heads, w width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LogitsProcessor, NoRepeatNGramLogitsProcessor
from transformers.cache_utils import Cache
from transformers.models.blenderbot_small.modeling_blenderbot_small import (
    BlenderbotSmallAttention,
    BlenderbotSmallDecoderLayer,
)

# The streams of knowledge, and what the released code calls the modules of each.
STREAMS = ("utterance", "situation")
MUTUAL = {"utterance": "muAttn", "situation": "muAttn_st"}
CROSS = {"utterance": "encoder_attn_comet", "situation": "encoder_attn_comet_st"}


def additive_mask(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask, [B, L], 1 = keep, as what is added to attention scores, [B, 1, 1, L].

    What is left out gets the lowest number, not −∞, so that a row without anything to attend to
    attends evenly and stays finite.
    """
    added = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return added.masked_fill_(~mask.bool(), torch.finfo(like.dtype).min)[:, None, None]


class MutualAttention(nn.Module):
    """How the released code refines the blocks of a stream, in every layer of the encoder.

    The scores are multiplied by √d, as there: its division by d^-0.5 is taken for what it does.
    The names of the weights are the released ones.

    Args:
        d_model: model width.
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.scale = d_model**0.5
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v1_proj = nn.Linear(d_model, d_model)
        self.v2_proj = nn.Linear(d_model, d_model)
        self.layerNorm_2 = nn.LayerNorm(d_model, eps=1e-8)
        self.FN = nn.Linear(d_model, d_model)
        self.layerNorm_3 = nn.LayerNorm(d_model, eps=1e-8)

    def forward(self, context: Tensor, mask: Tensor, blocks: Tensor) -> Tensor:
        """Return the refined blocks, [B, N, d].

        Args:
            context: the encoder's states, [B, L, d].
            mask: [B, L], 1 = keep.
            blocks: states of the blocks, [B, N, d]; those of padding take part as all others do.
        """
        scores = self.k_proj(blocks) @ self.q_proj(context).transpose(1, 2) * self.scale
        scores = scores + (1.0 - mask[:, None].to(scores.dtype)) * -1e8  # [B, N, L]
        read = scores.softmax(-1) @ self.v1_proj(context)
        refined = self.layerNorm_2(read + self.v2_proj(blocks))
        refined = self.layerNorm_3(F.relu(self.FN(refined)) + refined)
        return refined  # type: ignore[no-any-return]


class Refinement(nn.Module):
    """How the paper refines the blocks of a stream, once: H = LN(B + softmax(B Cᵀ) C).

    Args:
        d_model: model width.
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)

    def forward(self, context: Tensor, mask: Tensor, blocks: Tensor) -> Tensor:
        """Return the refined blocks, [B, N, d]; arguments as those of :class:`MutualAttention`."""
        scores = blocks @ context.transpose(1, 2) + additive_mask(mask, context)[:, 0]
        refined: Tensor = self.norm(blocks + scores.softmax(-1) @ context)
        return refined


class StrategyPredictor(nn.Sequential):
    """The paper's predictor of the strategy: a perceptron on the first state.

    Args:
        d_model: model width.
        strategies: how many there are.
    """

    def __init__(self, d_model: int, strategies: int):
        super().__init__(
            nn.Linear(d_model, d_model), nn.Tanh(), nn.Linear(d_model, strategies)
        )  # fmt: skip


@dataclass
class KnowledgeStream:
    """One stream of knowledge.

    Attributes:
        states: of its blocks, [B, N, d].
        mask: [B, N], 1 = a block is there.
    """

    states: Tensor
    mask: Tensor


@dataclass
class MiscStates:
    """What the encoder makes of a batch; the decoder reads it at every step.

    Attributes:
        states: of the context, [B, L, d].
        mask: [B, L], 1 = keep.
        context: its token ids, [B, L].
        strategy: logits of the strategies before any normalisation, [B, 8], in the model's order.
        streams: the refined knowledge by name; empty without any.
    """

    states: Tensor
    mask: Tensor
    context: Tensor
    strategy: Tensor
    streams: dict[str, KnowledgeStream] = field(default_factory=dict)

    # Names that responders read of any encoder states: there is no second branch.
    is_fused = False

    @property
    def dialogue_states(self) -> Tensor:
        """The states of the context, [B, L, d]."""
        return self.states

    @property
    def dialogue_mask(self) -> Tensor:
        """[B, L]."""
        return self.mask

    def rows(self, index: Sequence[int]) -> "MiscStates":
        """Return the rows with these indices."""
        chosen = list(index)
        return replace(
            self, states=self.states[chosen], mask=self.mask[chosen],
            context=self.context[chosen], strategy=self.strategy[chosen],
            streams={
                name: KnowledgeStream(stream.states[chosen], stream.mask[chosen])
                for name, stream in self.streams.items()
            },
        )  # fmt: skip


class Source:
    """States that a decoder's layers attend to; keys and values are kept between steps.

    Args:
        states: [B, N, d].
        mask: [B, N], 1 = keep; None keeps all.
        present: [B], whether the source counts at all in a row; None for always.
    """

    def __init__(self, states: Tensor, mask: Tensor | None = None, present: Tensor | None = None):
        self.states = states
        self.added = None if mask is None else additive_mask(mask, states)
        self.present = None if present is None else present.to(states.dtype)[:, None, None]
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keys_values(self, attention: BlenderbotSmallAttention, keep: bool) -> tuple[Tensor, Tensor]:
        """Return keys and values, [B, H, N, w] each, as a layer's attention projects them."""
        found = self.kept.get(id(attention))
        if found is None:
            shape = (*self.states.shape[:2], attention.num_heads, attention.head_dim)
            keys, values = (
                project(self.states).view(shape).transpose(1, 2)
                for project in (attention.k_proj, attention.v_proj)
            )
            found = keys, values
            if keep:
                self.kept[id(attention)] = found
        return found


def cross_attend(
    attention: BlenderbotSmallAttention, x: Tensor, source: Source, keep: bool
) -> Tensor:
    """Return what an attention reads from a source, [B, T, d], for queries from ``x``, [B, T, d].

    Args:
        attention: of the layer.
        x: input of the attention.
        source: what it reads.
        keep: whether keys and values are kept for later steps.
    """
    rows, length, _ = x.shape
    keys, values = source.keys_values(attention, keep)
    queries = attention.q_proj(x).view(rows, length, attention.num_heads, -1).transpose(1, 2)
    # Not torch's fused attention: where all is left out, its gradient is N times the right one.
    scores = queries * attention.scaling @ keys.transpose(2, 3)
    scores = scores if source.added is None else scores + source.added
    weights = F.dropout(scores.softmax(-1), p=attention.dropout, training=attention.training)
    read = weights @ values  # [B, H, T, w]
    out: Tensor = attention.out_proj(read.transpose(1, 2).flatten(2))
    return out if source.present is None else out * source.present


class MiscDecoderLayer(BlenderbotSmallDecoderLayer):
    """A decoder layer that reads context, knowledge and strategy side by side.

    x = LN(x + Att_c + Att_s + Att_u + Att_g). In mode ``released`` each has its own weights, in
    mode ``paper`` all four are the backbone's cross-attention.

    Args:
        config: of the model.
        layer_idx: number of the layer.
    """

    def __init__(self, config: Any, layer_idx: int):
        super().__init__(config, layer_idx)
        self.attention_of = {"context": "encoder_attn"}
        names = {"strategy": "encoder_attn_strategy", **(CROSS if config.with_knowledge else {})}
        for source, name in names.items():
            self.attention_of[source] = name if config.misc_mode == "released" else "encoder_attn"
            if config.misc_mode == "released":
                own = BlenderbotSmallAttention(
                    config.d_model, config.decoder_attention_heads, is_decoder=True,
                    dropout=config.attention_dropout, config=config, layer_idx=layer_idx,
                )  # fmt: skip
                self.add_module(name, own)

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        sources: dict[str, Source],
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Return the layer's output, [B, T, d].

        Args:
            hidden_states: its input, [B, T, d].
            attention_mask: what is added to the scores of self-attention, [1, 1, T, past + T].
            sources: what the layer reads, by name.
            past_key_values: cache of self-attention.
        """
        x = hidden_states
        own, _ = self.self_attn(x, attention_mask=attention_mask, past_key_values=past_key_values)
        x = self.self_attn_layer_norm(x + self._drop(own))
        read = x
        for name, source in sources.items():
            attention = getattr(self, self.attention_of[name])
            keep = past_key_values is not None
            read = read + self._drop(cross_attend(attention, x, source, keep))
        x = self.encoder_attn_layer_norm(read)
        inner = F.dropout(
            self.activation_fn(self.fc1(x)), p=self.activation_dropout, training=self.training
        )
        x = self.final_layer_norm(x + self._drop(self.fc2(inner)))
        return x

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, p=self.dropout, training=self.training)


class ContextRules(LogitsProcessor):
    """Repetition penalty, n-gram ban and minimum length that count the context, as released.

    Args:
        context: token ids of the context, [B, L].
        mask: [B, L], 1 = keep.
        penalty: on the scores of tokens that were used before; 1 is none.
        ngram: no n-gram of this length occurs twice; 0 bans none.
        least: tokens of context and response before which the end token is banned.
        end: the end token.
    """

    def __init__(
        self, context: Tensor, mask: Tensor, *, penalty: float, ngram: int, least: int, end: int
    ):
        self.rows = [ids[kept.bool()] for ids, kept in zip(context, mask, strict=True)]
        self.penalty, self.least, self.end = penalty, least, end
        self.ban = NoRepeatNGramLogitsProcessor(ngram) if ngram else None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores, [B, V], under the three rules.

        Args:
            input_ids: start token, strategy and what is generated so far, [B, T].
            scores: [B, V].
        """
        processed = []
        for context, generated, one in zip(self.rows, input_ids, scores, strict=True):
            seen = torch.cat([context, generated])[None]
            row = one[None]
            if self.penalty != 1:
                used = row.gather(1, seen)
                used = torch.where(used < 0, used * self.penalty, used / self.penalty)
                row = row.scatter(1, seen, used)
            if self.ban is not None:
                row = self.ban(seen, row)
            if seen.shape[1] < self.least:
                row = row.index_fill(1, torch.tensor([self.end], device=row.device), -torch.inf)
            processed.append(row)
        return torch.cat(processed)
