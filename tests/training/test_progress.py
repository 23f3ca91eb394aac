"""What a person sees of a training."""

import pytest

from pal.commands.train import verdict
from pal.training.progress import epoch_line
from tests.jobs import ESCONV, TINY_RESPONSE, command

HISTORY = [
    {"step": 2, "epoch": 0.5, "loss": 4.0},
    {"step": 4, "epoch": 1.0, "loss": 3.0},
    {"step": 4, "epoch": 1.0, "eval_nll": 3.5},
    {"step": 5, "epoch": 1.25, "loss": 2.0},
    {"step": 8, "epoch": 2.0, "loss": 1.0},
]


@pytest.mark.parametrize(
    ("epoch", "history", "metrics", "expected"),
    [
        (1.0, HISTORY[:2], {"eval_nll": 3.5},
         "epoch 1 of 2: training loss 3.500, validation loss 3.500 nats per token"),
        (2.0, HISTORY, {}, "epoch 2 of 2: training loss 1.250 nats per token"),
        (1.25, HISTORY[:4], {"eval_nll": 3.25, "eval_strategy_accuracy": 0.25},
         "epoch 1.25 of 2: training loss 2.000, validation loss 3.250 nats per token, "
         "25% of strategies right"),
        (2.0, [], {"eval_nll": 3.0}, "epoch 2 of 2: validation loss 3.000 nats per token"),
    ],
)  # fmt: skip
def test_losses_of_an_epoch(epoch, history, metrics, expected):
    assert epoch_line(epoch, 2, history, metrics) == expected


def test_a_loss_beside_token_frequencies():
    assert verdict(2.0, 5.0) == (
        "validation loss 2.000 nats per token (token frequencies alone: 5.000)"
    )
    bare = verdict(5.0, 5.0)
    assert bare.endswith("no better than token frequencies alone (5.000)")
    fits = verdict(5.0, 5.0, 4.9)
    assert fits.startswith(f"{bare}: it fits its training dialogues and does not generalise")
    new = verdict(6.142, 2.272, 6.107)
    assert "no better than token frequencies alone (2.272), and neither is" in new
    assert "(6.107): it has hardly learnt yet; train for more epochs" in new
    assert "generalise" not in new


def test_a_training_loss_with_that_of_strategies_is_not_called_one_of_tokens():
    line = epoch_line(1.0, 2, HISTORY[:2], {"eval_nll": 3.25}, with_strategies=True)
    assert "training loss 3.500 with that of strategies, validation loss 3.250" in line


@pytest.mark.parametrize("family", ["blenderbot-small", "misc"])
def test_what_the_end_says_of_a_model_that_has_hardly_learnt(tmp_path, capsys, family):
    options = ["training.num_train_epochs=1", "training.learning_rate=1e-6"]
    if family == "misc":
        options += ["architecture.backbone=misc", "architecture.persona_mode=none"]
    call = ["train", "--config", "quickstart", *TINY_RESPONSE, *options, f"data.train={ESCONV}"]
    assert command(*call, f"output_dir={tmp_path / 'run'}") == 0
    shown = capsys.readouterr().err
    assert "no better than token frequencies alone" in shown
    assert "generalise" not in shown
    # MISC's training loss has one of strategies in it, so it is compared with nothing
    assert ("hardly learnt yet" in shown) == (family != "misc")
    assert ("with that of strategies" in shown) == (family == "misc")


@pytest.mark.parametrize("validated", [True, False])
def test_a_bar_and_one_line_an_epoch(tmp_path, capsys, validated):
    options = ["training.num_train_epochs=2", "training.logging_steps=1"]
    if not validated:
        options += ["training.eval_strategy=no", "training.save_strategy=no",
                    "training.load_best_model_at_end=false"]  # fmt: skip
    call = ["train", "--config", "quickstart", *TINY_RESPONSE, *options, f"data.train={ESCONV}"]
    assert command(*call, f"output_dir={tmp_path / 'run'}") == 0
    shown = capsys.readouterr()
    assert "{'" not in shown.out + shown.err
    assert "train: 100%" in shown.err
    lines = [line for line in shown.err.replace("\r", "\n").splitlines() if "epoch " in line]
    assert len(lines) == 2
    assert "epoch 2 of 2: training loss " in lines[1]
    assert ("validation loss" in lines[1]) == validated
