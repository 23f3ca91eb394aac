"""The rule for the number format of commands that run models: the fastest with the same records.

Only in float32 do the records of a CPU not depend on the batch (tests/decoding/test_engine.py), so
it is the default, whatever the processor multiplies faster; and another format is another job.
"""

from pal.commands import all_settings
from pal.commands.common import InferenceSettings
from pal.core.job import decisive

RUNNING = {n: cls for n, cls in all_settings().items() if issubclass(cls, InferenceSettings)}


def test_commands_that_run_models_start_from_float32():
    assert {"generate", "annotate", "tune-alpha"} <= RUNNING.keys()
    for cls in RUNNING.values():
        assert cls.model_fields["dtype"].default == "float32"
        asked = [decisive(cls(dtype=name)) for name in ("float32", "bfloat16")]
        assert asked[0] != asked[1]
