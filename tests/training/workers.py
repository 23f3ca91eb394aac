"""What each of several processes of a test runs: commands of ``pal``, one after another.

``torch.distributed.run -m tests.training.workers COMMANDS`` with a JSON list of argument lists.
As in a shell, ``NAME=value`` before a command is of its environment, and of the later ones.
With ACCELERATE_USE_FSDP=true the models are shared out over CPU processes, which accelerate does
for GPUs alone: on CPUs it drops the wish without a word, and the product refuses it. Here the
state of CPU processes says FSDP, and all else (wrapping, gathering, clipping, checkpoints) is
accelerate's, torch's and the product's own code.

With KILLED=RANK:STEP the process of that rank is killed in the update after that step, once.
"""

import json
import os
import signal
import sys


def share_models_on_cpus():
    """Let accelerate's state be one of FSDP on CPUs too."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    import pal.training.numbers

    plain = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **options):
        plain(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init
    pal.training.numbers.refuse_unusable_launcher = lambda on_cpu: None


def kill_once(rank, step):
    """Let a process die within an update, unless the launcher has started it again."""
    from pal.training.trainer import PalTrainer

    plain = PalTrainer.training_step

    def training_step(self, *args, **options):
        if self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *args, **options)

    if os.environ["RANK"] == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        PalTrainer.training_step = training_step


if __name__ == "__main__":
    import pal

    pal.configure_runtime()
    share_models_on_cpus()
    if "KILLED" in os.environ:
        rank, step = os.environ["KILLED"].split(":")
        kill_once(rank, int(step))
    from pal.cli import main

    for arguments in json.loads(sys.argv[1]):
        while "=" in arguments[0]:
            name, _, value = arguments.pop(0).partition("=")
            os.environ[name] = value
        if main(arguments) != 0:
            sys.exit(f"failed: {arguments}")
