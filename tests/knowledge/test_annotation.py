"""``pal annotate annotate.knowledge=…``: knowledge for MISC, by COMET and by a language model."""

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

from pal.core.files import read_json, read_jsonl
from pal.data.esconv import load_esconv
from pal.data.knowledge import RELATIONS, read_knowledge
from pal.data.samples import build_samples
from pal.knowledge.queries import clean_tails, knowledge_queries
from tests.jobs import ESCONV, command
from tests.llm.server import FakeServer
from tests.modeling.families import bart_tokenizer

TEST = ESCONV / "test.jsonl"


def arguments(folder, *more):
    return ["annotate", f"input={TEST}", "limit=1", f"output={folder / 'k.jsonl'}", *more]


def by_llm(server, folder, *more):
    return arguments(
        folder, "annotate.knowledge=llm", f"llm.base_url={server.url}", "llm.model=fake",
        "llm.backoff=0.01", f"llm.cache={folder / 'cache.sqlite'}", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def comet(tmp_path_factory):
    """A random BART where a COMET model would be."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("comet")
    tokenizer = bart_tokenizer()
    tokenizer.add_tokens(["[GEN]", *RELATIONS])
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, max_position_embeddings=40, init_std=0.5,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id")
           for name in ("pad", "bos", "eos")}, decoder_start_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_what_is_asked_is_what_contexts_read():
    rows = list(load_esconv(TEST))
    texts = knowledge_queries(rows)
    assert len(set(texts)) == len(texts)
    for sample in build_samples(rows, "training"):
        said = [turn["text"] for turn in sample.context if turn["speaker"] == "seeker"]
        assert not said or said[-1] in texts
        assert sample.situation in texts
    request = {"situation": "", "dialog": [{"speaker": "seeker", "text": "a"},
                                           {"speaker": "seeker", "text": "b"}]}  # fmt: skip
    assert knowledge_queries([request]) == ["b"]


def test_tails_that_say_nothing_are_dropped():
    assert clean_tails([" Sad. ", "none", "", "sad", "To  rest", "x", "y"], 3) == [
        "sad", "to rest", "x",
    ]  # fmt: skip


def test_comet(comet, tmp_path, monkeypatch):
    options = ["annotate.knowledge=comet", f"model={comet}", "annotate.tails=2",
               "annotate.num_beams=3", "annotate.max_new_tokens=6"]  # fmt: skip
    assert command(*arguments(tmp_path, *options)) == 0
    rows = [row for _, row in read_jsonl(tmp_path / "k.jsonl")]
    dialogue = load_esconv(TEST)[0]
    assert [row["text"] for row in rows] == knowledge_queries([dialogue])
    assert all(tuple(row["relations"]) == RELATIONS for row in rows)
    tails = [tuple(tails) for row in rows for tails in row["relations"].values()]
    assert max(map(len, tails)) == 2
    assert len(set(tails)) > 5
    base = read_knowledge(str(tmp_path / "k.jsonl"))
    assert any(base.of(sample).utterance for sample in build_samples([dialogue], "training"))
    whole = (tmp_path / "k.jsonl").read_bytes()  # the same bytes in other batches
    assert command(*arguments(tmp_path, *options, "batch_rows=3", "overwrite=true")) == 0
    assert (tmp_path / "k.jsonl").read_bytes() == whole
    monkeypatch.setattr("pal.knowledge.comet.load_comet", None)  # not needed for finished work
    assert command(*arguments(tmp_path, *options, "batch_rows=3")) == 0


def test_any_language_model(tmp_path):
    answer = {name: ["Sad", "none", f"to {name}"] for name in RELATIONS}
    with FakeServer(lambda body: answer) as server:
        assert command(*by_llm(server, tmp_path, "annotate.tails=2")) == 0
        asked = [body["messages"][-1]["content"] for body in server.requests]
    rows = [row for _, row in read_jsonl(tmp_path / "k.jsonl")]
    assert len(asked) == len(rows)
    assert rows[0]["relations"]["oWant"] == ["sad", "to owant"]
    record = read_json(tmp_path / "k.jsonl.run.json")
    assert record["prompts"] == {"knowledge": 1}
    assert record["unanswered"] == []


def test_what_is_not_answered_is_listed_and_nothing_is_known_of_it(tmp_path):
    text = load_esconv(TEST)[0]["dialog"][0]["text"]

    def faults(number, body):
        return "refusal" if text in body["messages"][-1]["content"] else None

    with FakeServer(lambda body: {name: ["sad"] for name in RELATIONS}, faults) as server:
        assert command(*by_llm(server, tmp_path)) == 0
    (listed,) = read_json(tmp_path / "k.jsonl.run.json")["unanswered"]
    assert listed["text"] == text
    rows = {row["text"]: row["relations"] for _, row in read_jsonl(tmp_path / "k.jsonl")}
    assert not any(rows[text].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["annotate.knowledge=comet"], "model="),
        (["annotate.knowledge=comet", "annotate.start=third_utterance"], "annotate.start is for p"),
        (["annotate.tails=3"], "annotate.tails applies to knowledge"),
        (["annotate.knowledge=comets"], "annotate.knowledge"),
    ],
)
def test_mistakes_end_in_one_line(options, message, tmp_path, capsys):
    assert command(*arguments(tmp_path, *options)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def test_models_that_are_no_comet_are_refused(comet, response_model, tmp_path, capsys):
    options = ["annotate.knowledge=comet", f"model={response_model}"]
    assert command(*arguments(tmp_path, *options)) == 2
    assert "not a COMET model" in capsys.readouterr().err
    options = ["annotate.knowledge=comet", f"model={comet}", "annotate.num_beams=2"]
    assert command(*arguments(tmp_path, *options)) == 2
    assert "annotate.num_beams=2 gives fewer than annotate.tails=5" in capsys.readouterr().err
