"""Decoder-only models in training: packed rows, losses, LoRA, interruptions, several processes."""

import json
import random
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig, MistralForCausalLM

import pal
from pal.core.errors import ConfigError
from pal.data.esconv import write_pesconv
from pal.modeling.language import add_adapters, freeze_layers
from pal.modeling.responder import load_model_and_tokenizer
from pal.modeling.settings import LoraSettings
from pal.training.language import (
    PackingCollator,
    dialogue_windows,
    keeps_apart,
    language_loss,
    sees_notes,
)
from tests.jobs import command, start, torchrun
from tests.modeling.languages import KINDS, chat_tokenizer, dialogues, encoder, samples, tiny
from tests.modeling.test_auto import run
from tests.training.runs import begun_of, log_without_times, record, same, steps_saved

LORA = ["architecture.lora.rank=4", "architecture.lora.dropout=0.1"]
WRITTEN = ("run.json", "training_log.json", "model.safetensors", "adapter_model.safetensors",
           "adapter_config.json", "pal_config.json")  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Dialogues with notes, of many lengths, in three splits."""
    folder = tmp_path_factory.mktemp("noted")
    draw = random.Random(3)
    rows = [{**row, "dialog": row["dialog"][: draw.randrange(3, 12)]} for row in dialogues()]
    for name, part in (("train", rows[:20]), ("validation", rows[20:31]), ("test", rows[31:40])):
        write_pesconv(folder / f"{name}.jsonl", part)
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders as models of these families are published."""
    folder = tmp_path_factory.mktemp("bases")
    for kind in KINDS:
        model = tiny(kind, initializer_range=0.08)
        model.save_pretrained(folder / kind)
        chat_tokenizer().save_pretrained(folder / kind)
    return folder


def settings(corpus, base, *more):
    return [
        f"data.train={corpus}", "data.split=published", "data.max_train_samples=15",
        "data.max_validation_samples=5", "architecture.max_context_tokens=256",
        "architecture.max_target_tokens=48", f"architecture.base={base}",
        "training.per_device_train_batch_size=4", "training.per_device_eval_batch_size=3",
        "training.num_train_epochs=2", "training.learning_rate=0.01", "training.report_to=none",
        "training.save_total_limit=null", "training.logging_steps=2", *more,
    ]  # fmt: skip


def interrupted(trained, folder, step):
    """Copy a trained folder as a kill right after one of its checkpoints would have left it."""
    shutil.copytree(trained, folder)
    (folder / "started.json").write_text(json.dumps(begun_of(trained)))
    for name in WRITTEN:
        (folder / name).unlink(missing_ok=True)
    for later in steps_saved(folder):
        if later > step:
            shutil.rmtree(folder / f"checkpoint-{later}")
    return folder


def tensors(folder):
    [path] = [*folder.glob("model.safetensors"), *folder.glob("adapter_model.safetensors")]
    return load_file(path)


# ----------------------------------------------------------------------------- losses


def sequences(count=9):
    draw = random.Random(5)
    rows = [{**row, "dialog": row["dialog"][: draw.randrange(3, 14)]} for row in dialogues()]
    found = dialogue_windows(rows[:count], encoder(context=10**6), seed=1, dropout=0.5)
    draw.shuffle(found)
    return found


def naive_losses(model, sequence):
    """Nats of each target, by one pass over one sequence."""
    ids, labels = (torch.tensor([sequence[name]]) for name in ("input_ids", "labels"))
    logits = model(ids).logits[:, :-1].transpose(1, 2)
    return F.cross_entropy(logits, labels[:, 1:], reduction="sum", ignore_index=-100).item()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_packed_rows_have_the_losses_of_sequences_alone(kind):
    model, found = tiny(kind), sequences()
    assert keeps_apart(model)
    assert not model.training
    targets = sum(label != -100 for one in found for label in one["labels"])
    wanted = [naive_losses(model, one) for one in found]
    for packs in (True, False):
        batch = PackingCollator(pad_token_id=0, packs=packs)(found)
        assert (len(batch["labels"]) < len(found)) == packs
        assert int((batch["labels"] != -100).sum()) == targets
        loss, summary = language_loss(model, batch)
        assert loss.item() == pytest.approx(sum(wanted) / targets, abs=1e-5)
        assert summary[:, 1].sum() == targets
        if not packs:  # a row a sequence, in their order: what validation of several needs
            torch.testing.assert_close(summary[:, 0], torch.tensor(wanted), atol=1e-3, rtol=1e-5)
    assert language_loss(model, batch, 10 * targets)[0].item() == pytest.approx(
        sum(wanted) / targets / 10, abs=1e-5
    )


class Blind(MistralForCausalLM):
    """A model that does not look at position ids."""

    def forward(self, input_ids=None, use_cache=None, **_):
        return super().forward(input_ids=input_ids, use_cache=use_cache)


class WithoutPositions(MistralForCausalLM):
    """A model that has no position ids."""

    def forward(self, input_ids=None, use_cache=None):
        return super().forward(input_ids=input_ids, use_cache=use_cache)


@pytest.mark.parametrize("kind", [Blind, WithoutPositions])
def test_models_that_would_see_other_dialogues_are_not_packed(kind):
    torch.manual_seed(0)
    model = kind(MistralConfig(vocab_size=50, hidden_size=16, intermediate_size=16,
                               num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                               initializer_range=0.5)).train()  # fmt: skip
    assert not keeps_apart(model)
    assert model.training


def test_half_of_the_dialogues_go_without_notes():
    """Which ones is a function of seed and id."""
    names = [f"dialogue {number}" for number in range(2000)]
    seen = [[sees_notes(name, seed, 0.5) for name in names] for seed in (1, 1, 2)]
    assert seen[0] == seen[1] != seen[2]
    assert 900 < sum(seen[0]) < 1100
    assert all(sees_notes(name, 1, 0.0) for name in names)
    assert not any(sees_notes(name, 1, 1.0) for name in names)
    side = encoder(context=10**6)
    found = dialogue_windows(dialogues(), side, seed=3, dropout=0.5)
    for window, row in zip(found, dialogues(), strict=True):
        kept = sees_notes(row["id"], 3, 0.5) and bool(row["dialog"][-1]["persona"])
        assert ("[persona" in chat_tokenizer().decode(window["input_ids"])) == kept


# ----------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def full(corpus, bases, tmp_path_factory):
    """A run of all weights, saved inside of epochs."""
    folder = tmp_path_factory.mktemp("full") / "model"
    more = ["training.save_strategy=steps", "training.save_steps=3",
            "training.load_best_model_at_end=false"]  # fmt: skip
    arguments = settings(corpus, bases / "llama", *more)
    assert command("train", *arguments, f"output_dir={folder}") == 0
    return arguments, folder


@pytest.fixture(scope="module")
def lora(corpus, bases, tmp_path_factory):
    """A run of adapters; the best of its checkpoints is kept, and it is the first."""
    folder = tmp_path_factory.mktemp("lora") / "model"
    more = [*LORA, "training.load_best_model_at_end=true", "training.save_strategy=epoch",
            "training.eval_strategy=epoch", "training.num_train_epochs=3",
            "training.learning_rate=0.02", "training.warmup_steps=0"]  # fmt: skip
    arguments = settings(corpus, bases / "qwen2", *more)
    assert command("train", *arguments, f"output_dir={folder}") == 0
    return arguments, folder


@pytest.mark.parametrize("trained", ["full", "lora"])
def test_a_run_continues_from_any_checkpoint_as_if_never_interrupted(trained, request, tmp_path):
    arguments, plain = request.getfixturevalue(trained)
    assert len(steps_saved(plain)) >= 2
    for step in steps_saved(plain):
        again = interrupted(plain, tmp_path / f"from {step}", step)
        assert command("train", *arguments, f"output_dir={again}") == 0
        assert same(tensors(plain), tensors(again)), step
        assert log_without_times(plain) == log_without_times(again), step


def test_an_interrupted_run_of_adapters_continues_to_the_same_bytes(corpus, bases, tmp_path):
    """Ctrl-C in the middle of an epoch."""
    arguments = settings(
        corpus, bases / "llama", *LORA, "training.save_strategy=steps", "training.save_steps=1",
        "training.num_train_epochs=4", "training.load_best_model_at_end=false",
    )  # fmt: skip
    plain, folder = tmp_path / "plain", tmp_path / "stopped"
    process = start("train", *arguments, f"output_dir={folder}")
    while len(list(folder.glob("checkpoint-*/trainer_state.json"))) < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert not (folder / "run.json").exists()
    assert command("train", *arguments, f"output_dir={folder}") == 0
    assert command("train", *arguments, f"output_dir={plain}") == 0
    one, two = ((f / "adapter_model.safetensors").read_bytes() for f in (plain, folder))
    assert one == two


def test_the_best_adapters_are_kept(lora):
    _, folder = lora
    best = record(folder)["best_checkpoint"]
    losses = {e["step"]: e["eval_nll"] for e in log_without_times(folder) if "eval_nll" in e}
    assert best == f"checkpoint-{min(losses, key=losses.__getitem__)}"
    assert same(tensors(folder), tensors(folder / best))
    assert any(not same(tensors(folder), tensors(p)) for p in folder.glob("checkpoint-*"))
    assert record(folder)["validation_nll"] == min(losses.values())


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_alone_are_trained(kind):
    model = tiny(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = add_adapters(model, "base", LoraSettings(rank=2))
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    batch = PackingCollator(pad_token_id=0, packs=True)(sequences(3))
    optimizer = torch.optim.SGD(adapted.parameters(), lr=1.0)
    for _ in range(2):
        language_loss(adapted, batch)[0].backward()
        optimizer.step()
    merged = adapted.get_base_model().state_dict()
    for name, value in before.items():
        found = [v for n, v in merged.items() if n.replace(".base_layer", "") == name]
        assert torch.equal(found[0], value), name
    with pytest.raises(ConfigError, match=r"targets=\['nothing'\]: no such modules in base \(it"):
        add_adapters(tiny(kind), "base", LoraSettings(rank=2, targets=["nothing"]))


def test_adapters_name_their_base_so_that_it_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    for base, named in (("base", str(tmp_path / "base")), ("owner/base", "owner/base")):
        adapted = add_adapters(tiny("llama"), base, LoraSettings(rank=2))
        assert adapted.peft_config["default"].base_model_name_or_path == named


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_layers_keep_their_weights_and_have_no_backward_pass(kind):
    model = tiny(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    freeze_layers(model, 1)
    layers = next(p for p in model.base_model.children() if isinstance(p, torch.nn.ModuleList))
    reached = []
    for layer in layers:
        layer.register_forward_hook(lambda _layer, _inputs, out: reached.append(out.requires_grad))
    batch = PackingCollator(pad_token_id=0, packs=True)(sequences(3))
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1.0)
    language_loss(model, batch)[0].backward()
    optimizer.step()
    trained = {id(v) for layer in layers[1:] for v in layer.parameters()}
    trained |= {id(v) for n, v in model.named_parameters() if n.split(".")[-2] in ("norm", "ln_f")}
    for name, value in model.named_parameters():
        assert torch.equal(before[name], value.detach()) == (id(value) not in trained), name
    assert reached == [False, True]
    opt = AutoModelForCausalLM.from_config(AutoConfig.for_model(
        "opt", vocab_size=20, hidden_size=8, word_embed_proj_dim=8, ffn_dim=8, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16,
    ))  # fmt: skip
    freeze_layers(opt, 1)  # its layers lie deeper
    free = {name for name, value in opt.named_parameters() if value.requires_grad}
    assert free == {n for n in opt.state_dict() if "layers.1." in n or "decoder.final" in n}
    with pytest.raises(ConfigError, match="has 2 layers, and at least one has to be trained"):
        freeze_layers(tiny(kind), 2)


def test_the_base_of_adapters_stays_as_it_is(lora, bases):
    _, folder = lora
    assert set(load_file(bases / "qwen2" / "model.safetensors")) == {
        name for name in tiny("qwen2").state_dict() if name != "lm_head.weight"
    }
    assert all("lora_" in name for name in tensors(folder))
    assert same(load_file(bases / "qwen2" / "model.safetensors"), {
        name: value for name, value in tiny("qwen2", initializer_range=0.08).state_dict().items()
        if name != "lm_head.weight"
    })  # fmt: skip


def test_adapters_are_merged_and_exported(lora, tmp_path):
    """PAL, peft and an exported folder, in a process that knows nothing of PAL, say the same."""
    from peft import PeftModel

    _, folder = lora
    model, tokenizer = load_model_and_tokenizer(str(folder))
    ids = torch.tensor([encoder().context(dialogues()[0]["dialog"][:5], ())])
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"].endswith("qwen2")
    with torch.no_grad():
        wanted = model(ids).logits
        base = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"]).eval()
        assert not torch.allclose(base(ids).logits, wanted, atol=1e-2)
        theirs = PeftModel.from_pretrained(base, folder).eval()(ids).logits
    torch.testing.assert_close(theirs, wanted, atol=1e-5, rtol=1e-5)
    assert command("export", f"model={folder}", f"output={tmp_path / 'merged'}") == 0
    torch.save((ids, wanted), tmp_path / "wanted.pt")
    code = (
        "import torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "ids, wanted = torch.load(folder + '/wanted.pt')\n"
        "model = AutoModelForCausalLM.from_pretrained(folder + '/merged').eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder + '/merged')\n"
        "print(float((model(ids).logits - wanted).abs().max()) <= 1e-5, len(tokenizer), "
        "'pal' in sys.modules)"
    )
    assert run(code, tmp_path) == f"True {len(tokenizer)} False"
    again = pal.load(str(tmp_path / "merged"))
    torch.testing.assert_close(again.model(ids).logits, wanted, atol=1e-5, rtol=1e-5)


def test_export_takes_nothing_away(full, tmp_path, capsys):
    _, folder = full
    other = tmp_path / "letters"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    assert command("export", f"model={folder}", f"output={other}") == 2
    assert command("export", f"model={folder}", f"output={other}", "overwrite=true") == 2
    assert (other / "letter.txt").read_text() == "dear"
    around = tmp_path / "around"
    shutil.copytree(folder, around)
    inside = around / f"checkpoint-{steps_saved(folder)[0]}"
    assert command("export", f"model={inside}", f"output={around}", "overwrite=true") == 2
    assert (inside / "model.safetensors").exists()
    out = tmp_path / "out"
    for more in ([], ["overwrite=true", "dtype=bfloat16"]):
        assert command("export", f"model={folder}", f"output={out}", *more) == 0
    assert all(value.dtype == torch.bfloat16 for value in tensors(out).values())
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 3
    assert all("choose another output" in line for line in lines)


def test_pal_load_reads_full_weights_and_adapters(full, lora):
    for _, folder in (full, lora):
        responder = pal.load(str(folder))
        assert not responder.model.training
        chosen = samples(3)
        records = responder.answer(chosen, responder.encode(chosen), rows=2, tokens=4096)
        assert [one["id"] for one in records] == [one.id for one in chosen]


def test_rounded_products_and_checkpointing(corpus, bases, tmp_path):
    """In bf16, with gradient checkpointing, of a model without position embeddings of its own."""
    folder = tmp_path / "model"
    more = ["bf16=true", "num_train_epochs=1", "gradient_checkpointing=true"]
    arguments = settings(corpus, bases / "gpt2", *(f"training.{option}" for option in more))
    assert command("train", *arguments, f"output_dir={folder}") == 0
    assert all(value.dtype == torch.float32 for value in tensors(folder).values())
    assert json.loads((folder / "config.json").read_text())["use_cache"] is True
    assert record(folder)["bf16"] is True


def plain_steps(corpus, base, rows, *more):
    """Steps of one size whose losses and weights can be compared."""
    return settings(
        corpus, base, "data.max_train_samples=20", "data.max_validation_samples=null",
        "training.optim=sgd", "training.max_grad_norm=0", "training.learning_rate=0.1",
        "training.lr_scheduler_type=constant", "training.warmup_steps=0",
        "training.train_sampling_strategy=sequential", "training.logging_steps=1",
        "training.num_train_epochs=1", f"training.per_device_train_batch_size={rows}",
        "training.load_best_model_at_end=false", "training.save_strategy=no", *more,
    )  # fmt: skip


@pytest.mark.parametrize(
    "processes", [1, pytest.param(2, marks=pytest.mark.distributed)], ids="{} processes".format
)
def test_steps_in_parts_equal_one_large_step(corpus, bases, tmp_path, processes):
    """Losses, weights and validation are the same however the rows of a step are shared out.

    In every run by accumulation; two processes train the model of one in ``test_distributed.py``.
    """
    one, parts, base = tmp_path / "one", tmp_path / "parts", bases / "llama"
    assert command("train", *plain_steps(corpus, base, 4), f"output_dir={one}") == 0
    if processes == 2:
        code, output = torchrun(2, "train", *plain_steps(corpus, base, 2), f"output_dir={parts}")
        assert code == 0, output
    else:
        more = ["training.gradient_accumulation_steps=2"]
        assert command("train", *plain_steps(corpus, base, 2, *more), f"output_dir={parts}") == 0
    assert record(parts)["processes"] == processes
    losses = [
        [(e.get("loss"), e.get("eval_nll")) for e in log_without_times(folder)]
        for folder in (one, parts)
    ]  # fmt: skip
    moved = load_file(base / "model.safetensors")
    for ours, theirs in zip(*losses, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-4)
    for name, value in tensors(one).items():
        torch.testing.assert_close(tensors(parts)[name], value, atol=1e-6, rtol=1e-5)
    assert not same(moved, tensors(one))


def test_one_process_of_several_gpus_is_refused(corpus, bases, tmp_path, capsys, monkeypatch):
    """What torch would copy to each GPU there would see targets of the others."""
    monkeypatch.setattr("transformers.Seq2SeqTrainingArguments.n_gpu", 2)
    assert command("train", *settings(corpus, bases / "llama"), f"output_dir={tmp_path / 'a'}") == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "torchrun --nproc_per_node 2 train.py" in line
    assert "CUDA_VISIBLE_DEVICES=0" in line


# ----------------------------------------------------------------------------- damage


def damage(folder, how):
    path = folder / "adapter_model.safetensors"
    if how == "cut off":
        path.write_bytes(path.read_bytes()[:2000])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "no safetensors":
        path.write_bytes(b"{}" * 3000)
    elif how == "weights missing":
        found = load_file(path)
        found.pop(sorted(found)[-1])
        save_file(found, path)
    elif how == "other names":
        save_file({name.replace("layers.1", "layers.7"): v for name, v in load_file(path).items()},
                  path)  # fmt: skip
    elif how == "other shapes":
        save_file({name: torch.cat([v, v]) for name, v in load_file(path).items()}, path)
    elif how == "not finite":
        save_file({name: v * torch.nan for name, v in load_file(path).items()}, path)
    elif how == "pickled":
        torch.save(load_file(path), folder / "adapter_model.bin")
        path.unlink()
    else:
        config = folder / "adapter_config.json"
        found = json.loads(config.read_text())
        if how == "base is gone":
            found["base_model_name_or_path"] = str(folder / "nowhere")
        elif how == "no base":
            del found["base_model_name_or_path"]
        elif how == "another kind":
            found["peft_type"] = "PROMPT_TUNING"
        elif how == "another rank":
            found["r"] = 2
        elif how == "alpha is text":
            found["lora_alpha"] = "much"
        config.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut off", "is damaged"), ("empty", "is empty"), ("no safetensors", ""),
        ("weights missing", "missing"), ("other names", "missing"), ("other shapes", "cannot be"),
        ("not finite", "not finite"), ("pickled", "adapter_model.safetensors is missing"),
        ("base is gone", "the base of its adapters"), ("no base", "names no base"),
        ("another kind", ""), ("another rank", ""), ("alpha is text", ""),
    ],
)  # fmt: skip
def test_damaged_adapters_are_one_line(how, words, lora, corpus, tmp_path, capsys):
    folder = tmp_path / "damaged"
    shutil.copytree(lora[1], folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    damage(folder, how)
    capsys.readouterr()
    out = tmp_path / "out"
    assert command("export", f"model={folder}", f"output={out}") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words in line
    assert "model=" in line
    assert not out.exists()
