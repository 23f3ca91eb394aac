"""A head is trained, saved, loaded and measured; a classification model needs a level a label."""

import json

import numpy as np
import pytest
from safetensors import SafetensorError

from pal.commands.study import _without_crises
from pal.core.errors import CheckpointError, ConfigError, DataError
from pal.guard import GuardSettings, load_guard
from pal.guard.evaluation import measure_dialogues, measure_messages, show_measured
from pal.guard.models import ClassifierDetector, HeadDetector, load_detector
from pal.guard.rows import LabelledMessage, read_labelled
from pal.guard.training import describe_head, save_head, show_head, threshold_at, train_head
from pal.guard.windows import MOST_WINDOWS, windows_of
from tests.jobs import command


def embed(texts):
    """A vector says how dark a text is."""
    return np.array([[text.count("dark") + 0.1, text.count("sunny") + 0.1, 1.0] for text in texts])


ROWS = [
    LabelledMessage(f"dark {n}", True, "indirect", "indirect or coded", f"s{n % 6}", ())
    for n in range(30)
] + [LabelledMessage(f"sunny {n}", False, "everyday", "other", f"s{n % 6}", ()) for n in range(60)]


def train(rows=ROWS, **options):
    return train_head(
        [row.text for row in rows], [row.crisis for row in rows], [row.source for row in rows],
        embed, **options,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("pal.guard.models.load_embedder", lambda *args, **options: embed)
    head = train()
    save_head(tmp_path / "head", head, "an/encoder", embed)
    return tmp_path / "head"


def test_a_head_finds_what_it_was_trained_for_in_one_window_of_many(folder):
    head = load_detector(str(folder))
    assert isinstance(head, HeadDetector)
    long = "It is sunny. " * 20 + "All is dark. " + "It is sunny. " * 20
    levels = [found.level for found in head.detect(["dark", "sunny", long, ""])]
    assert levels[0] >= 1
    assert levels[1] == 0
    guard = load_guard(GuardSettings(country="US", model=str(folder)))
    found = guard.assess(["all is dark and dark"])
    assert found.detectors == ("head",)
    assert found.categories == ("by_model",)


def test_what_is_no_number_is_an_error(folder):
    head = HeadDetector.load(str(folder))
    head._embedder = lambda texts: np.full((len(texts), 3), np.nan)
    with pytest.raises(ValueError, match="not a number"):
        head.detect(["x"])
    guard = load_guard(GuardSettings(country="US", model=str(folder)))
    guard._detectors[-1]._embedder = head._embedder
    assert guard.review(["hello"]).action == "help_only"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 50),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "guard.json").write_text("{}"),
        lambda folder: (folder / "guard.json").write_text("no"),
        lambda folder: (folder / "guard.json").unlink(),
    ],
)
def test_a_damaged_head_does_not_load(folder, damage):
    damage(folder)
    with pytest.raises(CheckpointError):
        load_detector(str(folder))


def test_another_encoder_is_noticed(folder, monkeypatch):
    other = lambda texts: embed(texts)[:, ::-1]  # noqa: E731
    monkeypatch.setattr("pal.guard.models.load_embedder", lambda *args, **options: other)
    with pytest.raises(CheckpointError, match="another encoder"):
        load_detector(str(folder))


def test_labels_are_not_for_a_head(folder):
    with pytest.raises(ConfigError, match=r"guard\.labels"):
        load_detector(str(folder), {"x": 1})


def test_a_threshold_lets_the_stated_share_through():
    chances = np.arange(100) / 100
    for share in (0.0, 0.01, 0.02, 0.5):
        assert (chances >= threshold_at(chances, share)).mean() == share
    assert (np.full(10, 0.3) >= threshold_at(np.full(10, 0.3), 0.1)).sum() == 0


def test_cross_validation_keeps_a_source_together():
    rows = [
        LabelledMessage(row.text + f" of {row.source}", row.crisis, "x", "other", row.source, ())
        for row in ROWS
    ]
    head = train(rows, false_alarms=0.02)
    facts = describe_head(head, rows, 0.95)
    assert facts["rates"][2]["recall"]["value"] == 1.0
    assert "recall with the lexicon" in show_head(facts)
    with pytest.raises(DataError, match="at least 5"):
        train(ROWS[:3] + ROWS[-20:])


def trained_by_command(folder, monkeypatch):
    messages = folder / "messages.jsonl"
    rows = [{"text": r.text, "label": ("none", "crisis")[r.crisis], "source": r.source}
            for r in ROWS]  # fmt: skip
    messages.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("pal.metrics.similarity.load_embedder", lambda *args, **options: embed)
    return ["guard", "train", f"head.messages={messages}", "overwrite=true",
            f"output={folder / 'head'}"]  # fmt: skip


def test_a_training_leaves_the_folders_of_others_alone(tmp_path, monkeypatch):
    for name in ("head.saving", "head.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    call = trained_by_command(tmp_path, monkeypatch)
    assert command(*call) == command(*call) == 0
    names = {"head", "head.saving", "head.old", "messages.jsonl"}
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"} == names
    assert (tmp_path / "head.saving" / "mine").exists()


def test_a_training_that_ends_early_leaves_the_head_that_was_there(tmp_path, monkeypatch, capsys):
    call = trained_by_command(tmp_path, monkeypatch)
    assert command(*call) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "head").iterdir()}

    def full(*arguments):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.numpy.save_file", full)
        capsys.readouterr()
        assert command(*call) == 2
    said = capsys.readouterr().err
    assert said.count("pal: error: ") == 1
    assert "No space left" in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "head").iterdir()} == before
    assert command(*call) == 0


def test_windows_hold_every_sentence_and_are_not_endless():
    text = " ".join(f"Sentence {n}." for n in range(30))
    assert all(any(f"Sentence {n}." in part for part in windows_of(text)) for n in range(30))
    assert len(windows_of("word " * 50_000)) <= MOST_WINDOWS
    assert windows_of("") == [""]


def test_messages_and_dialogues_are_measured(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [
        {"text": "I want to kill myself.", "label": "crisis", "category": "ideation_active"},
        {"text": "Nice day.", "label": "crisis", "category": "indirect"},
        {"text": "Nice day.", "label": "none"},
        {"text": "kill myself", "label": "crisis", "context": ["I want to"]},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    guard = load_guard(GuardSettings(country="US"))
    found = measure_messages(guard, read_labelled(str(file)))
    assert found["recall"]["all"]["value"] == pytest.approx(2 / 3)
    assert found["recall by wording"]["explicit"]["value"] == 1.0
    assert found["false alarms"]["all"]["value"] == 0.0
    assert "| explicit | 1 | 1.000" in show_measured(found)
    assert found["missed lines"] == [2]
    assert show_measured(found).endswith("missed lines: 2\nfalse alarm lines: none")
    said = ["hi", "I want to kill myself.", "ok"]
    dialogue = {"id": "a", "dialog": [{"speaker": "seeker", "text": text} for text in said]}
    found = measure_dialogues(guard, [dialogue])
    assert found["turns by themselves"]["value"] == pytest.approx(1 / 3)
    assert found["turns in their dialogue"]["value"] == pytest.approx(1 / 3)
    assert found["flagged dialogues"] == ["a"]
    file.write_text('{"text": "x", "label": "maybe"}')
    with pytest.raises(DataError, match="line 1: label"):
        read_labelled(str(file))


NOTICES = ("guard.country", "nobody has checked")


@pytest.mark.parametrize("given", [[], ["guard.country=GB"], ["guard.country=XX"]])
def test_where_nobody_is_shown_help_nothing_is_said_of_it(given, tmp_path, capsys, caplog):
    """A guard that is measured, or chooses situations, speaks to nobody."""
    messages = tmp_path / "messages.jsonl"
    messages.write_text('{"text": "I want to kill myself.", "label": "crisis"}\n')
    assert _without_crises(["The rent is due.", "I want to die."], GuardSettings()) == [
        (1, "The rent is due.")
    ]
    assert command("guard", "eval", f"input={messages}", *given) == 0
    said = capsys.readouterr().err + caplog.text
    assert not any(notice in said for notice in NOTICES)
    load_guard(GuardSettings())  # a face does say it
    assert NOTICES[0] in capsys.readouterr().err + caplog.text


def test_messages_are_read_before_a_model_is_loaded(tmp_path, capsys):
    messages = tmp_path / "messages.jsonl"
    messages.write_text('{"text": "The rent is due.", "label": "fine"}\n')
    (tmp_path / "model").mkdir()
    call = ["guard", "eval", f"input={messages}", f"guard.model={tmp_path / 'model'}"]
    assert command(*call) == 2
    assert "messages.jsonl, line 1" in capsys.readouterr().err


def test_a_classification_model_needs_a_level_for_each_label(tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"]))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, id2label={0: "fine", 1: "bad"}, label2id={"fine": 0, "bad": 1},
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    for labels, wrong in (({}, "fine"), ({"fine": 0}, "bad"), ({"fine": 0, "bat": 1}, "bad")):
        with pytest.raises(ConfigError, match=wrong):
            load_detector(str(tmp_path), labels)
    low = load_detector(str(tmp_path), {"fine": 0, "bad": 2}, 0.001)
    assert isinstance(low, ClassifierDetector)
    assert [one.level for one in low.detect(["a b", ""])] == [2, 2]
    high = load_detector(str(tmp_path), {"fine": 0, "bad": 2}, 0.999)
    assert [one.level for one in high.detect(["a b"])] == [0]
