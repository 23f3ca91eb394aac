"""What processes of a Ray cluster do in tests: they answer, die or fail. It imports little."""

import os
import signal
import time
from dataclasses import dataclass

from pal.core.errors import DataError


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers; is killed by 13, and cannot be loaded where it has a problem."""

    problem: str = ""
    seconds: float = 0.0

    def load(self):
        if self.problem:
            raise DataError(self.problem)
        return self.double

    def double(self, number):
        time.sleep(self.seconds)
        if number == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 14:
            raise KeyError("a defect")
        return 2 * number
