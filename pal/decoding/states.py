"""The encoder states that the decoder reads, with persona and without.

Shapes: B rows, D dialogue tokens, L fused positions, d model width.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class EncodedInputs(NamedTuple):
    """Encoder states of some rows, for both branches of the contrast.

    Attributes:
        states: fused states, [B, L, d]; the dialogue's states if there is no persona to fuse.
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
        """Return whether ``states`` are fused with a persona."""
        return self.states is not self.dialogue_states

    def rows(self, index: Sequence[int]) -> "EncodedInputs":
        """Return the rows with these indices."""
        states, mask = self.states[index], self.mask[index]
        if not self.is_fused:
            return EncodedInputs(states, mask, states, mask)
        return EncodedInputs(states, mask, self.dialogue_states[index], self.dialogue_mask[index])
