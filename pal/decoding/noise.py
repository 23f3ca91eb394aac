"""Sampling without random state: the Gumbel-max trick with noise that is a function of its key.

The arg-max of log-probabilities plus independent Gumbel noise is a draw from that distribution.
Here the noise of a token is a hash of (seed, sample id, step, token), so the text of a sample does
not depend on its batch, on the order, on resuming or on the number of processes.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _mix(value: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser (Steele et al., 2014) to int64 with wrap-around."""
    value = (value ^ ((value >> 30) & ((1 << 34) - 1))) * _MIX_1
    value = (value ^ ((value >> 27) & ((1 << 37) - 1))) * _MIX_2
    return value ^ ((value >> 31) & ((1 << 33) - 1))


def sample_keys(
    seed: int, sample_ids: Sequence[str | int], device: torch.device | None = None
) -> Tensor:
    """Hash (seed, sample id) to one int64 per sample, [B]; ids may be strings or numbers."""
    digests = [
        hashlib.blake2b(f"{seed}\0{sample_id}".encode(), digest_size=8).digest()
        for sample_id in sample_ids
    ]
    keys = [int.from_bytes(digest, "little", signed=True) for digest in digests]
    return torch.tensor(keys, dtype=torch.int64, device=device)


def keyed_gumbel(keys: Tensor, step: int | Tensor, tokens: Tensor) -> Tensor:
    """Return standard Gumbel noise for tokens [B, K] of rows with ``keys`` [B], in float32.

    ``step`` is one number for all rows, or [B].

    The uniform number has 23 bits, so that float32 holds it exactly and it is never 0 or 1.
    """
    state = _mix(keys + (torch.zeros_like(keys) + step + 1) * _GOLDEN)[:, None]
    bits = (_mix(state + (tokens + 1) * _GOLDEN) >> 41) & ((1 << 23) - 1)
    uniform = (bits.to(torch.float32) + 0.5) / (1 << 23)
    return -torch.log(-torch.log(uniform))
