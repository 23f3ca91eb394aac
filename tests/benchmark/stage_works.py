"""What stages of tests do, in processes of their own; no torch, so they start at once."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from pal.benchmark.executors.tasks import LOGS, StageContext, StageTask
from pal.core.errors import DataError
from pal.core.job import output_lock, record_path


def task(function, output, *arguments, label=None, kind="train"):
    """A stage that calls a function of this module with its output and more."""
    where = f"{__name__}:{function.__name__}"
    return StageTask(kind, label or output.stem, where, (output, *arguments), output)


def write(output, *inputs):
    """Write the texts of other stages, and the name of this."""
    text = "".join(path.read_text() for path in inputs)
    with output_lock(output):
        record_path(output).write_text(json.dumps({"identity": "x"}))
        output.write_text(text + output.stem + ".")


def note(output, other, variable):
    """Write a variable of the environment when another stage has begun."""
    meet(output, other)
    output.write_text(os.environ.get(variable, "none"))


def meet(output, other):
    """Finish when another stage has begun."""
    output.with_suffix(".begun").touch()
    end = time.time() + 30
    while not other.with_suffix(".begun").exists():
        assert time.time() < end, "the other never began"
        time.sleep(0.01)
    write(output)


def refuse(output):
    """Fail as a user's mistake does, when another stage runs."""
    while not list(output.parent.glob("*.begun")):
        time.sleep(0.01)
    raise DataError(f"{output}: line 3 is no dialogue")


def break_down(output):
    """Fail as a defect does."""
    raise KeyError("a defect")


def die(output, times):
    """Be killed so many times, and then write."""
    marks = output.parent / f"{output.stem}.deaths"
    with marks.open("a") as file:
        file.write("x")
    if len(marks.read_text()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    write(output)


def linger(output, seconds=60):
    """Take long."""
    with output_lock(output):
        output.with_suffix(".begun").write_text(str(os.getpid()))
        time.sleep(seconds)
    write(output)


def attempts(folder):
    """(How often each stage began, how often it finished), by name, from its messages."""
    texts = {path.stem: path.read_text() for path in (folder / LOGS).glob("*-*.log")}
    return {name: (text.count(", process "), text.count("== finished"))
            for name, text in texts.items()}  # fmt: skip


def drive(folder):
    """A driver for tests to kill: one short stage, two long ones."""
    from pal.benchmark.executors.local import LocalExecutor
    from pal.benchmark.executors.schedule import SideBySide

    def run():
        yield [task(write, folder / "short.json")]
        yield [task(linger, folder / f"long{number}.json", 2) for number in (1, 2)]
        return "driven"

    context = StageContext.of_this_process(folder)
    with SideBySide(LocalExecutor(context, 2), context, {"train": 3}) as schedule:
        print(*schedule.run([run()]))


if __name__ == "__main__":
    import tests.benchmark.stage_works as this  # functions are named by the module's own name

    this.drive(Path(sys.argv[1]))
