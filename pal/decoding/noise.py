"""Sampling without random state: the Gumbel-max trick with noise that is a function of its key.

The arg-max of log-probabilities plus independent Gumbel noise is a draw from that distribution.
Here the noise of a token is a hash of (seed, sample id, step, token), so a sample's text does not
depend on the batch it is in, on order, on resuming or on the number of processes.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _mix(value: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al., 2014) on int64 with wrap-around."""
    value = (value ^ ((value >> 30) & ((1 << 34) - 1))) * _MIX_1
    value = (value ^ ((value >> 27) & ((1 << 37) - 1))) * _MIX_2
    return value ^ ((value >> 31) & ((1 << 33) - 1))


def sample_keys(
    seed: int, sample_ids: Sequence[str | int], device: torch.device | None = None
) -> Tensor:
    """Hash (seed, sample id) to one int64 a sample, [B]; ids may be strings or numbers."""
    digests = [
        hashlib.blake2b(f"{seed}\0{sample_id}".encode(), digest_size=8).digest()
        for sample_id in sample_ids
    ]
    keys = [int.from_bytes(digest, "little", signed=True) for digest in digests]
    return torch.tensor(keys, dtype=torch.int64, device=device)


def keyed_gumbel(keys: Tensor, step: int | Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise for tokens [B, K] of rows with ``keys`` [B]; float32.

    ``step`` is one for all rows, or [B].

    23 bits make a uniform number that float32 holds exactly and that is never 0 or 1.
    """
    state = _mix(keys + (torch.zeros_like(keys) + step + 1) * _GOLDEN)[:, None]
    bits = (_mix(state + (tokens + 1) * _GOLDEN) >> 41) & ((1 << 23) - 1)
    uniform = (bits.to(torch.float32) + 0.5) / (1 << 23)
    return -torch.log(-torch.log(uniform))
