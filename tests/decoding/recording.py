"""What a CUDA graph does, on a CPU: operations recorded once and repeated on the same memory."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Records operations with the very tensors that they read and wrote."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        read = {memory(leaf) for leaf in tree_leaves((args, kwargs))} - {None}
        self.calls.append((func, args, kwargs, out, read))
        return out

    def repeat(self):
        """Run all again: what was written to new memory is written there once more."""
        for func, args, kwargs, out, read in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and memory(old) not in read:
                    old.copy_(new)


def memory(leaf):
    return leaf.untyped_storage().data_ptr() if isinstance(leaf, torch.Tensor) else None


class TapeRecorder:
    """A recorder of :mod:`pal.decoding.graphs` that needs no GPU.

    Args:
        workspace: its tensors are as before when a call has been recorded.
    """

    def __init__(self, workspace):
        self.workspace, self.warmed, self.recorded, self.repeated = workspace, 0, 0, 0

    def warm_up(self, call):
        self.warmed += 1
        call()

    def record(self, call):
        self.recorded += 1
        held = [part for part in vars(self.workspace).values() if isinstance(part, torch.Tensor)]
        before = [part.clone() for part in held]
        tape = Tape()
        with tape:
            call()
        for part, was in zip(held, before, strict=True):
            part.copy_(was)

        def repeat():
            self.repeated += 1
            tape.repeat()

        return repeat
