"""Tensors that claim to be on a GPU, on a machine that has none.

Each is a real CPU tensor in a wrapper whose ``device`` is ``cuda:0``. Operations that a GPU
refuses, since some tensor is on the CPU, are refused; those for which the host waits are counted
with the line that asked for them. So a test can hold code to what a GPU would do with it. Nothing
has a gradient there: torch asks a real device for that.

    with claimed_device() as device:
        model = device.take(model)
        model(torch.ones(1, 4, dtype=torch.long, device=device.name))
    assert device.syncs == []
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "cuda:0"
PACKAGE = Path(__file__).parents[1]
HERE = str(Path(__file__))
aten = torch.ops.aten

# Operations for which the host waits, whatever they are given: their results are a number, or as
# many as the values say.
WAITING = {
    "_local_scalar_dense", "item", "is_nonzero", "nonzero", "nonzero_numpy", "argwhere",
    "masked_select", "equal", "allclose", "unique_dim", "unique_consecutive", "_unique", "_unique2",
    "bincount", "one_hot", "_linalg_check_errors",
}  # fmt: skip
# Those that take a tensor of the CPU along with others.
COPYING = {"_to_copy", "copy_", "to", "fill_"}
NUMBERS = {
    "bool": torch.bool, "long": torch.long, "int": torch.int, "float": torch.float,
    "double": torch.double, "half": torch.half, "bfloat16": torch.bfloat16, "byte": torch.uint8,
}  # fmt: skip
READING = {"tolist", "item", "__int__", "__float__", "__bool__", "__index__", "nonzero"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class MixedDevices(RuntimeError):
    """An operation on tensors of two devices, which a GPU refuses."""


class ClaimedTensor(torch.Tensor):
    """A tensor that says it is on a GPU."""

    @staticmethod
    def __new__(cls, held):
        assert type(held) is not ClaimedTensor
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, layout=held.layout, device=NAME,
        )  # fmt: skip

    def __init__(self, held):
        self.held = held

    def __repr__(self, *args, **settings):
        return f"Claimed({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a claimed tensor outside of claimed_device()")


def claims(device):
    return device is not None and str(device).startswith("cuda")


def claimed(value):
    return isinstance(value, ClaimedTensor)


def is_tensor(value):
    return isinstance(value, torch.Tensor)


def unwrap(tree):
    return tree_map(lambda leaf: leaf.held if claimed(leaf) else leaf, tree)


def wrap(tree):
    return tree_map(
        lambda leaf: (
            ClaimedTensor(leaf) if isinstance(leaf, torch.Tensor) and not claimed(leaf) else leaf
        ),
        tree,
    )


class ClaimedDevice(TorchDispatchMode):
    """What operations do on the claimed device.

    Attributes:
        name: of the device.
        syncs: what the host waited for: (operation, ``file:line`` of the package or its tests).
        operations: number of operations that compute or copy something.
    """

    name = NAME

    def __init__(self):
        super().__init__()
        self.syncs, self.operations = [], 0
        self.functions = _Functions(self)

    def take(self, value):
        """Return a tensor on the device; a module's own tensors are replaced, tied ones as such."""
        if isinstance(value, torch.Tensor):
            return value if claimed(value) else ClaimedTensor(value)
        taken = {}
        for module in value.modules():
            for held in (module._parameters, module._buffers):
                for name, tensor in held.items():
                    if tensor is None or claimed(tensor):
                        continue
                    if id(tensor) not in taken:
                        new = ClaimedTensor(tensor.detach())
                        if isinstance(tensor, torch.nn.Parameter):
                            new = torch.nn.Parameter(new, requires_grad=False)
                        taken[id(tensor)] = tensor, new
                    held[name] = taken[id(tensor)][1]
        return value

    def wait(self, what):
        """Count what a host waits for."""
        frame = sys._getframe(1)
        while frame and (
            frame.f_code.co_filename == HERE
            or not Path(frame.f_code.co_filename).is_relative_to(PACKAGE)
        ):
            frame = frame.f_back
        where = (
            f"{Path(frame.f_code.co_filename).relative_to(PACKAGE)}:{frame.f_lineno}"
            if frame
            else "?"
        )
        self.syncs.append((what, where))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        ours = [leaf for leaf in leaves if claimed(leaf)]
        to = kwargs.get("device")
        if not ours and not claims(to):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in INDEXING:
            indices = [index for index in args[1] if index is not None]
            self.check_index(name, args[0], indices, args[2] if len(args) > 2 else None)
        elif name not in COPYING:
            self._check_mix(func, leaves)
        if name in WAITING or (name == "repeat_interleave" and func._overloadname == "Tensor"):
            self.wait(name)
        elif name in COPYING - {"fill_"}:
            self._check_copy(name, args, kwargs)
        if ours and name not in WAITING:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if claims(to):
            kwargs = {**kwargs, "device": torch.device("cpu")}
        out = func(*unwrap(args), **unwrap(kwargs))
        held = {leaf.held.untyped_storage().data_ptr() for leaf in ours}
        written = _written(func, args, kwargs)
        new = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        if written or any(leaf.untyped_storage().data_ptr() not in held for leaf in new):
            self.operations += 1
        if written:
            return written[0] if len(written) == 1 else tuple(written)
        if name in COPYING and to is not None and not claims(to):
            return out
        return wrap(out)

    def _check_mix(self, func, leaves):
        others = [leaf for leaf in leaves if not claimed(leaf) and leaf.dim()]
        if others and any(map(claimed, leaves)):
            raise MixedDevices(
                f"Expected all tensors to be on the same device: {func} got one on {NAME} and one "
                f"of shape {tuple(others[0].shape)} on the CPU"
            )

    def check_index(self, name, source, indices, value=None):
        """Refuse an index, or values to write, that a GPU refuses; count what it waits for."""
        if not claimed(source) and (any(map(claimed, indices)) or claimed(value)):
            raise MixedDevices(f"{name} of a tensor on the CPU by one on {NAME}")
        if is_tensor(value) and value.dim() and not claimed(value):
            raise MixedDevices(f"{name} writes values on the CPU to a tensor on {NAME}")
        filled = value is not None and not claimed(value)
        for index in indices:
            if not claimed(index):
                self.wait(f"{name} by an index on the CPU")
            elif index.dtype in (torch.bool, torch.uint8) and not filled:
                self.wait(f"{name} by a mask")

    def _check_copy(self, name, args, kwargs):
        if name == "copy_":
            to, source = args[0], args[1]
            crosses = claimed(to) != claimed(source)
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        else:
            target = kwargs.get("device")
            crosses = target is not None and claims(target) != claimed(args[0])
            waits = not kwargs.get("non_blocking", False)
        if crosses and waits:
            self.wait("copy to the host" if claimed(args[-1 if name == "copy_" else 0]) else
                      "copy to the device")  # fmt: skip


def _written(func, args, kwargs):
    """Return the arguments that an operation writes to and returns."""
    schema = func._schema
    if not any(r.alias_info is not None and r.alias_info.is_write for r in schema.returns):
        return []
    found = []
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    return found


class _Functions(TorchFunctionMode):
    """What a CPU build of torch refuses before any operation is run."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("to", "cuda", "cpu") and isinstance(args[0], torch.Tensor):
            return self._to(func, name, args, kwargs)
        if claimed(args[0] if args else None):
            if name in READING:
                self.device.wait(name)
                found = getattr(args[0].held, name)(*args[1:], **kwargs)
                return tree_map(
                    lambda leaf: ClaimedTensor(leaf) if is_tensor(leaf) else leaf, found
                )
            if name in ("numpy", "__array__"):
                raise TypeError(f"can't convert {NAME} device type tensor to numpy")
            if name == "__invert__":
                return torch.bitwise_not(args[0])
            if name == "copy_":
                return self._copy(*args, **kwargs)
            if name in NUMBERS:
                return args[0].to(NUMBERS[name])
            if name == "contiguous":
                same = args[0].is_contiguous(**kwargs)
                return args[0] if same else args[0].clone(memory_format=torch.contiguous_format)
            if name == "__getitem__":
                return self._get(*args)
            if name == "__setitem__":
                return self._set(*args)
        elif name == "copy_" and claimed(args[1]):
            if not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False)):
                self.device.wait("copy to the host")
            return args[0].copy_(args[1].held)
        elif name in ("__getitem__", "__setitem__") and any(map(claimed, tree_leaves(args[1:]))):
            raise MixedDevices(f"{name} of a tensor on the CPU by one on {NAME}")
        if name == "pin_memory":
            return args[0]
        if claims(kwargs.get("device")):
            kwargs["device"] = torch.device("cpu")
            if name in ("tensor", "as_tensor", "asarray", "new_tensor"):
                self.device.wait(f"torch.{name} on the device")
            if args and claimed(args[0]):  # such as zeros_like: the same device as its own
                kwargs.pop("device")
                return func(*args, **kwargs)
            made = func(*args, **kwargs)
            self.device.operations += 1
            return ClaimedTensor(made) if not claimed(made) else made
        if args and claimed(args[0]) and name == "new_tensor":
            self.device.wait("new_tensor on the device")
            return ClaimedTensor(torch.tensor(*args[1:], dtype=kwargs.get("dtype", args[0].dtype)))
        return func(*args, **kwargs)

    def _to(self, func, name, args, kwargs):
        tensor, rest = args[0], list(args[1:])
        target = {"cuda": NAME, "cpu": "cpu"}.get(name, kwargs.pop("device", None))
        kept = []
        for value in rest:
            if isinstance(value, torch.device) or (isinstance(value, str) and value):
                target = value
            elif isinstance(value, torch.Tensor):
                target, kept = value.device, [*kept, value.dtype]
            elif not (name == "cuda" and isinstance(value, int)):
                kept.append(value)
        waits = not kwargs.pop("non_blocking", False)
        crosses = target is not None and claims(target) != claimed(tensor)
        if not crosses:
            if not kept and not kwargs:
                return tensor
            if not claimed(tensor):
                return tensor.to(*kept, **kwargs)
            changed = tensor.held.to(*kept, **kwargs)
            self.device.operations += changed is not tensor.held
            return tensor if changed is tensor.held else ClaimedTensor(changed)
        if waits:
            self.device.wait("copy to the host" if claimed(tensor) else "copy to the device")
        self.device.operations += 1
        if claimed(tensor):
            return tensor.held.to(*kept, **kwargs).clone()
        return ClaimedTensor(tensor.detach().to(*kept, **kwargs).clone())

    def _copy(self, tensor, source, non_blocking=False):
        if not claimed(source) and not non_blocking:
            self.device.wait("copy to the device")
        self.device.operations += 1
        tensor.held.copy_(unwrap(source))
        return tensor

    # torch itself asks for a real device where brackets are used and at a few more functions.

    def _get(self, tensor, index):
        by = self._index(index)
        self.device.check_index("indexing", tensor, [part for part in by if is_tensor(part)])
        self.device.operations += any(map(is_tensor, by))
        return ClaimedTensor(tensor.held[unwrap(by)])

    def _set(self, tensor, index, value):
        by = self._index(index)
        indices = [part for part in by if is_tensor(part)]
        if is_tensor(value) and value.dim() and not claimed(value) and not indices:
            self.device.wait("copy to the device")
        else:
            self.device.check_index("assignment", tensor, indices, value)
        self.device.operations += 1
        tensor.held[unwrap(by)] = value.held if claimed(value) else value

    def _index(self, index):
        """Return an index as a tuple whose lists are tensors, as they become for a GPU."""
        parts = index if isinstance(index, tuple) else (index,)
        found = []
        for part in parts:
            if isinstance(part, list | range):
                self.device.wait("an index that is a list")
                part = ClaimedTensor(torch.tensor(list(part), dtype=torch.long))
            elif isinstance(part, slice):
                ends = (part.start, part.stop, part.step)
                if any(map(claimed, ends)):
                    self.device.wait("a slice up to a tensor")
                part = slice(*(int(end.held) if claimed(end) else end for end in ends))
            found.append(part)
        return tuple(found)


@contextmanager
def claimed_device() -> Iterator[ClaimedDevice]:
    """Let ``cuda`` be a device that there is."""
    torch._C._ensureCUDADeviceGuardSet()
    device = ClaimedDevice()
    with device, device.functions:
        yield device
