"""``pal bench`` imports a checkpoint's classes from outside only where the user names them."""

import pytest

from tests.jobs import ESCONV, TINY_RESPONSE, command
from tests.modeling.small import with_outside_fusion

MEASURED = {
    "generate": ["bench.rounds=1", "decoding.max_new_tokens=4", "decoding.min_new_tokens=2"],
    "train": [],
}


@pytest.mark.parametrize("what", MEASURED)
def test_a_class_from_outside_is_run_only_where_the_user_names_it(
    response_model, tmp_path, capsys, what
):
    name = with_outside_fusion(response_model, tmp_path / "model")
    call = ["bench", what, f"model={tmp_path / 'model'}", f"input={ESCONV / 'test.jsonl'}",
            "limit=4", *MEASURED[what]]  # fmt: skip
    assert command(*call) == 2
    assert f"give trusted_code={name} if you trust it" in capsys.readouterr().err
    assert command(*call, f"trusted_code={name}") == 0
    assert command("bench", "annotate", f"trusted_code={name}", *TINY_RESPONSE) == 2
