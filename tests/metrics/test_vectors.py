import numpy as np
import pytest

from pal.core.errors import OutputError
from pal.metrics import vectors
from pal.metrics.vectors import StoredEmbedder


@pytest.fixture
def asked(monkeypatch):
    """Texts that a stand-in encoder was given."""
    found = []

    def load(name):
        def embed(texts):
            found.extend(texts)
            return np.array([[len(text), len(name)] for text in texts], dtype=float)

        return embed

    monkeypatch.setattr(vectors, "load_embedder", load)
    return found


def test_no_text_is_embedded_twice_in_this_run_or_the_next(asked, tmp_path):
    path = tmp_path / "deep" / "vectors.sqlite"
    one = StoredEmbedder("model", path)
    assert one(["a", "bb", "a"]).tolist() == [[1, 5], [2, 5], [1, 5]]
    assert StoredEmbedder("model", path)(["bb", "ccc"]).tolist() == [[2, 5], [3, 5]]
    assert asked == ["a", "bb", "ccc"]
    assert b"ccc" not in path.read_bytes()  # hashes only


def test_another_model_has_vectors_of_its_own(asked, tmp_path):
    path, folder = tmp_path / "v.sqlite", tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("1")
    StoredEmbedder(str(folder), path)(["a"])
    (folder / "weights").write_text("2")  # the same name, other contents
    StoredEmbedder(str(folder), path)(["a"])
    StoredEmbedder("other", path)(["a"])
    assert asked == ["a", "a", "a"]


def test_a_file_that_is_none_of_ours(asked, tmp_path):
    path = tmp_path / "v.sqlite"
    path.write_text("no database, but long enough to be looked at " * 50)
    with pytest.raises(OutputError, match="delete the file"):
        StoredEmbedder("model", path)(["a"])


def test_many_texts_at_once(asked, tmp_path):
    texts = [f"text {number}" for number in range(1700)]
    embedder = StoredEmbedder("m", tmp_path / "v.sqlite")
    assert embedder(texts)[:, 0].tolist() == [len(text) for text in texts]
    assert embedder(texts[::-1])[:, 0].tolist() == [len(text) for text in texts[::-1]]
    assert len(asked) == 1700
