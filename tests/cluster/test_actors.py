"""Answers of processes on a Ray cluster of this machine; processes and runs being killed."""

import json
import os
import pickle
import sys

import pytest

from pal.cluster import joining
from pal.cluster.actors import ActorPool, room_for
from pal.cluster.nodes import NodeContext, check_source
from pal.cluster.settings import ClusterResources
from pal.commands.generate import ResponseWork
from pal.config import load_settings
from pal.core.errors import CheckpointError, ConfigError, DataError, OutputError
from pal.core.job import record_path
from pal.core.journal import Journal
from pal.llm import Request, connect
from pal.llm.settings import LlmSettings
from pal.llm.vllm_backend import VllmWork
from tests.cluster.mortal import MARK
from tests.cluster.stub_vllm import write_stub
from tests.cluster.works import Doubling
from tests.jobs import ESCONV, ROOT, command

ray = pytest.importorskip("ray")
FUSION = "tests.cluster.mortal:MortalFusion"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of this machine with two cores, for all tests; the path of the one death."""
    mark, before = tmp_path_factory.mktemp("mark") / "died", dict(os.environ)
    os.environ |= {
        "PYTHONPATH": str(ROOT), MARK: str(mark), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
    }  # fmt: skip
    ray.init("local", num_cpus=2, object_store_memory=80_000_000, include_dashboard=False,
             logging_level="ERROR", log_to_driver=False)  # fmt: skip
    os.environ.clear()
    os.environ.update(before)
    yield mark
    ray.shutdown()


def run(work, tasks, **more):
    pool = ActorPool("x=ray", "x", 1, ClusterResources(), **more)
    return dict(pool.run(work, tasks, NodeContext.of_driver()))


# ------------------------------------------------------------------------------ generate


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model, not trained, with a fusion that kills its process once on the cluster."""
    from pal.core.registry import trust
    from tests.modeling.small import build, small_tokenizer

    folder = tmp_path_factory.mktemp("model")
    trust(FUSION)
    build(small_tokenizer(), fusion=FUSION).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


def generate(model, output, *more):
    return [
        "generate", f"model={model}", f"input={ESCONV / 'test.jsonl'}", f"output={output}",
        f"trusted_code=[{FUSION}]", "limit=24", "batch_rows=1", "decoding.max_new_tokens=6",
        "decoding.min_new_tokens=2", *more,
    ]  # fmt: skip


def test_a_killed_process_and_an_interrupted_run_leave_the_same_bytes(
    cluster, model, tmp_path, monkeypatch, capsys
):
    expected, found = tmp_path / "local.jsonl", tmp_path / "found.jsonl"
    assert command(*generate(model, expected)) == 0

    append, begun = Journal.append, []

    def interrupted(self, key, value):
        begun.append(key)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return append(self, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", interrupted)
        assert command(*generate(model, found)) == 130
    done = []

    def noted(self, key, value):
        done.append(key)
        return append(self, key, value)

    monkeypatch.setattr(Journal, "append", noted)
    ours = ("generate.executor=ray", "generate.workers=1", "generate.resources={gpus: 0, cpus: 1}")
    assert command(*generate(model, found, *ours)) == 0
    assert "continuing after 2 batches" in capsys.readouterr().err
    assert sorted(done) == sorted(set(done) - set(begun[:2])), "none twice, none of those done"
    assert cluster.exists(), "a process was killed"
    assert found.read_bytes() == expected.read_bytes()
    one, two = (json.loads(record_path(path).read_text()) for path in (expected, found))
    assert one["identity"] == two["identity"]
    assert two["device"] == one["device"]


def test_the_results_of_all_tasks_come_once_and_a_mistake_is_the_drivers_own(cluster):
    assert run(Doubling(), {str(n): n for n in range(9)}) == {str(n): 2 * n for n in range(9)}
    assert run(Doubling(), {}) == {}
    with pytest.raises(KeyError, match="a defect") as caught:
        run(Doubling(), {"a": 14})
    assert "double" in caught.value.__notes__[0], "a defect brings its traceback"


def test_a_model_that_cannot_be_loaded_there_is_one_line(cluster):
    with pytest.raises(DataError, match=r"^line 3 is no weight$"):
        run(Doubling("line 3 is no weight"), {"a": 1})


def test_what_ray_gives_up_is_given_to_it_again_until_nothing_comes(monkeypatch):
    rounds = []

    def rows(self, work, tasks, context):
        rounds.append(sorted(tasks))
        if len(rounds) == 1:
            yield {"key": "a", "failed": False, "result": pickle.dumps("A")}
            yield {"key": "a", "failed": False, "result": pickle.dumps("A")}
        if "c" in tasks or len(rounds) == 1:
            raise ray.exceptions.ActorDiedError
        for key in sorted(tasks):
            yield {"key": key, "failed": False, "result": pickle.dumps(key.upper())}

    monkeypatch.setattr(ActorPool, "_rows", rows)
    monkeypatch.setattr("pal.cluster.actors.join_cluster", lambda asked: False)
    assert run(None, {"a": None, "b": None}) == {"a": "A", "b": "B"}
    assert rounds == [["a", "b"], ["b"]]
    rounds.clear()
    with pytest.raises(OutputError, match=r"^x=ray: the cluster failed \(ActorDiedError: "):
        run(None, {"a": None, "c": None})
    assert rounds == [["a", "c"], ["c"], ["c"]], "three times, the first of which brought a result"


@pytest.mark.cluster
def test_a_task_whose_process_dies_every_time_ends_the_run(cluster):
    with pytest.raises(OutputError, match=r"died 3 times at the same task, perhaps .* to continue"):
        run(Doubling(), {"a": 1, "b": 13})


def test_a_process_with_another_model_refuses(model, tmp_path):
    settings = load_settings(None, [f"model={model}"], command="generate")
    with pytest.raises(ConfigError, match=r"^model=.* is not the same on .* as on the driver"):
        ResponseWork(settings, "other").load()
    check_source("model", "some/hub-id", "some/hub-id")


# ------------------------------------------------------------------------------ mistakes


def test_ray_that_is_not_installed_is_one_line(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(joining, "find_spec", lambda name: None)
    assert command(*generate(model, tmp_path / "a.jsonl", "generate.executor=ray")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("generate.executor=ray needs the package ray; pip install 'pal-esc[ray]'")


def test_several_drivers_are_refused(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command(*generate(model, tmp_path / "a.jsonl", "generate.executor=ray")) == 2
    assert "generate.executor=ray runs in one process" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_one_line_and_one_that_is_gone_is_not_asked(
    tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **more: asked.append(address))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"^x=ray: no cluster answers at RAY_ADDRESS=127.0.0.1:9"):
        joining.join_cluster("x=ray")
    monkeypatch.delenv("RAY_ADDRESS")
    assert joining.join_cluster("x=ray")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    assert joining.join_cluster("x=ray")
    assert asked == [None, "local"]


def test_processes_fill_the_nodes():
    nodes = [{"CPU": 4, "GPU": 1}, {"CPU": 8, "GPU": 2, "memory": 9e9}, {"CPU": 2}]
    assert room_for(nodes, {"CPU": 1, "GPU": 0, "memory": 0}) == 14
    assert room_for(nodes, {"CPU": 2, "GPU": 0.5, "memory": 0}) == 2 + 4
    assert room_for(nodes, {"CPU": 2, "GPU": 1, "memory": 4e9}) == 2
    assert room_for(nodes, {"CPU": 99, "GPU": 1, "memory": 0}) == 1, "it waits for a larger node"


# ------------------------------------------------------------------------------ vLLM


@pytest.fixture
def vllm_path(tmp_path, monkeypatch):
    write_stub(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]


def language_model(tmp_path, *more, dtype="bfloat16"):
    folder = tmp_path / "chat"
    folder.mkdir(exist_ok=True)
    overrides = ["llm.backend=vllm", f"llm.model={folder}", f"llm.cache={tmp_path / 'c.sqlite'}",
                 "llm.workers=1", "llm.engine={max_model_len: 512}", *more]  # fmt: skip
    return connect(load_settings(None, overrides).llm, dtype)


def test_vllm_answers_with_the_seed_of_each_request_and_nothing_is_asked_twice(
    cluster, tmp_path, vllm_path, monkeypatch
):
    model = language_model(tmp_path, "llm.body={top_p: 0.9, chat_template_kwargs: {think: false}}")
    schema = {"type": "object", "properties": {"stars": {"type": "integer"}}}
    requests = [
        Request("a", (("system", "Be kind."), ("user", "Hello")), max_tokens=9, temperature=0.7,
                seed=5),
        Request("b", (("user", "Hello"),), seed=6),
        Request("c", (("user", "Rate it"),), schema, seed=7),
    ]  # fmt: skip
    outcomes = model.ask(requests, description="x")
    first, second = (json.loads(outcome.value) for outcome in outcomes[:2])
    assert first == {
        "said": [{"role": "user", "content": "Be kind.\n\nHello"}], "model": "chat",
        "dtype": "bfloat16", "max_model_len": 512, "temperature": 0.7, "max_tokens": 9, "seed": 5,
        "top_p": 0.9, "structured_outputs": None, "more": {"think": False},
    }  # fmt: skip
    assert (second["seed"], second["temperature"]) == (6, 0)
    assert outcomes[2].value == {"stars": 3}
    assert model.describe()["structured_output"] == "structured_outputs"
    assert model.describe()["system_role"] is False
    monkeypatch.setattr(ActorPool, "run", None)
    assert model.ask(requests, description="x") == outcomes


def test_mistakes_of_a_model_with_vllm_are_one_line(tmp_path, vllm_path):
    def engine(**more):
        settings = LlmSettings(backend="vllm", model="name", **more)
        return VllmWork(settings, "float32", "name").load()

    one = [Request("a", (("user", "Hello"),))]
    with pytest.raises(CheckpointError, match=r"cannot load it \(max_model_len is too small\)"):
        engine(engine={"max_model_len": 1})
    with pytest.raises(ConfigError, match=r"llm\.body: vLLM's SamplingParams take no such field"):
        engine(body={"nonsense": 1})(one)
    with pytest.raises(CheckpointError, match=r"cannot answer \(the prompt is too long\); give"):
        engine(engine={"too_long": True})(one)
    with pytest.raises(CheckpointError, match=r"gave up on a request with llm\.structured=text"):
        engine(engine={"broken": True}, structured="text")(one)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("llm.structured=json_schema", "llm.structured=json_schema is for endpoints"),
        ("llm.engine={dtype: half}", "dtype is not for the engine's options; give dtype"),
        ("llm.engine={trust_remote_code: true}", "no code of a model is run"),
        ("llm.engine={tensor_parallel_size: 0}", "should be a whole number from 1"),
    ],
)
def test_settings_that_no_engine_takes(given, message, tmp_path, vllm_path):
    with pytest.raises(ConfigError, match=message):
        language_model(tmp_path, given)


def test_vllm_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("pal.llm.vllm_backend.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^llm.backend=vllm needs the package vllm; pip install"):
        language_model(tmp_path)


def test_an_engines_options_are_vllms_alone_and_part_of_the_origin(tmp_path):
    from pal.llm.origin import origin_of

    def origin(*more):
        return origin_of(load_settings(None, ["llm.model=x", *more]).llm).digest

    with pytest.raises(ConfigError, match=r"llm\.engine is for llm\.backend=vllm"):
        origin("llm.engine={max_model_len: 9}")
    ours = ("llm.backend=vllm", "llm.engine={max_model_len: 9}")
    assert len({origin(ours[0]), origin(*ours), origin("llm.backend=transformers")}) == 3
    assert origin(*ours) == origin(*ours, "llm.workers=3", "llm.resources={gpus: 2}")
