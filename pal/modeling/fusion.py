"""Co-attention fusion of dialogue and persona (PAL paper, equations 2 to 4).

Shapes: B batch, D dialogue positions, P persona positions, L = max(D, P), d model width.
A new fusion is a subclass of :class:`Fusion` in a file of its own and one line in ``FUSIONS``;
outside the project, settings may name ``their_package.module:Class``.
Inputs are padded on the right; masks are 1 = keep.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from pal.core.errors import ConfigError
from pal.core.registry import Registry


class Fusion(nn.Module):
    """What joins the encoder states of dialogue and persona; subclasses say how in ``forward``.

    Every parameter must take part in ``forward``: one without a gradient stops training on several
    devices.

    Args:
        d_model: model width.
    """

    # Whether dialogue and persona must be padded to one common length before they are encoded.
    common_length = False

    def __init__(self, d_model: int):
        super().__init__()

    def reset_parameters(self) -> None:
        """Set initial values; called where a checkpoint has none for this module.

        The library sets those of torch's layers. A fusion with an ``nn.Parameter`` of its own
        sets it here, with functions of ``transformers.initialization``, which leave loaded weights
        alone.
        """

    def forward(
        self, dialogue: Tensor, dialogue_mask: Tensor, persona: Tensor, persona_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse encoder states.

        Args:
            dialogue: H_D, [B, D, d].
            dialogue_mask: [B, D].
            persona: H_P, [B, P, d].
            persona_mask: [B, P].

        Returns:
            H_final, [B, L, d], and the mask the decoder's cross-attention uses, [B, L].
        """
        raise NotImplementedError


class CoAttentionFusion(Fusion):
    """Co-attention in which padding takes no part: fusion mode ``masked``.

    Ĥ_D = LN_D(H_D + softmax(H_D H_Pᵀ) H_P) and Ĥ_P = LN_P(H_P + softmax(H_P H_Dᵀ) H_D) are added
    position by position, H_final = λ1 Ĥ_D + λ2 Ĥ_P + λ3 H_D with λ = softmax(w). The papers leave
    open how the two lengths meet: here a position beyond one of the two holds the other's terms
    only, λ renormalised over them, and the decoder sees the union of both masks. So a sample's
    states do not depend on the batch it is in.

    Args:
        d_model: model width.
    """

    def __init__(self, d_model: int):
        super().__init__(d_model)
        self.dialogue_norm = nn.LayerNorm(d_model)
        self.persona_norm = nn.LayerNorm(d_model)
        self.weights = nn.Parameter(torch.full((3,), 1 / 3))  # w of Ĥ_D, Ĥ_P, H_D

    def reset_parameters(self) -> None:
        """Set λ to one third each; see the base class."""
        init.constant_(self.weights, 1 / 3)

    def lambdas(self) -> Tensor:
        """Return λ, the weights of the streams, in float32; they add up to 1."""
        return torch.softmax(self.weights.float(), dim=0)

    def forward(
        self, dialogue: Tensor, dialogue_mask: Tensor, persona: Tensor, persona_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse encoder states; see the base class."""
        attended_dialogue = self.dialogue_norm(dialogue + attend(dialogue, persona, persona_mask))
        attended_persona = self.persona_norm(persona + attend(persona, dialogue, dialogue_mask))

        length = max(dialogue.shape[1], persona.shape[1])
        has_dialogue = pad_to(dialogue_mask, length).bool()
        has_persona = pad_to(persona_mask, length).bool()
        present = torch.stack([has_dialogue, has_persona, has_dialogue], dim=-1)  # [B, L, 3]
        lambdas = self.lambdas() * present
        lambdas = lambdas / lambdas.sum(-1, keepdim=True).clamp_min(1e-12)
        lambdas = lambdas.to(dialogue.dtype)
        streams = (pad_to(attended_dialogue, length), pad_to(attended_persona, length),
                   pad_to(dialogue, length))  # fmt: skip
        fused = torch.zeros_like(streams[0])
        for weight, stream in zip(lambdas.unbind(-1), streams, strict=True):
            fused = fused + weight.unsqueeze(-1) * stream
        return fused, (has_dialogue | has_persona).to(dialogue_mask.dtype)


class ReferenceFusion(CoAttentionFusion):
    """The authors' released behaviour, number for number: fusion mode ``reference``.

    Both inputs are padded to one common length before encoding, the co-attention attends to
    padding, and the decoder sees the dialogue's mask only; so a sample's output depends on its
    batch. For comparison and for checkpoints trained with the authors' code.
    """

    common_length = True

    def forward(
        self, dialogue: Tensor, dialogue_mask: Tensor, persona: Tensor, persona_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse encoder states of equal length, [B, L, d]; see the base class."""
        attended_dialogue = self.dialogue_norm(dialogue + attend(dialogue, persona))
        attended_persona = self.persona_norm(persona + attend(persona, dialogue))
        lambdas = self.lambdas().to(dialogue.dtype)
        fused = lambdas[0] * attended_dialogue + lambdas[1] * attended_persona
        return fused + lambdas[2] * dialogue, dialogue_mask


class UnweightedFusion(CoAttentionFusion):
    """Ablation ``no_weights``: as ``masked``, but λ stays at one third each."""

    def __init__(self, d_model: int):
        super().__init__(d_model)
        del self.weights

    def reset_parameters(self) -> None:
        """There is nothing to set."""

    def lambdas(self) -> Tensor:
        """Return three equal weights."""
        return self.dialogue_norm.weight.new_full((3,), 1 / 3, dtype=torch.float32)


class DialogueStreamFusion(CoAttentionFusion):
    """Ablation ``no_persona_stream``: H_final = λ1 Ĥ_D + λ3 H_D, without Ĥ_P.

    The persona enters through what the dialogue attends to, and at no position of its own.
    """

    def __init__(self, d_model: int):
        super().__init__(d_model)
        del self.persona_norm
        self.weights = nn.Parameter(torch.full((2,), 1 / 3))  # w of Ĥ_D, H_D

    def forward(
        self, dialogue: Tensor, dialogue_mask: Tensor, persona: Tensor, persona_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse encoder states; the result is as long as the dialogue, see the base class."""
        attended = self.dialogue_norm(dialogue + attend(dialogue, persona, persona_mask))
        lambdas = self.lambdas().to(dialogue.dtype)
        return lambdas[0] * attended + lambdas[1] * dialogue, dialogue_mask


def attend(queries: Tensor, keys: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """``softmax(Q Kᵀ) K`` without scaling or projections, [B, Q, d]; masked keys take no part."""
    mask = (
        None if key_mask is None else key_mask.bool()[:, None, :].expand(-1, queries.shape[1], -1)
    )
    return F.scaled_dot_product_attention(queries, keys, keys, attn_mask=mask, scale=1.0)


def pad_to(values: Tensor, length: int) -> Tensor:
    """Pad [B, l] or [B, l, d] with zeros on the right to ``length`` positions."""
    missing = length - values.shape[1]
    return F.pad(values, (0, 0) * (values.dim() - 2) + (0, missing)) if missing else values


FUSIONS = Registry(
    "fusion",
    {
        "masked": CoAttentionFusion,
        "reference": ReferenceFusion,
        "no_weights": UnweightedFusion,
        "no_persona_stream": DialogueStreamFusion,
    },
    classes=True,
)


def build_fusion(name: str, d_model: int) -> Fusion:
    """Build the fusion that a model's configuration names.

    The configuration may be a checkpoint's, so a class from outside of the package is taken only if
    the user named it: in the settings of training, or as ``trusted_code``
    (:func:`pal.core.registry.trust`).

    Raises:
        ConfigError: no such fusion, an outside one that nobody trusted, or a class that is none.
    """
    found = FUSIONS.find(name, trusted=False)
    if not issubclass(found, Fusion):
        raise ConfigError(
            f"fusion {name!r} is not a fusion: expected a subclass of pal.modeling.fusion.Fusion, "
            f"got {found.__mro__[1].__module__}.{found.__mro__[1].__name__} as its base"
        )
    return found(d_model)
