"""A decoder layer that takes one position a branch, and its two kinds of attention.

Shapes: n branches, B rows, d model width, H heads, w width of a head, L positions attended to.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pal.modeling.packed import join


class DecoderLayer:
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
        """Return the layer's output, [n, d].

        Args:
            x: its input, one position a branch, [n, d].
            own: gives what queries, keys and values, [n, 3d], attend to among the branch's own
                positions, [n, d].
            cross: gives what queries, [n, d], attend to in the encoder states, [n, d].
        """
        x = self.own_norm(x + self.own_out(own(self.qkv(x))))
        x = self.cross_norm(x + self.cross_out(cross(self.cross_q(x))))
        return self.norm(x + self.fc2(self.activation(self.fc1(x))))

    def attend_to_states(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Attention of one query a row to encoder states whose keys and values nobody computed.

        The weights of keys and values go to the query's side, where they meet one vector a head
        instead of all positions. The keys' bias adds the same to every score of a row.

        Args:
            queries: [B, d].
            states: [B, L, d].
            mask: added to the scores, [B, 1, L].

        Returns:
            [B, d].
        """
        heads, width, _ = self.key_weight.shape
        queries = queries.view(-1, heads, width) * width**-0.5
        folded = torch.einsum("bhw,hwd->bhd", queries, self.key_weight)
        read = (folded @ states.transpose(1, 2) + mask).softmax(-1) @ states
        return torch.einsum("bhd,hwd->bhw", read, self.value_weight).flatten(1) + self.value_bias


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention of one query a branch, [n, H, w], to keys and values [n, H, L, w]; [n, d].

    Two products and a softmax take half the time of ``scaled_dot_product_attention`` on a CPU: its
    kernel is made for many queries.
    """
    scores = (queries * queries.shape[-1] ** -0.5)[:, :, None] @ keys.transpose(2, 3) + mask
    return (scores.softmax(-1) @ values).flatten(1)
