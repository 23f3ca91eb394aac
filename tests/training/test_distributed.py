"""The number of processes decides no result: losses, updates, continued runs, restarted workers.

It is long because all of it is compared with the same runs of one process.
"""

import json
import os
import random
import re
import shlex
import socket
import subprocess
import sys

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from safetensors.torch import load_file

from pal.cli import parse_arguments
from pal.commands import load_settings
from pal.core.errors import ConfigError
from pal.core.job import output_lock
from pal.data.esconv import write_pesconv
from pal.training.folder import is_complete
from pal.training.numbers import launcher_choices, refuse_unusable_launcher
from pal.training.sharing import (
    FILLER,
    FilledSamples,
    SharedBatches,
    accumulated_batches,
    draw_seed,
)
from tests.jobs import ROOT, TINY_RESPONSE, command, environment
from tests.modeling.languages import chat_tokenizer, dialogues, tiny
from tests.training.runs import interrupted_copy, record, weights

# ----------------------------------------------------------------------------- sharing out


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("samples", "rows", "update"), [(19, 2, 8), (16, 2, 8), (7, 3, 5), (4, 4, 4)]
)
def test_processes_together_compute_every_sample_once_in_the_same_updates(
    samples, rows, update, processes
):
    order = list(range(100, 100 + samples))
    shares = [
        list(SharedBatches(order, rows=rows, update=update, processes=processes, process=process))
        for process in range(processes)
    ]
    sizes = {len(share) for share in shares}
    loader = SharedBatches(order, rows=rows, update=update, processes=processes, process=0)
    assert sizes == {len(loader)}  # nobody waits for a batch that never comes
    turns = list(zip(*shares, strict=True))
    accumulated = accumulated_batches(update, {"per_device_train_batch_size": rows}, processes)
    steps = accumulated["gradient_accumulation_steps"]
    for number, start in enumerate(range(0, samples, update)):
        ours = turns[number * steps : (number + 1) * steps]
        found = [index for turn in ours for batch in turn for index in batch if index != FILLER]
        assert found == order[start : start + update]
        alone = SharedBatches(order[start : start + update], rows=rows, update=update)
        batches = [batch for turn in ours for batch in turn if FILLER not in batch]
        assert batches == list(alone)  # dropout and packing see the same batches


def test_rows_that_keep_processes_in_step_have_no_targets():
    class Samples(list):
        def __getitem__(self, key):
            return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

        def __getitems__(self, indices):
            return [self[index] for index in indices]

    rows = Samples(
        {"input_ids": [7] * size, "labels": [1] * size, "length": size} for size in (4, 2, 3)
    )
    filled = FilledSamples(rows)
    assert len(filled) == 3
    assert filled.__getitems__([2, 0]) == [rows[2], rows[0]]
    assert filled.__getitems__([FILLER] * 2) == [{**rows[1], "labels": [-100, -100]}] * 2


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"gradient_accumulation_steps": 2}, "leave one of them out"),
        ({"per_device_train_batch_size": 9}, "more than global_batch_size=8"),
    ],
)
def test_a_batch_size_that_cannot_be_is_one_line(training, message, tmp_path, capsys):
    with pytest.raises(ConfigError, match=message):
        accumulated_batches(8, training, 1)
    assert accumulated_batches(None, training, 1) == training
    options = [f"training.{key}={value}" for key, value in training.items()]
    arguments = ["--config", "quickstart", "data.train=bundled:esconv", "global_batch_size=8"]
    assert command("train", *arguments, *options, f"output_dir={tmp_path / 'm'}") == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line
    assert not (tmp_path / "m").exists()


def test_draws_differ_by_seed_update_and_batch():
    found = {
        draw_seed(*which) for which in [(1, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2, 4), (12, 3, 0)]
    }
    assert len(found) == 5
    assert draw_seed(1, 2, 3) == draw_seed(1, 2, 3)


# ----------------------------------------------------------------------------- launchers


def test_deepspeed_that_is_not_installed_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("pal.training.numbers.find_spec", lambda name: None)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    arguments = ["--config", "quickstart", "data.train=bundled:esconv"]
    assert command("train", *arguments, f"output_dir={tmp_path / 'm'}") == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "`pip install deepspeed`" in line
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("kind", ["TP", "CP", "SP"])
def test_processes_that_share_samples_are_refused(monkeypatch, kind):
    monkeypatch.setenv(f"PARALLELISM_CONFIG_{kind}_SIZE", "1")
    refuse_unusable_launcher(on_cpu=False)
    monkeypatch.setenv(f"PARALLELISM_CONFIG_{kind}_SIZE", "2")
    with pytest.raises(ConfigError, match=f"{kind}_SIZE=2"):
        refuse_unusable_launcher(on_cpu=False)


def test_who_reads_the_weights_is_no_part_of_a_result(monkeypatch):
    before = launcher_choices()
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    assert launcher_choices() == before


def test_draws_of_other_processes_are_not_needed_where_batches_decide(tmp_path):
    (tmp_path / "trainer_state.json").write_text("{}")
    (tmp_path / "optimizer.pt").write_bytes(b"")
    assert is_complete(tmp_path, None)
    assert not is_complete(tmp_path, 2)
    for name in ("rng_state_0.pth", "rng_state_1.pth"):
        torch.save({"cpu": torch.zeros(9)}, tmp_path / name)
    assert is_complete(tmp_path, 2)
    whole = (tmp_path / "rng_state_1.pth").read_bytes()
    (tmp_path / "rng_state_1.pth").write_bytes(whole[: len(whole) // 2])  # killed while it wrote
    assert not is_complete(tmp_path, 2)


# ----------------------------------------------------------------------------- runs

# Dropout draws. 17 samples are updates of 8, 8 and 1, the last of them a batch for one process and
# rows without targets for the others.
STEPS = [
    "data.split=published", "data.max_train_samples=17", "data.max_validation_samples=5",
    "training.per_device_train_batch_size=2", "training.per_device_eval_batch_size=3",
    "training.num_train_epochs=2", "training.learning_rate=1e-3", "training.warmup_steps=0",
    "training.logging_steps=1", "training.report_to=none", "training.save_total_limit=null",
    "training.save_strategy=steps", "training.save_steps=2", "training.eval_strategy=steps",
    "training.eval_steps=2", "training.load_best_model_at_end=false", "global_batch_size=8",
]  # fmt: skip
KINDS = ["decoder-only", "pal", "misc"]
FSDP = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true", "FSDP_ACTIVATION_CHECKPOINTING": "false",
}  # fmt: skip


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """What ``pal train`` is told of three kinds of models, by name."""
    folder = tmp_path_factory.mktemp("distributed")
    draw = random.Random(3)
    rows = [{**row, "dialog": row["dialog"][: draw.randrange(3, 12)]} for row in dialogues()]
    (folder / "noted").mkdir()
    for name, part in (("train", rows[:20]), ("validation", rows[20:31]), ("test", rows[31:40])):
        write_pesconv(folder / "noted" / f"{name}.jsonl", part)
    for name, dropout in (("llama", 0.1), ("undropped", 0.0)):
        model = tiny("llama", initializer_range=0.08, attention_dropout=dropout)
        model.save_pretrained(folder / name)
        chat_tokenizer().save_pretrained(folder / name)
    data = f"data.train={folder / 'noted'}"
    response = [data, *TINY_RESPONSE, "architecture.from_scratch.dropout=0.1", *STEPS]
    return {
        "decoder-only": [
            data, f"architecture.base={folder / 'llama'}", "architecture.max_context_tokens=256",
            "architecture.max_target_tokens=48", *STEPS,
        ],
        "pal": response,
        "misc": [*response, "architecture.backbone=misc", "architecture.misc_mode=paper"],
        "undropped": folder / "undropped",
    }  # fmt: skip


def workers(processes, *commands, restarts=0, **extra):
    """Run commands of ``pal`` on CPU processes and return their output; start no more than one."""
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node",
            str(processes), "--max-restarts", str(restarts), "-m", "tests.training.workers",
            json.dumps([[str(word) for word in one] for one in commands]),
        ],
        env=environment(ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1", **extra),
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def losses(folder):
    log = json.loads((folder / "training_log.json").read_text())
    return [
        (entry["step"], entry.get("loss", entry.get("eval_nll")))
        for entry in log
        if "loss" in entry or "eval_nll" in entry
    ]


# A bias of keys moves all scores of a query alike, which softmax undoes: its gradient is zero but
# for rounding, and Adam makes whole steps of that.
ROUNDING = ".k_proj.bias"


def assert_equal(one, other):
    """Both runs have the same losses, of training and validation, and the same weights."""
    ours, theirs = losses(one), losses(other)
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    assert [loss for _, loss in ours] == pytest.approx([loss for _, loss in theirs], abs=1e-5)
    mine, others = weights(one), weights(other)
    assert mine.keys() == others.keys()
    for name, value in mine.items():
        if not name.endswith(ROUNDING):
            torch.testing.assert_close(others[name], value, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def alone(kinds, tmp_path_factory):
    """Each kind trained by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name in KINDS:
        assert command("train", *kinds[name], f"output_dir={folder / name}") == 0
        assert record(folder / name)["steps"] == 6
    return folder


@pytest.fixture(scope="module")
def pairs(kinds, tmp_path_factory):
    """Each kind trained by two processes that have a whole model each, and one shared out."""
    folder = tmp_path_factory.mktemp("pairs")
    shared = {**FSDP, "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}
    fsdp = [*(f"{name}={value}" for name, value in shared.items()), "train"]
    fsdp += [*kinds["decoder-only"], f"output_dir={folder / 'fsdp2'}"]
    workers(2, *(["train", *kinds[name], f"output_dir={folder / name}"] for name in KINDS), fsdp)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_the_model_of_one(alone, pairs, kind):
    assert record(pairs / kind)["processes"] == 2
    assert_equal(alone / kind, pairs / kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_device_takes_at_once_decides_nothing(kinds, kind, tmp_path):
    """Losses are means over the targets of an update, and MISC's one over its rows besides."""
    changes = ["architecture.from_scratch.dropout=0"] if kind != "decoder-only" else [
        f"architecture.base={kinds['undropped']}"]  # fmt: skip
    for rows in (8, 2):
        more = [*changes, f"training.per_device_train_batch_size={rows}"]
        assert command("train", *kinds[kind], *more, f"output_dir={tmp_path / str(rows)}") == 0
    assert_equal(tmp_path / "8", tmp_path / "2")


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_continues_what_two_began(alone, pairs, kinds, kind, tmp_path):
    again = interrupted_copy(pairs / kind, tmp_path / "again", 2)
    assert command("train", *kinds[kind], f"output_dir={again}") == 0
    assert record(again)["processes"] == 1
    assert_equal(alone / kind, again)
    assert command("train", *kinds[kind], f"output_dir={pairs / kind}") == 0  # finished is finished


def test_fsdp2_trains_the_model_of_one_process(alone, pairs):
    folder = pairs / "fsdp2"
    assert "ACCELERATE_USE_FSDP" in record(folder)["launcher"]
    assert_equal(alone / "decoder-only", folder)
    assert (folder / "checkpoint-2" / "optimizer_0" / ".metadata").exists()
    # a checkpoint of whatever form is a model that commands take
    assert weights(folder / "checkpoint-6").keys() == weights(folder).keys()


# ----------------------------------------------------------------------------- in full

distributed = pytest.mark.distributed
FORMS = ["FULL_STATE_DICT", "SHARDED_STATE_DICT"]


def continued(before, folder, step, processes, arguments, **extra):
    """Continue a finished run from one of its checkpoints, as if it had been killed there."""
    again = interrupted_copy(before, folder, step)
    output = workers(processes, ["train", *arguments, f"output_dir={again}"], **extra)
    assert f"continuing from {again / f'checkpoint-{step}'}" in output
    assert record(again)["processes"] == processes
    return again


@distributed
@pytest.mark.parametrize("kind", KINDS)
def test_two_continue_what_one_continued_of_two(alone, pairs, kinds, kind, tmp_path):
    one = continued(pairs / kind, tmp_path / "one", 2, 1, kinds[kind])
    two = continued(one, tmp_path / "two", 4, 2, kinds[kind])
    three = continued(two, tmp_path / "three", 4, 3, kinds[kind])
    for folder in (one, two, three):
        assert_equal(alone / kind, folder)


@distributed
@pytest.mark.parametrize("form", FORMS)
def test_fsdp2_continues_on_another_number_of_processes(alone, kinds, form, tmp_path):
    extra, arguments = {**FSDP, "FSDP_STATE_DICT_TYPE": form}, kinds["decoder-only"]
    plain = tmp_path / "plain"
    workers(2, ["train", *arguments, f"output_dir={plain}"], **extra)
    one = continued(plain, tmp_path / "one", 2, 1, arguments, **extra)
    two = continued(one, tmp_path / "two", 4, 2, arguments, **extra)
    ended = continued(two, tmp_path / "ended", 6, 2, arguments, **extra)
    for folder in (plain, one, two, ended):
        assert_equal(alone / "decoder-only", folder)


@distributed
def test_the_best_model_of_fsdp2_and_its_adapters(kinds, tmp_path):
    """What is loaded at the end is gathered from all processes; adapters are saved as such."""
    form = {**FSDP, "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}
    base, best = kinds["decoder-only"], "training.load_best_model_at_end=true"
    lora = [*base, "architecture.lora.rank=4", "architecture.lora.dropout=0"]
    first = "training.greater_is_better=true"  # the loss falls, so this is not the last one
    runs = {"whole": [*base, best, first], "lora": [*lora, best]}
    workers(2, *(["train", *runs[name], f"output_dir={tmp_path / name}"] for name in runs), **form)
    found = tmp_path / "whole"
    chosen = found / record(found)["best_checkpoint"]
    assert chosen.name != "checkpoint-6"
    for name, value in weights(chosen).items():
        assert torch.equal(weights(found)[name], value)
    one = tmp_path / "one"
    assert command("train", *runs["lora"], f"output_dir={one}") == 0
    ours, theirs = (load_file(f / "adapter_model.safetensors") for f in (one, tmp_path / "lora"))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=1e-5, rtol=0)


@distributed
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_workers_that_start_again_train_the_same_model(alone, kinds, rank, way, tmp_path):
    """Rank 0 alone holds the lock and writes: killed or not, the next one does."""
    folder = tmp_path / "model"
    arguments = ["train", *kinds["decoder-only"], f"output_dir={folder}"]
    extra = {**FSDP, "FSDP_STATE_DICT_TYPE": FORMS[1]} if way == "fsdp2" else {}
    extra["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # else addresses of the dead are read
    output = workers(2, arguments, restarts=1, KILLED=f"{rank}:3", **extra)
    assert f"continuing from {folder / 'checkpoint-2'}" in output
    assert_equal(alone / "decoder-only", folder)
    assert not [
        path.name for path in (*tmp_path.iterdir(), *folder.iterdir()) if path.name[0] == "."
    ]


@distributed
def test_a_second_launcher_is_refused_an_output(kinds, tmp_path):
    folder = tmp_path / "model"
    with output_lock(folder), pytest.raises(AssertionError, match="another process is writing it"):
        workers(2, ["train", *kinds["decoder-only"], f"output_dir={folder}"])
    assert not folder.exists()


# ----------------------------------------------------------------------------- shipped files

LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch"]
ACCELERATE = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
SLURM = sorted((ROOT / "examples" / "slurm").glob("*.sh"))


def shown_commands(text):
    """Yield the commands of ``pal`` in a file's comments and lines, whatever launches them."""
    for line in text.replace("\\\n", " ").splitlines():
        found = re.search(r"(?:-m pal|srun pal|#\s+pal) ([a-z].*)", line.rstrip("'"))
        if found:
            yield shlex.split(found[1])


@pytest.mark.parametrize("path", [*ACCELERATE, *SLURM], ids=lambda path: path.name)
def test_a_shipped_file_shows_commands_that_are_taken(path):
    shown = list(shown_commands(path.read_text()))
    assert shown
    for words in shown:
        given = parse_arguments(words)
        load_settings(given.command, given.config, given.overrides)


@pytest.mark.parametrize("path", SLURM, ids=lambda path: path.name)
def test_a_script_for_slurm_is_one_of_bash(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert os.access(path, os.X_OK)
    for name in re.findall(r"configs/accelerate/\w+\.yaml", path.read_text()):
        assert (ROOT / name).exists()


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.name)
def test_accelerate_takes_every_key_of_a_shipped_file(path):
    """Its own classes refuse unknown keys of the file; those of a section are its own options."""
    defaults = load_config_from_file(str(path))
    known = set(vars(launch_command_parser().parse_args(["script.py"])))
    sections = {"fsdp_config": "fsdp_", "deepspeed_config": ""}
    for name, prefix in sections.items():
        for key in getattr(defaults, name):
            assert key in known or prefix + key in known, key
    asked = ["--config_file", str(path), "--num_processes", "4", "--main_process_ip", "10.0.0.1"]
    arguments = launch_command_parser().parse_args([*asked, "-m", "pal", "train"])
    arguments, _, _ = _validate_launch_command(arguments)
    ways = ("multi_gpu", "use_fsdp", "use_deepspeed")
    assert sum(bool(getattr(arguments, way)) for way in ways) == 1
    assert arguments.mixed_precision == "no"  # the number format is a setting of pal's


def launched(config, arguments, *options, module="pal"):
    """Start ``accelerate launch`` with a shipped file on CPU processes."""
    return subprocess.Popen(
        [*LAUNCHER, "--config_file", str(ROOT / "configs" / "accelerate" / config), *options,
         "--num_processes", "2", "-m", module, *arguments],
        env=environment(ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1"), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@distributed
def test_the_file_for_one_machine_launches(alone, kinds, tmp_path):
    folder = tmp_path / "model"
    process = launched("ddp.yaml", ["train", *kinds["pal"], f"output_dir={folder}"])
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert record(folder)["processes"] == 2
    assert_equal(alone / "pal", folder)


@distributed
def test_the_file_for_fsdp2_launches(alone, kinds, tmp_path):
    folder = tmp_path / "model"
    commands = json.dumps([["train", *map(str, kinds["decoder-only"]), f"output_dir={folder}"]])
    process = launched("fsdp2.yaml", [commands], module="tests.training.workers")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "ACCELERATE_USE_FSDP" in record(folder)["launcher"]
    assert_equal(alone / "decoder-only", folder)


@distributed
def test_the_file_for_many_machines_launches(alone, kinds, tmp_path):
    """Two launchers that meet at an address, as two machines do."""
    folder = tmp_path / "model"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = ["train", *kinds["decoder-only"], f"output_dir={folder}"]
    options = ["--num_machines", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    processes = [
        launched("multi_node.yaml", arguments, *options, "--machine_rank", rank) for rank in "10"
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert record(folder)["processes"] == 2
    assert_equal(alone / "decoder-only", folder)


def test_fsdp2_on_cpus_is_refused_by_the_product(kinds, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    folder = tmp_path / "model"
    assert command("train", *kinds["decoder-only"], f"output_dir={folder}") == 2
    assert "configs/accelerate/ddp.yaml" in capsys.readouterr().err
