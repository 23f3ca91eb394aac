"""Copies to the device for which the host need not wait."""

import torch
from torch import Tensor


def send(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device.

    A plain copy to a GPU lets the host wait until the GPU has done all that it was given before, so
    that it idles afterwards until the host has given it more. One from pinned memory queues up.

    Args:
        values: on the CPU; where the device is no GPU, they are returned by a plain copy.
        device: where they go.
    """
    if device.type != "cuda":
        return values.to(device)
    if torch.cuda.is_available() and values.numel():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
