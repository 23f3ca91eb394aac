"""Blenderbot-small, the papers' model: PAL on it, and its decoder for the engine.

Shapes: n branches, B rows, d model width, H heads, w width of a head, L positions attended to,
V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import BlenderbotSmallForConditionalGeneration, BlenderbotSmallTokenizer

from pal.data.batches import plan_batches
from pal.modeling.attention import attend_to_itself
from pal.modeling.backbones.base import Backbone
from pal.modeling.configuration import PalConfig
from pal.modeling.packed import PackedLinear, join
from pal.modeling.pal import PalMixin

# Positions of one pass of the encoder: at most, so that they stay in the cache; and at least, since
# products of fewer rows round differently.
MOST_ENCODED, LEAST_ENCODED = 2048, 16


class PalForConditionalGeneration(  # type: ignore[misc]  # generate takes forward's inputs
    PalMixin, BlenderbotSmallForConditionalGeneration
):
    """PAL's response model on Blenderbot-small (PAL paper, section 3.3).

    Example:
        >>> model = PalForConditionalGeneration.from_pretrained("runs/pal").eval()
        >>> model.generate(**inputs, strategy="Question", alpha={"Question": 0.5})
    """

    config_class = PalConfig
    config: PalConfig
    _fast_encoder: Any = None

    def embedding_scale(self) -> float:
        """Return √d where the configuration scales embeddings.

        The library defines the decoder's scale but does not apply it, though the published weights
        were trained with it; the encoder applies it to token ids only. PAL gives both embeddings
        that are scaled already.
        """
        return math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0

    def project(self, hidden: Tensor) -> Tensor:
        """Return the logits, [..., V], of the decoder's states, [..., d]."""
        return self.lm_head(hidden) + self.final_logits_bias

    def fast_decoder(self, suppressed: Sequence[int]) -> "BlenderbotSmallFastDecoder":
        """Return the decoder as the engine takes it.

        Args:
            suppressed: tokens that no response may contain.
        """
        return BlenderbotSmallFastDecoder(self, suppressed)

    def fast_encoder(self) -> "BlenderbotSmallFastEncoder | None":
        """Return the encoder as :func:`encode_sorted` takes it; None where layers are not packed.

        Other products round differently with other numbers of rows.
        """
        layers = self.model.encoder.layers
        if self.training or not isinstance(layers[0].fc1, PackedLinear):
            return None
        if self._fast_encoder is None:
            self._fast_encoder = BlenderbotSmallFastEncoder(self)
        return self._fast_encoder


class BlenderbotSmallFastEncoder:
    """The encoder, for texts one behind the other: no product computes padding.

    Args:
        model: in evaluation mode, with packed layers, whose weights are shared.
    """

    def __init__(self, model: PalForConditionalGeneration):
        encoder, config = model.model.encoder, cast(Any, model.config)
        self.heads, self.most = config.encoder_attention_heads, config.max_position_embeddings
        self.table, self.scale = encoder.embed_tokens, model.embed_scale
        self.norm, self.positions = encoder.layernorm_embedding, encoder.embed_positions.weight
        self.layers = []
        for layer in encoder.layers:
            own = layer.self_attn
            self.layers.append((join([own.q_proj, own.k_proj, own.v_proj]), layer))

    def __call__(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the states, [L, d], of each text's token ids.

        A text's states are the same bits whatever texts come with it.

        Raises:
            ValueError: a text is longer than the model.
        """
        if max(map(len, texts)) > self.most:
            raise ValueError(
                f"a text has {max(map(len, texts))} positions and the model {self.most}; cut it, "
                "as pal.data.templates.SampleEncoder does"
            )
        found: list[Tensor | None] = [None] * len(texts)
        for batch in plan_batches([len(text) for text in texts], max_tokens=MOST_ENCODED):
            for index, states in zip(batch, self._encode([texts[i] for i in batch]), strict=False):
                found[index] = states  # what follows the batch's states fills them up
        return cast(list[Tensor], found)

    def _encode(self, texts: Sequence[Sequence[int]]) -> Sequence[Tensor]:
        filler = [0] * (LEAST_ENCODED - sum(map(len, texts)))
        texts = [*texts, filler] if filler else texts
        lengths = [len(text) for text in texts]
        longest = max(lengths)
        ids = torch.tensor([token for text in texts for token in text])
        places = torch.tensor([place for length in lengths for place in range(length)])
        x = self.norm(self.table(ids) * self.scale + self.positions[places])
        scratch = x.new_empty(self.heads * longest * longest)
        attended = torch.empty_like(x)
        for project, layer in self.layers:
            parts = zip(project(x).split(lengths), attended.split(lengths), strict=True)
            for qkv, out in parts:
                if len(qkv):
                    attend_to_itself(qkv, self.heads, out, scratch)
            x = layer.self_attn_layer_norm(x + layer.self_attn.out_proj(attended))
            x = layer.final_layer_norm(x + layer.fc2(layer.activation_fn(layer.fc1(x))))
        return x.split(lengths)


class BlenderbotSmallFastDecoder:
    """The decoder, one position a branch; see :class:`pal.decoding.engine.FastDecoder`.

    Args:
        model: in evaluation mode; its weights are shared, or those of its packed layers.
        suppressed: tokens that no response may contain.
    """

    def __init__(self, model: PalForConditionalGeneration, suppressed: Sequence[int]):
        decoder, config = model.model.decoder, cast(Any, model.config)
        self.layers = [BlenderbotSmallFastLayer(layer) for layer in decoder.layers]
        self.heads = config.decoder_attention_heads
        self.size = config.d_model // self.heads
        self.start, self.end = config.decoder_start_token_id or 0, config.eos_token_id
        self.strategies = list(config.strategy_token_ids or [])
        self.scale = model.embed_scale
        self.table, self.norm = decoder.embed_tokens, decoder.layernorm_embedding
        self.positions = decoder.embed_positions.weight
        bias = model.final_logits_bias[0].clone()
        bias[list(suppressed)] = -torch.inf
        self.head = join([model.lm_head], bias)
        self.like = self.head.weight
        self.strategy_weight = self.head.weight[self.strategies].t()  # [d, 8]
        self.strategy_bias = model.final_logits_bias[0, self.strategies]

    def embed(self, tokens: Tensor, positions: Tensor | int) -> Tensor:
        """Return the first layer's input, [n, d], of tokens [n] at positions [n], or all at one."""
        return self.norm(self.table(tokens) * self.scale) + self.positions[positions]

    def project(self, hidden: Tensor) -> Tensor:
        """Return logits, [n, V]; −inf for what no response may hold."""
        return self.head(hidden)

    def project_strategies(self, hidden: Tensor) -> Tensor:
        """Return the logits of the strategies, [n, 8]."""
        return torch.addmm(self.strategy_bias, hidden, self.strategy_weight)


class BlenderbotSmallFastLayer:
    """A decoder layer, with weights joined where one product does for several."""

    def __init__(self, layer: Any):
        own, cross = layer.self_attn, layer.encoder_attn
        self.qkv = join([own.q_proj, own.k_proj, own.v_proj])
        self.kv = join([cross.k_proj, cross.v_proj])
        self.own_out, self.own_norm = own.out_proj, layer.self_attn_layer_norm
        self.cross_q, self.cross_out = cross.q_proj, cross.out_proj
        self.cross_norm = layer.encoder_attn_layer_norm
        self.fc1, self.activation, self.fc2 = layer.fc1, layer.activation_fn, layer.fc2
        self.norm = layer.final_layer_norm
        by_head = (own.num_heads, own.head_dim, -1)
        self.key_weight = cross.k_proj.weight.view(by_head)  # [H, w, d]
        self.value_weight, self.value_bias = cross.v_proj.weight.view(by_head), cross.v_proj.bias

    def __call__(
        self, x: Tensor, own: Callable[[Tensor], Tensor], cross: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the layer's output, [n, d]; see :class:`pal.decoding.engine.FastLayer`."""
        x = self.own_norm(x + self.own_out(own(self.qkv(x))))
        x = self.cross_norm(x + self.cross_out(cross(self.cross_q(x))))
        return self.norm(x + self.fc2(self.activation(self.fc1(x))))

    def keys_values(self, states: Tensor) -> Tensor:
        """Return keys and values of encoder states, [B, L, 2d] of [B, L, d]."""
        return self.kv(states)

    def attend_to_states(self, queries: Tensor, groups: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Attention of one query a row to encoder states whose keys and values nobody computed.

        The weights of keys and values go to the query's side, where they meet one vector a head
        instead of all positions. The keys' bias adds the same to every score of a row.

        Args:
            queries: of the rows of all groups, and perhaps of rows that read nothing, [n, d].
            groups: states, [B, L, d], and what is added to their scores, [B, 1, L].

        Returns:
            [n, d].
        """
        heads, width, _ = self.key_weight.shape
        queries = queries.view(-1, heads, width) * width**-0.5
        folded = torch.einsum("bhw,hwd->bhd", queries, self.key_weight)
        read, first = torch.zeros_like(folded), 0
        for states, mask in groups:
            rows = slice(first, first := first + len(states))
            read[rows] = (folded[rows] @ states.transpose(1, 2) + mask).softmax(-1) @ states
        return torch.einsum("bhd,hwd->bhw", read, self.value_weight).flatten(1) + self.value_bias


class BlenderbotSmall(Backbone):
    """Blenderbot-small, 90M in the published size."""

    name = "blenderbot-small"
    config_class = PalConfig
    model_class = PalForConditionalGeneration
    tokenizer_class = BlenderbotSmallTokenizer
    sizes = {"scale_embedding": True}
