"""The card of a trained model: what hubs read, and what people do."""

import shutil

import pytest
from huggingface_hub import ModelCard

from tests.jobs import TRAIN_RESPONSE, command
from tests.training.runs import record


@pytest.mark.parametrize("name", ["response_model", "extractor_model", "language_model"])
def test_a_card_says_what_was_measured(name, request):
    folder = request.getfixturevalue(name)
    card, run = ModelCard.load(folder / "README.md"), record(folder)
    [result] = card.data.eval_results
    assert result.metric_value == pytest.approx(run["validation_nll"], abs=1e-6)
    assert f"{run['train_samples']:,} samples" in card.text
    worse = run["validation_nll"] >= run["unigram_validation_nll"]
    assert ("learnt nothing" in card.text) == worse
    assert "not a crisis service" in card.text
    assert str(folder.parent) not in card.content  # no path of this machine
    assert "/" not in card.data.eval_results[0].dataset_type


def test_a_card_of_ones_own_stays(response_model, tmp_path):
    folder = tmp_path / "model"
    arguments = [*TRAIN_RESPONSE, "data.max_train_samples=8", f"output_dir={folder}"]
    assert command("train", *arguments) == 0
    ours = (folder / "README.md").read_text()
    (folder / "README.md").write_text("my own words")
    assert command("train", *arguments, "overwrite=true") == 0
    assert (folder / "README.md").read_text() == "my own words"
    (folder / "README.md").write_text(ours.replace("8 samples", "9 samples"))
    assert command("train", *arguments, "overwrite=true") == 0
    assert (folder / "README.md").read_text() == ours


def test_a_card_goes_along(language_model, tmp_path):
    out = tmp_path / "out"
    assert command("export", f"model={language_model}", f"output={out}") == 0
    assert (out / "README.md").read_bytes() == (language_model / "README.md").read_bytes()
    moved = tmp_path / "without"
    shutil.copytree(language_model, moved)
    (moved / "README.md").unlink()
    assert command("export", f"model={moved}", f"output={tmp_path / 'other'}") == 0
    assert not (tmp_path / "other" / "README.md").exists()
