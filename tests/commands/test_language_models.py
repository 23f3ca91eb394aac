"""Decoder-only response models in the commands: answers, losses, the search for α, mistakes."""

import json
import random
import shutil
import signal
import sys
import time

import pytest
import torch

from pal.data.esconv import write_pesconv
from pal.data.samples import load_samples
from pal.data.settings import SourceSettings
from pal.data.strategies import STRATEGIES
from pal.modeling.language import find_gguf_file
from pal.modeling.language_responder import language_losses
from pal.modeling.responder import load_model_and_tokenizer
from tests.jobs import ESCONV, TRAIN_RESPONSE, command, start
from tests.modeling.languages import chat_tokenizer, dialogues, smollm2_folder, tiny
from tests.modeling.small import small_tokenizer

SHORT = ["decoding.max_new_tokens=12", "decoding.min_new_tokens=2"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noted")
    draw = random.Random(3)
    rows = [{**row, "dialog": row["dialog"][: draw.randrange(4, 12)]} for row in dialogues()]
    for name, part in (("train", rows[:20]), ("validation", rows[20:27]), ("test", rows[27:33])):
        write_pesconv(folder / f"{name}.jsonl", part)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base of few positions: 256 of a dialogue and 48 of a response fit."""
    folder = tmp_path_factory.mktemp("base")
    tiny("gpt2", n_positions=304, initializer_range=0.15).save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    return folder


def train(base, corpus, folder, *more):
    return [
        "train", f"architecture.base={base}", f"data.train={corpus}", "data.split=published",
        "architecture.max_context_tokens=256", "architecture.max_target_tokens=48",
        "training.num_train_epochs=1", "training.report_to=none",
        "training.per_device_train_batch_size=4", f"output_dir={folder}", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def model(base, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    assert command(*train(base, corpus, folder)) == 0
    return folder


def answers(model, corpus, output, *more):
    arguments = [f"model={model}", f"input={corpus}", "split=test", f"output={output}"]
    assert command("generate", *arguments, *SHORT, *more) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_records_do_not_depend_on_batches(model, corpus, tmp_path):
    together = answers(model, corpus, tmp_path / "all.jsonl")
    alone = answers(model, corpus, tmp_path / "one.jsonl", "batch_rows=1")
    few = answers(model, corpus, tmp_path / "few.jsonl", "batch_rows=3", "batch_tokens=400")
    for found in (alone, few):
        for one, two in zip(together, found, strict=True):
            probs, others = one.pop("strategy_probs"), two.pop("strategy_probs")
            assert one == two
            assert probs == pytest.approx(others, abs=4e-6)
            one["strategy_probs"] = probs
    assert len({one["response"] for one in together}) > len(together) // 2
    assert {one["strategy_from"] for one in together} == {"model"}
    assert any(one["persona"] for one in together)


def test_where_strategies_come_from(model, corpus, tmp_path):
    gold = answers(model, corpus, tmp_path / "gold.jsonl", "decoding.strategy=gold")
    assert all(one["strategy"] == one["reference_strategy"] for one in gold)
    given = answers(model, corpus, tmp_path / "given.jsonl", "decoding.strategy=Question")
    assert {(one["strategy"], one["strategy_from"]) for one in given} == {("Question", "given")}
    drawn = answers(model, corpus, tmp_path / "drawn.jsonl", "decoding.strategy=sample", "seed=7")
    again = answers(model, corpus, tmp_path / "again.jsonl", "decoding.strategy=sample", "seed=7",
                    "batch_rows=2")  # fmt: skip
    other = answers(model, corpus, tmp_path / "other.jsonl", "decoding.strategy=sample", "seed=8")
    assert [one["strategy"] for one in drawn] == [one["strategy"] for one in again]
    assert [one["strategy"] for one in drawn] != [one["strategy"] for one in other]
    assert [one["strategy_probs"] for one in drawn] == [one["strategy_probs"] for one in other]


def test_a_contrast_of_nothing_is_none(model, corpus, tmp_path):
    """Where no notes are known α changes nothing, and elsewhere it does."""
    none = answers(model, corpus, tmp_path / "0.jsonl", "decoding.alpha=0",
                   "decoding.strategy=Question")  # fmt: skip
    much = answers(model, corpus, tmp_path / "3.jsonl", "decoding.alpha=3",
                   "decoding.strategy=Question")  # fmt: skip
    changed = [a["response"] != b["response"] for a, b in zip(none, much, strict=True)]
    noted = [bool(one["persona"]) for one in none]
    assert not any(c and not n for c, n in zip(changed, noted, strict=True))
    assert sum(changed) > sum(noted) / 2


def test_perplexity_is_that_of_one_sample_at_a_time(model, corpus, tmp_path):
    whole, tokenizer = load_model_and_tokenizer(str(model))
    samples = load_samples(str(corpus), "test", SourceSettings())
    found = language_losses(whole, tokenizer, samples, batch_tokens=900)
    from pal.modeling.language import make_chat_encoder

    encoder = make_chat_encoder(tokenizer, whole.config)
    for index, sample in enumerate(samples):
        prompt = encoder.encode(sample)["input_ids"]
        target = encoder.target(sample.strategy, sample.response)[: 304 - len(prompt)]
        with torch.no_grad():
            logits = whole(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        nats = torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="none")
        assert found["token_nll"][index] == pytest.approx(nats.sum().item(), abs=1e-3)
        assert found["token_count"][index] == len(target)
        size = len(encoder.strategy_ids[STRATEGIES.index(sample.strategy)])
        assert found["strategy_nll"][index] == pytest.approx(nats[:size].sum().item(), abs=1e-3)
    responses, scores = tmp_path / "answers.jsonl", tmp_path / "scores.json"
    answers(model, corpus, responses)
    assert command(
        "eval", f"predictions={responses}", f"model={model}", f"input={corpus}", "split=test",
        "metrics.names=[perplexity]", f"output={scores}",
    ) == 0  # fmt: skip
    value = json.loads(scores.read_text())["metrics"]["ppl"]["value"]
    mean = found["token_nll"].sum() / found["token_count"].sum()
    assert value == pytest.approx(torch.tensor(mean).exp().item(), rel=1e-4)


def test_perplexity_of_responses_longer_than_the_model_reads(model):
    whole, tokenizer = load_model_and_tokenizer(str(model))
    [sample] = load_samples(str(ESCONV), "test", SourceSettings(), limit=1)
    long = type(sample)(*(
        getattr(sample, name) if name != "response" else "so it is " * 400
        for name in ("id", "dialogue_id", "turn", "context", "persona", "strategy", "response")
    ))  # fmt: skip
    found = language_losses(whole, tokenizer, [long, sample], batch_tokens=4096)
    assert 0 < found["token_count"][0] <= 304
    assert torch.isfinite(torch.tensor(found["token_nll"])).all()


def search(model, corpus, output, *more):
    return [
        "tune-alpha", f"model={model}", f"input={corpus}", "split=test", f"output={output}",
        "tune_alpha.objectives=[bleu_2, distinct_2]", "tune_alpha.trials=4", "tune_alpha.step=0.5",
        "metrics.embedder=null", *SHORT, *more,
    ]  # fmt: skip


def test_the_search_for_alpha_continues_after_an_interruption(model, corpus, tmp_path):
    plain, killed = tmp_path / "plain.json", tmp_path / "killed.json"
    assert command(*search(model, corpus, plain)) == 0
    process = start(*search(model, corpus, killed, "batch_rows=1"))
    while process.poll() is None and not any(
        path.stat().st_size > 1000 for path in tmp_path.glob("killed.json*")
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert command(*search(model, corpus, killed, "batch_rows=1")) == 0
    one, two = (json.loads(path.read_text()) for path in (plain, killed))
    for part in ("baselines", "trials", "chosen"):
        assert one[part] == two[part]


# ----------------------------------------------------------------------------- mistakes


def refused(capsys, *arguments):
    """The one line that a command ends in."""
    capsys.readouterr()
    assert command(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1, lines
    return lines[0]


LLAMA = ("architecture.from_scratch={model_type: llama, hidden_size: 16, intermediate_size: 16, "
         "num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, "
         "max_position_embeddings: %d}")  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["architecture.persona_mode=fusion"], ["persona_mode=fusion", "give prompt"]),
        (["architecture.template=natural"], ["template=natural", "chat or plain"]),
        (["architecture.lora.rank=2", "architecture.lora.targets=[q_porj]"],
         ["lora.targets=['q_porj']", "c_attn"]),
        (["architecture.lora.rank=0"], ["architecture.lora.rank"]),
        (["architecture.lora.rank=2", "architecture.frozen_layers=1"], ["leave one of them out"]),
        (["architecture.frozen_layers=2"], ["frozen_layers=2: the model has 2 layers"]),
        ([LLAMA % 512, "architecture.frozen_layers=1"], ["those of architecture.from_scratch are"]),
        (["architecture.max_context_tokens=280"], ["max_context_tokens=280", "304 positions"]),
        (["architecture.gguf_file=none.gguf"], ["gguf_file=none.gguf", "not in"]),
        (["architecture.persona_dropout=2"], ["persona_dropout"]),
        (["architecture.backbone=t5"], ["gpt2", "t5"]),
        ([LLAMA % 128], ["max_context_tokens=256", "128 positions"]),
        ([LLAMA.replace("hidden_size: 16", "hiden_size: 16", 1) % 512],
         ["unknown size 'hiden_size'", "did you mean 'hidden_size'"]),
        (["architecture.from_scratch={model_type: lama, hidden_size: 16}"], ["lama"]),
        (["architecture.from_scratch={model_type: bloom, hidden_size: 16, n_layer: 1, n_head: 2}"],
         ["bloom", "no position ids", "give one of those"]),
        (["task=persona_extractor", "architecture.from_scratch={model_type: lama}",
          f"data.train={ESCONV.parent / 'personachat' / 'train.txt'}"], ["lama"]),
    ],
)  # fmt: skip
def test_training_that_cannot_be(changes, words, base, corpus, tmp_path, capsys):
    line = refused(capsys, *train(base, corpus, tmp_path / "out", *changes))
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


def test_a_base_without_chat_template(base, corpus, tmp_path, capsys):
    """Asked for, it is refused; else turns are written plainly, and the model says so."""
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    (folder / "chat_template.jinja").unlink()
    line = refused(capsys, *train(folder, corpus, tmp_path / "a", "architecture.template=chat"))
    assert "no chat template" in line
    assert "give architecture.template=plain" in line
    assert command(*train(folder, corpus, tmp_path / "b", "data.max_train_samples=4")) == 0
    assert json.loads((tmp_path / "b" / "config.json").read_text())["chat_format"]["user"] == (
        "user: "
    )


def test_a_tokenizer_that_cannot_write_strategies(base, corpus, tmp_path, capsys):
    small_tokenizer().save_pretrained(tmp_path / "words")
    (tmp_path / "words" / "tokenizer_config.json").unlink()
    line = refused(capsys, *train(base, corpus, tmp_path / "a", f"architecture.tokenizer={base}",
                                  "architecture.template=plain",
                                  f"architecture.tokenizer={tmp_path / 'words'}"))  # fmt: skip
    assert "give" in line


@pytest.mark.parametrize(
    "key",
    ["architecture.lora.rank=2", "architecture.gguf_file=a.gguf", "architecture.frozen_layers=1"],
)
def test_settings_of_decoder_only_models_on_others(key, tmp_path, capsys):
    line = refused(capsys, "train", *TRAIN_RESPONSE, key, f"output_dir={tmp_path / 'a'}")
    assert "is for decoder-only models" in line
    assert key.split("=")[0] in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["decoding.num_beams=3", "decoding.do_sample=false"], ["num_beams=3", "give num_beams=1"]),
        (["decoding.max_new_tokens=60"], ["max_new_tokens=60", "304 positions"]),
        (["decoding.plausibility=2"], ["plausibility"]),
        (["decoding.alpha=[1, 2]"], ["alpha", "8"]),
        (["decoding.strategy=Questoin"], ["did you mean 'Question'"]),
    ],
)  # fmt: skip
def test_decoding_that_cannot_be(changes, words, model, corpus, tmp_path, capsys):
    arguments = [f"model={model}", f"input={corpus}", f"output={tmp_path / 'a'}"]
    line = refused(capsys, "generate", *arguments, *changes)
    assert all(word in line for word in words), line


def test_a_model_without_notes_has_no_contrast(base, corpus, tmp_path, capsys):
    folder = tmp_path / "joint"
    more = ["architecture.persona_mode=none", "data.max_train_samples=4"]
    assert command(*train(base, corpus, folder, *more)) == 0
    arguments = [f"model={folder}", f"input={corpus}", "split=test", f"output={tmp_path / 'a'}"]
    line = refused(capsys, "generate", *arguments, "decoding.alpha=0.5")
    assert "persona_mode is 'none'" in line
    assert "give decoding.alpha=null" in line
    assert {one["alpha"] for one in answers(folder, corpus, tmp_path / "b.jsonl")} == {0.0}


def test_plausibility_is_for_decoder_only_models(response_model, tmp_path, capsys):
    line = refused(capsys, "generate", f"model={response_model}", f"input={ESCONV}",
                   f"output={tmp_path / 'a'}", "decoding.plausibility=0.1")  # fmt: skip
    assert "decoding.plausibility is for decoder-only models" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("chat_format", ["a"]), ("chat_format", None), ("chat_format", {"head": "a"}),
        ("chat_format", {"head": 1, "user": "", "user_end": "", "assistant": "",
                         "assistant_end": ""}),
        ("alpha", 7), ("alpha", [1, 2]), ("alpha", ["a"] * 8), ("alpha", {"Question": 1}),
        ("alpha", [float("nan")] * 8), ("strategy_alpha", "x"), ("strategy_alpha", None),
        ("persona_mode", "fusion"), ("persona_mode", ["prompt"]), ("max_context_tokens", -1),
        ("max_context_tokens", 2.5), ("max_context_tokens", True), ("max_target_tokens", "4"),
        ("base_gguf_file", 5), ("pal_task", "poetry"), ("pal_task", ["response"]),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be(key, value, model, corpus, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
    line = refused(capsys, "generate", f"model={folder}", f"input={corpus}", "split=test",
                   f"output={tmp_path / 'a'}")  # fmt: skip
    assert f"model={folder}" in line
    assert "give the folder" in line


# ----------------------------------------------------------------------------- GGUF


def test_gguf_files_that_are_not_there(tmp_path, monkeypatch, base, corpus, capsys):
    lone, several = tmp_path / "lone", tmp_path / "several"
    for folder, names in ((lone, ["a.gguf"]), (several, ["a.gguf", "b.gguf"])):
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"GGUF" + bytes(100))
    line = refused(capsys, *train(several, corpus, tmp_path / "out"))
    assert "2 GGUF files" in line
    assert "architecture.gguf_file=a.gguf" in line
    line = refused(capsys, *train(lone, corpus, tmp_path / "out", "architecture.gguf_file=A.gguf"))
    assert "gguf_file=A.gguf" in line
    assert "did you mean 'a.gguf'" in line
    line = refused(capsys, *train(lone, corpus, tmp_path / "out"))  # damaged
    assert f"{lone}" in line
    monkeypatch.setitem(sys.modules, "gguf", None)
    line = refused(capsys, *train(lone, corpus, tmp_path / "out"))
    assert "needs the package gguf; pip install gguf" in line
    assert find_gguf_file(str(base), None) is None


def test_adapters_without_their_package(monkeypatch, base, corpus, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    line = refused(capsys, *train(base, corpus, tmp_path / "out", "architecture.lora.rank=2"))
    assert "needs the package peft; pip install 'pal-esc[lora]'" in line


@pytest.fixture(scope="module")
def smollm2():
    """The folder of a pretrained chat model."""
    return smollm2_folder()


@pytest.mark.real_llm
def test_the_pretrained_model_reads_english(smollm2, tmp_path):
    """Logits and strategies on a few contexts do not depend on the batch; it can be saved."""
    from pal.data.tokenizer import load_tokenizer
    from pal.decoding.language import LanguageEngine, LanguageRequest
    from pal.decoding.plan import DecodingPlan
    from pal.decoding.settings import DecodingSettings
    from pal.modeling.language import load_base
    from tests.decoding.test_language_engine import padded
    from tests.modeling.languages import encoder, samples

    name = find_gguf_file(str(smollm2), None)
    model = load_base(str(smollm2), name, "base").eval()
    side = encoder(load_tokenizer(smollm2, name))
    chosen = [side.encode(one) for one in samples(4, turns=6)]
    rows = [one["input_ids"] for one in chosen]
    with torch.inference_mode():
        alone = [model(torch.tensor([row])).logits[0, -1].softmax(-1) for row in rows]
        for where, place in (("left", [-1] * 4), ("right", [len(row) - 1 for row in rows])):
            together = model(**padded(rows, where, max(map(len, rows)))).logits
            for row, at, wanted in zip(together, place, alone, strict=True):
                torch.testing.assert_close(row[at].softmax(-1), wanted, atol=1e-5, rtol=0)
        plan = DecodingPlan(
            options=DecodingSettings(do_sample=False, min_new_tokens=0, max_new_tokens=3),
            alpha=(0.5,) * 8, strategy_alpha=0.1,
        )  # fmt: skip
        requests = [LanguageRequest(0, o["input_ids"], o["plain_input_ids"]) for o in chosen]
        answers = [
            LanguageEngine(model, plan, strategies=side.strategy_ids, end=side.end,
                           suppressed=side.special, rows=count, positions=9999)(requests)
            for count in (1, 4)
        ]  # fmt: skip
    model.save_pretrained(tmp_path)
    again = load_base(str(tmp_path), None, "base").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())
    for one, two in zip(*answers, strict=True):
        assert (one.strategy, one.tokens) == (two.strategy, two.tokens)
        assert one.strategy_probs == pytest.approx(two.strategy_probs, abs=1e-5)
