"""The command line: what it takes, what it refuses, what it prints."""

import builtins
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors import SafetensorError
from tqdm import tqdm

from pal import __version__
from pal.cli import main, parse_arguments
from pal.commands import COMMANDS, load_settings
from pal.commands.common import check_models, check_score_models
from pal.commands.help import general_help
from pal.core.errors import CheckpointError, DataError
from pal.metrics.settings import MetricSettings
from tests.jobs import ROOT, environment


def refused(capsys, *arguments):
    assert main(list(arguments)) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    return shown


def test_help_names_every_command():
    text = general_help()
    for name in COMMANDS:
        assert all(word in text for word in name.split())


@pytest.mark.parametrize("script", ["train", "generate", "eval"])
def test_scripts_are_the_commands(script):
    done = subprocess.run(
        [sys.executable, ROOT / f"{script}.py", "--help"],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert f"pal {script}" in done.stdout


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "pal", "--version"],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert done.stdout == f"pal {__version__}\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_help_is_printed_on_a_terminal_without_greek_letters(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "pal", "tune-alpha", "--help"], capture_output=True,
        env=environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0", LC_ALL="C"), check=True,
    )  # fmt: skip
    assert b"tune_alpha.trials" in done.stdout


def test_closest_names_are_offered(capsys):
    assert "did you mean 'generate'?" in refused(capsys, "generat")
    assert "did you mean 'measure'?" in refused(capsys, "traits", "mesure")
    assert "did you mean 'eval'?" in refused(capsys, "evaluation")
    assert "did you mean 'generate'?" in refused(capsys, "gen")
    assert "did you mean" not in refused(capsys, "hello")
    assert "did you mean '--dry-run'?" in refused(capsys, "generate", "--dryrun")
    assert "did you mean 'decoding.top_k'?" in refused(capsys, "generate", "decoding.topk=1")
    assert "did you mean 'small'" in refused(capsys, "train", "--config", "smal")
    assert "export, personas, score" in refused(capsys, "human-eval")
    assert "is not of the form key=value" in refused(capsys, "generate", "runs/pal")
    torn = refused(capsys, "generate", "data.columns={dialogue:", "chat,", "text:", "said}")
    assert "is not of the form key=value; a value with spaces needs quotes" in torn


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("generate --model runs/pal", "'model=runs/pal'"),
        ("serve --port 8080", "'serve.port=8080'"),
        ("serve model=runs/pal --port=8080", "'serve.port=8080'"),
        ("study serve s.db --port 80", "'study_server.port=80'"),
        ("serve --serve.port 8080", "'serve.port=8080'"),
        ("serve --prt 8080", "'serve.port=…'"),
        ("traits cards --api-key=sk-secret", "'llm.api_key_env=…'"),
        ("traits cards --api-key sk-secret", "'llm.api_key_env=…'"),
        ("train --overwrite", "'overwrite=true'"),
        ("serve --timeout 5", "'guard.timeout=5 or serve.timeout=5'"),
        ("generate --alpha 0.5", "'decoding.alpha=0.5'"),
        ("generate --batch-tokens 9", "'batch_tokens=9'"),
        ("train --learning_rate 1e-4", "'training.learning_rate=1e-4'"),
        ("chat --persona model=runs/pal", "'persona=…'"),
        ("audit --input d.jsonl", "'data.train=d.jsonl'"),
        ("reproduce --output runs/r", "'output_dir=runs/r'"),
    ],
)
def test_an_option_that_is_a_setting_is_given_its_whole_key(capsys, arguments, hint):
    told = refused(capsys, *arguments.split())
    assert f"; did you mean {hint}? Settings are given as key" in told
    assert "secret" not in told


def test_an_option_that_is_no_setting_gets_no_hint_that_is_refused(capsys):
    told = refused(capsys, "serve", "--wxyz", "3")
    assert "wxyz=3" not in told
    assert "`pal serve --help` lists them" in told
    assert "did you mean" not in refused(capsys, "train", "--model", "x")  # no slip of data.more
    assert "; settings are given as key=value" in refused(capsys, "--wxyz", "3")


@pytest.mark.parametrize("command", ["chat", "serve serve.port=0", "generate"])
def test_a_command_says_that_it_loads_a_model(capsys, tmp_path, monkeypatch, command):
    """Libraries and model take seconds to load, in which nothing else is shown."""
    monkeypatch.chdir(tmp_path)
    Path("runs/none").mkdir(parents=True)
    Path("runs/none/config.json").write_text("{}")
    Path("in.jsonl").write_text('{"dialog": [{"speaker": "seeker", "text": "I lost my job."}]}')
    files = ["input=in.jsonl", "output=out.jsonl"] if command == "generate" else []
    assert main([*command.split(), "model=runs/none", *files]) == 2
    first, *_, last = capsys.readouterr().err.strip().split("\n")
    assert first == "loading runs/none"
    assert last.startswith("pal: error: model=runs/none: no model there")


MISTYPED = "runs/tinny/model"
METRIC_MODELS = ("metrics.embedder", "metrics.bertscore", "metrics.nli")
STUDIED = f"study.systems={{a: {{model: {MISTYPED}}}, b: {{model: x}}}}"


@pytest.fixture
def without_libraries(monkeypatch):
    """Importing what takes seconds, and half a minute on a busy machine, fails."""
    imported = builtins.__import__

    def light(name, *rest, **more):
        assert name.partition(".")[0] not in ("torch", "transformers", "datasets"), name
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", light)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        *(([*name.split(), f"model={MISTYPED}"], "model") for name in (
            "chat", "serve", "generate", "annotate", "export", "eval", "tune-alpha", "simulate",
            "bench generate",
        )),
        (["train", f"architecture.base={MISTYPED}"], "architecture.base"),
        (["train", f"architecture.tokenizer={MISTYPED}"], "architecture.tokenizer"),
        (["chat", "model=runs/tiny", f"extractor={MISTYPED}"], "extractor"),
        (["serve", "model=runs/tiny", f"guard.model={MISTYPED}"], "guard.model"),
        (["study", "create", "input=i", "output=o", STUDIED], "study.systems.a.model"),
        *((["eval", "predictions=p.jsonl", f"{key}={MISTYPED}"], key) for key in METRIC_MODELS),
        *((["reproduce", f"{key}={MISTYPED}"], key) for key in (
            *METRIC_MODELS, "reproduce.extractor",
        )),
        *(([name, f"metrics.embedder={MISTYPED}"], "metrics.embedder") for name in (
            "tune-alpha", "analyze",
        )),
        (["guard", "train", f"head.encoder={MISTYPED}"], "head.encoder"),
        (["bench", "scale", f"bench.extractor={MISTYPED}"], "bench.extractor"),
        (["convert-authors", "w.bin", f"tokenizer={MISTYPED}"], "tokenizer"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_there_is_refused_before_libraries_load(
    capsys, tmp_path, monkeypatch, without_libraries, given, key
):
    monkeypatch.chdir(tmp_path)
    Path("runs/tiny/model").mkdir(parents=True)
    Path("runs/tiny/config.json").write_text("{}")
    told = refused(capsys, *given)
    meant = "no such folder; did you mean 'runs/tiny/model'?"
    assert told == f"pal: error: {key}={MISTYPED}: {meant}\n"


@pytest.mark.parametrize(
    ("key", "command"),
    [("model", name) for name in ("chat", "generate", "annotate", "export")]
    + [("extractor", "chat model=runs")],
)
def test_a_model_of_one_word_or_not_downloaded_is_refused_before_libraries_load(
    capsys, tmp_path, monkeypatch, without_libraries, key, command
):
    """The hub has no model of ours without an owner; without a network it gives none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "config.json").write_text("{}")
    told = refused(capsys, *command.split(), f"{key}=blenderbot")
    assert told.startswith(f"pal: error: {key}=blenderbot: no such folder; give the folder that ")
    told = refused(capsys, *command.split(), f"{key}=some-lab/model")
    assert told.startswith(f"pal: error: {key}=some-lab/model: no such folder, and not downloaded")
    (tmp_path / "cache" / "models--some-lab--model").mkdir(parents=True)
    settings = load_settings(command.split()[0], overrides=[f"{key}=some-lab/model"])
    check_models(settings)  # what is in the cache is tried
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    check_models(load_settings(command.split()[0], overrides=[f"{key}=another-lab/model"]))


def test_a_base_that_is_not_downloaded_is_refused_before_libraries_load(
    capsys, tmp_path, monkeypatch, without_libraries
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("blenderbot", "facebook/blenderbot_small-90M"):
        assert main(["train", f"architecture.base={name}", "data.train=bundled:esconv"]) == 2
        told = capsys.readouterr().err
        assert f"pal: error: architecture.base={name}: no such folder, and not downloaded" in told


def test_models_that_are_no_folders_of_ours_may_be_the_hubs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for command, given in {
        "eval": ["metrics.bertscore=roberta-large", "metrics.nli=some-lab/nli"],
        "reproduce": ["reproduce.extractor=train", "architecture.tokenizer=gpt2"],
        "chat": ["guard.model=distilbert"],
    }.items():
        check_models(load_settings(command, overrides=given))


@pytest.mark.parametrize("command", ["chat", "serve", "guard eval"])
def test_a_model_of_the_hub_is_refused_without_it_where_it_is_loaded_in_any_case(
    capsys, tmp_path, monkeypatch, without_libraries, command
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    given = "guard.model=some-lab/model"
    told = refused(capsys, *command.split(), given)
    assert told.startswith(f"pal: error: {given}: no such folder, and not downloaded before, with ")
    check_models(load_settings(command, overrides=[given, "guard.off=true"]))
    check_models(load_settings("eval", overrides=["metrics.nli=lab/nli"]))  # if there are personas


def test_models_of_scores_that_come_after_training_are_refused_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    Path("empty").mkdir()
    Path("file").touch()
    for key in ("embedder", "bertscore", "nli"):
        for name, why in {
            "some-lab/model": "no such folder, and not downloaded before",
            "./none": "no such folder; give a folder, or a hub id",
            "empty": r"no model there \(it holds no config.json\)",
            "file": r"no model there \(a file, not a folder\)",
        }.items():
            with pytest.raises(CheckpointError, match=f"^metrics.{key}={name}: {why}"):
                check_score_models(MetricSettings(**{key: name}))
            check_score_models(MetricSettings(**{key: name}, names=["bleu"]))  # it is not used
    check_score_models(MetricSettings())  # a default that cannot be had is left out


@pytest.mark.parametrize("key", ["model", "extractor", "reproduce.extractor"])
def test_what_holds_no_model_is_refused_before_libraries_load(
    capsys, tmp_path, monkeypatch, without_libraries, key
):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "whole", "adapted", "run/model"):
        Path(name).mkdir(parents=True)
    Path("file.bin").touch()
    for name in ("whole/config.json", "adapted/pal_config.json", "run/model/config.json"):
        Path(name).write_text("{}")
    command = {"model": "generate", "extractor": "chat model=whole"}.get(key, "reproduce")
    for name, why in {
        "empty": "no model there (it holds no config.json); give ",
        "file.bin": "no model there (a file, not a folder); give ",
        "run": "no model itself, a folder of others; give run/model\n",
    }.items():
        told = refused(capsys, *command.split(), f"{key}={name}")
        assert told.startswith(f"pal: error: {key}={name}: {why}")
    for name in ("whole", "adapted"):
        check_models(load_settings(command.split()[0], overrides=[f"{key}={name}"]))


def test_a_slip_of_train_is_no_model(capsys, tmp_path, monkeypatch, without_libraries):
    monkeypatch.chdir(tmp_path)
    told = refused(capsys, "reproduce", "reproduce.extractor=tarin")
    wanted = "reproduce.extractor=tarin: no such folder; did you mean 'train'?"
    assert told == f"pal: error: {wanted}\n"
    told = refused(capsys, "reproduce", "reproduce.extractor=runs")
    assert "reproduce.extractor=runs: no such folder; give train, or the folder that " in told
    check_models(load_settings("reproduce", overrides=["reproduce.extractor=train"]))


def test_a_default_model_that_cannot_be_had_is_no_mistake(tmp_path, monkeypatch):
    """Scores are computed without it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "princeton-nlp" / "sup-simcse-bert-large-uncased").mkdir(parents=True)
    check_models(load_settings("eval"))
    name = "princeton-nlp/sup-simcse-bert-base-uncased"
    with pytest.raises(CheckpointError, match=r"(?s)did you mean .*For one of the hub"):
        check_models(load_settings("eval", overrides=[f"metrics.embedder={name}"]))


def test_options_overrides_and_actions_may_be_mixed():
    words = ["traits", "seed=1", "--config", "traits", "measure", "limit=3", "--dry-run"]
    given = parse_arguments(words)
    assert (given.command, given.config) == ("traits measure", "traits")
    assert given.overrides == ["seed=1", "limit=3"]
    assert given.dry_run


def test_a_command_without_what_it_needs_says_so_at_once(capsys):
    for command in ("generate", "annotate", "tune-alpha", "traits measure", "human-eval export"):
        assert "missing settings: give" in refused(capsys, *command.split())
    assert "torch" not in refused(capsys, "eval")


def test_threads_sleep_while_they_wait(tmp_path):
    """Two threads that spin on a core that other work takes were three times as slow."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "pal", "chat", f"model={made}"], capture_output=True,
        text=True, env=environment(OMP_DISPLAY_ENV="verbose"),
    )  # fmt: skip
    assert "GOMP_SPINCOUNT = '0'" in done.stderr


def test_completion_offers_commands_and_keys():
    pytest.importorskip("argcomplete")
    line = "pal generate decoding.al"
    done = subprocess.run(
        [sys.executable, "-m", "pal"], capture_output=True, text=True,
        env=environment(
            _ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)), COMP_TYPE="9",
            _ARGCOMPLETE_IFS="\n", _ARGCOMPLETE_STDOUT_FILENAME="/dev/stdout",
        ),
    )  # fmt: skip
    assert "decoding.alpha=" in done.stdout


def test_a_name_that_no_file_can_have_is_told_in_one_line(capsys, tmp_path, monkeypatch):
    def too_long(settings):
        open("x" * 300).close()

    monkeypatch.setattr(type(COMMANDS["analyze"]), "load_function", lambda command: too_long)
    assert "the name is too long; choose a shorter one" in refused(capsys, "analyze")


@pytest.mark.parametrize("source", ["https://me:hidden@example.org/x.jsonl", "s3://hidden@b/x"])
def test_no_message_shows_the_password_of_an_address(capsys, tmp_path, source):
    shown = refused(capsys, "analyze", f"input={source}", f"output={tmp_path / 'nothing.json'}")
    assert "hidden" not in shown
    assert "://***@" in shown


def test_a_key_of_several_types_is_one_mistake(capsys):
    shown = refused(capsys, "generate", "decoding.alpha=nan")
    assert "settings: decoding.alpha: expected a finite number" in shown
    shown = refused(capsys, "generate", "decoding.alpha={Question: x}")
    assert "settings: decoding.alpha.Question: expected a number" in shown
    assert "metrics.names: expected at least 1 item" in refused(capsys, "eval", "metrics.names=[]")


# Interrupts the process when a module is looked for.
WHEN = """
import os, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == os.environ["WHEN"]:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
"""
PROGRAMS = {
    "module": ["-m", "pal"],
    "inner module": ["-m", "pal.cli"],
    "script": [str(ROOT / "generate.py")],
    "installed": ["bin/pal"],
}


@pytest.mark.parametrize("when", ["pal.modeling.auto", "pal.core.errors", "pal.commands"])
@pytest.mark.parametrize("how", PROGRAMS)
def test_an_interrupt_of_imports_is_one_line(tmp_path, when, how):
    (tmp_path / "sitecustomize.py").write_text(WHEN)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pal").write_text("from pal.cli import run_program\nrun_program()\n")
    found = environment(WHEN=when)
    found["PYTHONPATH"] = f"{tmp_path}:{found['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, *PROGRAMS[how], "--help"],
        capture_output=True, text=True, env=found, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip().startswith("pal: interrupted")
    assert done.stderr.strip().count("\n") == 0


def test_an_interrupt_of_another_program_is_its_own(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WHEN)
    (tmp_path / "theirs.py").write_text("import pal\n")
    found = environment(WHEN="pal.modeling.auto")
    found["PYTHONPATH"] = f"{tmp_path}:{found['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "theirs.py"], capture_output=True, text=True, env=found, cwd=tmp_path
    )
    assert "KeyboardInterrupt" in done.stderr
    assert "pal: interrupted" not in done.stderr


@pytest.mark.parametrize("code", [0, 2])
def test_a_program_leaves_its_process_group(monkeypatch, code):
    """Whoever ends with the group's threads running is aborted now and then, with its work done."""
    import torch.distributed as distributed

    import pal.cli

    def command(arguments):
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        return code

    monkeypatch.setattr(pal.cli, "main", command)
    try:
        with pytest.raises(SystemExit) as ended:
            pal.cli.run_program()
        assert ended.value.code == code
        assert not distributed.is_initialized()
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


FULL = SafetensorError("Error while serializing: I/O error: No space left (os error 28)")


@pytest.mark.parametrize("error", [OSError(28, "No space left"), FULL, DataError("no such file")])
def test_what_fails_under_a_progress_bar_has_a_line_of_its_own(capsys, monkeypatch, error):
    bars = []

    def failing(settings):
        bars.append(tqdm(total=3))
        bars[0].update()
        raise error

    monkeypatch.setattr(type(COMMANDS["settings"]), "load_function", lambda self: failing)
    assert main(["settings"]) == 2
    said = capsys.readouterr().err
    assert said.rstrip().split("\n")[-1].startswith("pal: error: ")
    assert ("the disk is full" in said) == (error.args[0] != "no such file")


@pytest.mark.parametrize(
    "given",
    [
        ("audit", "data.train=a\nb.csv"),
        ("audit", "data.train=a\r\u2028b.csv"),
        ("eval", "predictions=no\nfile.jsonl", "output=o.json"),
        ("audit", "data.train=x.csv", "output=a\nb.txt"),
        ("aud\nit",),
        ("audit", "nonsense\nhere"),
        ("audit", "--no\nsuch"),
    ],
)
def test_a_line_break_in_what_was_given_breaks_no_message(given, capsys):
    assert len(refused(capsys, *given).splitlines()) == 1


def test_a_line_break_in_a_path_that_the_system_refuses_breaks_no_message(capsys, monkeypatch):
    def failing(settings):
        raise PermissionError(13, "denied", "a\nb.json")

    monkeypatch.setattr(type(COMMANDS["settings"]), "load_function", lambda self: failing)
    assert r"a\nb.json: no permission" in refused(capsys, "settings")


def test_a_defect_that_met_a_refusal_on_its_way_is_no_refusal(monkeypatch):
    def failing(settings):
        try:
            raise PermissionError(13, "denied")
        except OSError:
            return {}["missing"]

    monkeypatch.setattr(type(COMMANDS["settings"]), "load_function", lambda self: failing)
    with pytest.raises(KeyError):
        main(["settings"])
