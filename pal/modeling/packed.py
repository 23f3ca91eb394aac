"""Linear layers for inference on x86 CPUs, with weights in the order that oneDNN's products read.

``F.linear`` finds its way through the usual order at every call, which costs most where few rows
meet a weight, as in a step of decoding. ``torch.compile`` with frozen weights calls the same
products, after it has compiled for every shape.
"""

import copy
import logging
import os
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pal.modeling.attention import use_products

logger = logging.getLogger(__name__)

# oneDNN and torch keep what they prepare for every number of rows, by default 1,024 each: 0.4 GiB
# that come back seldom in batches of all sizes. The first use in a process reads these.
CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}


class PackedLinear(nn.Linear):
    """A linear layer that multiplies by a reordered copy of its weight, made at the first call.

    The copy does not follow later changes of the weight, and has no gradient.

    Args:
        weight: a parameter, [out, in].
        bias: a parameter, [out].
        gelu: whether GELU is applied to the product, while it is in the processor's cache.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False):
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.weight, self.bias = weight, bias  # type: ignore[assignment]
        self.gelu = gelu
        self.packed: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs [..., out] of ``input`` [..., in]."""
        if self.packed is None:
            self.packed = reorder_weight(self.weight.detach())
        multiply = multiply_with_gelu if self.gelu else multiply_reordered
        return multiply(input, self.packed, self.bias)


def reorder_weight(weight: Tensor) -> Tensor:
    """Return a copy of a weight, [out, in], in oneDNN's order; an operation private to torch."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def multiply_reordered(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the product with a reordered weight; an operation private to torch."""
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


def multiply_with_gelu(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return GELU of the product with a reordered weight; an operation private to torch."""
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "gelu", [], "none")


@cache
def products_work(dtype: torch.dtype) -> bool:
    """Return whether the private operations are there and give what ``F.linear`` gives.

    They may change with any release of torch, so each process tries them once on real products.
    """
    generator = torch.Generator().manual_seed(0)
    weight, bias, inputs = (
        torch.randn(shape, generator=generator).to(dtype) for shape in ((48, 32), (48,), (5, 32))
    )
    tolerance = 1e-4 if dtype == torch.float32 else 0.2
    try:
        with torch.no_grad():
            packed = reorder_weight(weight)
            for one, gelu in product((bias, None), (False, True)):
                multiply = multiply_with_gelu if gelu else multiply_reordered
                found = multiply(inputs, packed, one)
                wanted = F.linear(inputs, weight, one)
                wanted = F.gelu(wanted) if gelu else wanted
                if found.dtype != dtype or found.shape != wanted.shape:
                    return False
                if not torch.allclose(found, wanted, rtol=tolerance, atol=tolerance):
                    return False
    except Exception as error:  # absent, or with other arguments: each raises its own kind
        logger.debug("no packed products here: %s", error)
        return False
    return True


def can_pack(model: Any) -> bool:
    """Return whether packed layers can replace the model's: x86 CPU, float32 or bfloat16."""
    return packs(model.device, model.dtype)


def packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether there are products with reordered weights on a device in a number format."""
    return (
        device.type == "cpu"
        and dtype in (torch.float32, torch.bfloat16)
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and torch.backends.mkldnn.is_available()
        and products_work(dtype)
    )


def packed_model(model: Any) -> Any:
    """Return a model with the same weights, shared, and packed linear layers; or the model itself.

    The copy is for inference without gradients, on the device where the model is now, and for as
    long as its weights do not change. Environment variables that bound oneDNN's caches are set,
    unless they are already.
    """
    if not can_pack(model):
        return model
    for name, entries in CACHES.items():
        os.environ.setdefault(name, entries)
    shared = [*model.parameters(), *model.buffers()]
    ready = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    for module in list(ready.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, PackedLinear(child.weight, child.bias))
        if applies_gelu(module):
            module.fc1.gelu, module.activation_fn = True, nn.Identity()
    use_products(ready)
    return ready


@torch.no_grad()
def applies_gelu(layer: nn.Module) -> bool:
    """Return whether a layer's feed-forward part is one of BART's kind, with GELU behind ``fc1``.

    Args:
        layer: any module, with packed linear layers. Of one from elsewhere nothing is known.
    """
    activation = getattr(layer, "activation_fn", None)
    known = type(layer).__module__.startswith(("transformers.models.", "pal."))
    if not known or activation is None or type(getattr(layer, "fc1", None)) is not PackedLinear:
        return False
    probe = torch.linspace(-4, 4, 33)
    return bool(torch.equal(activation(probe), F.gelu(probe)))


def join(layers: Sequence[nn.Linear], bias: Tensor | None = None) -> nn.Linear:
    """Return one layer that gives the outputs of several, one behind the other; packed as they are.

    Args:
        layers: of one input, and all packed or none.
        bias: in place of their own, which otherwise all have.
    """
    weight = layers[0].weight
    if len(layers) > 1:
        weight = _constant(torch.cat([layer.weight for layer in layers]))
    bias = _constant(torch.cat([layer.bias for layer in layers]) if bias is None else bias)
    if isinstance(layers[0], PackedLinear):
        return PackedLinear(weight, bias)
    joined = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight, joined.bias = weight, bias
    return joined


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
