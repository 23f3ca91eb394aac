"""What decides a result is part of its identity: every setting and every file, of every command."""

import json
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest

from pal.commands import COMMANDS, all_settings
from pal.core.files import fingerprint
from pal.core.job import INERT_KEYS, Job, decisive
from pal.core.settings import Contents, Inert, fields_of, marks_of, section_of

# Where an output goes, and how fast it comes. A new setting is not here unless somebody adds it.
EXCLUDED = {
    "output", "output_dir", "overwrite", "dry_run",
    "tracking.wandb", "tracking.project", "tracking.texts",
    "reproduce.keep_checkpoints", "reproduce.executor", "reproduce.workers",
    "reproduce.resources", "reproduce.slurm", "generate.executor", "generate.workers",
    "generate.resources.gpus", "generate.resources.cpus", "generate.resources.memory_gb",
    "llm.workers", "llm.resources.gpus", "llm.resources.cpus", "llm.resources.memory_gb",
    "llm.connections", "llm.requests_per_minute", "llm.timeout", "llm.max_attempts", "llm.backoff",
    "llm.cache", "llm.batch_export", "llm.batch_import", "llm.estimate_only", "llm.price_in",
    "llm.price_out", "llm.api_key_env", "llm.key_over_http", "llm.trust_old_answers",
    "guard.timeout",
    "push_to", "private",
}  # fmt: skip


def other_values(annotation, old):
    """Yield values of a type that differ from an old one."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from other_values(args[0], old)
    elif origin in (Union, types.UnionType):
        for part in args:
            yield from other_values(part, old)
    elif origin is Literal:
        yield from (value for value in args if value != old)
    elif annotation is bool:
        yield not old
    elif annotation in (int, float):
        base = old if isinstance(old, int | float) and not isinstance(old, bool) else 2
        yield from (annotation(base + step) for step in (1, -1, 0.125, 0.03, -1.5))
    elif annotation is str:
        yield from ("other", "argmax", "http://localhost:9/v1", "OTHER_KEY", "US")
    elif origin is list:
        inner = list(other_values(args[0], None))
        yield from ([value] for value in inner if [value] != old)
    elif origin is tuple:
        yield tuple(value + 2 for value in old) if old else ("a", "b")
    elif origin is dict or annotation is dict:
        inner = args[1] if args else Any
        value = {"x": 1} if inner is Any else next(iter(other_values(inner, None)), None)
        if section_of(inner) is not None:
            known = inner.model_fields
            part = next((key for key in ("model", "input") if key in known), next(iter(known)))
            value = {part: next(iter(other_values(known[part].annotation, None)))}
        if get_origin(inner) is dict:
            value = {"decoding": {"x": 1}}
        names = get_args(args[0]) if args and get_origin(args[0]) is Literal else ["other"]
        yield {names[0]: value}
        yield {"learning_rate": 0.5}  # an open group of keys may be one of known names
    elif annotation is Any:
        yield "other"


def with_value(cls, key, value):
    tree: dict = {}
    node = tree
    *path, last = key.split(".")
    for part in path:
        node = node.setdefault(part, {})
    node[last] = value
    return cls.model_validate(tree)


CASES = [
    (name, key, field)
    for name, cls in all_settings().items()
    for key, field, _ in fields_of(cls)
]  # fmt: skip


@pytest.mark.parametrize(("name", "key", "field"), CASES, ids=[f"{n} {k}" for n, k, _ in CASES])
def test_changing_a_value_changes_the_identity_unless_it_is_excluded(name, key, field):
    cls = all_settings()[name]
    before = Job(name, cls(), "out").identity
    old = field.get_default(call_default_factory=True)
    for value in other_values(field.annotation, old):
        try:
            changed = with_value(cls, key, value)
        except ValueError:
            continue  # out of bounds
        after = Job(name, changed, "out").identity
        assert (after == before) == (key in EXCLUDED), (key, value)
        return
    pytest.fail(f"no other value of {key} was found")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_excluded_keys_are_these(name):
    inert = {
        key for key, field, _ in fields_of(all_settings()[name])
        if key in INERT_KEYS or any(isinstance(mark, Inert) for mark in marks_of(field))
    }  # fmt: skip
    assert inert <= EXCLUDED


PATHS = [
    case for case in CASES
    if any(isinstance(m, Contents) for m in marks_of(case[2])) and case[1] not in EXCLUDED
]  # fmt: skip


@pytest.mark.parametrize(("name", "key", "field"), PATHS, ids=[f"{n} {k}" for n, k, _ in PATHS])
def test_editing_an_input_in_place_changes_the_identity_and_moving_it_does_not(
    name, key, field, tmp_path
):
    cls = all_settings()[name]
    file, folder = tmp_path / "a.jsonl", tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for inside in (file, folder / "config.json", folder / "deep" / "pooling.json"):
        inside.write_text("one")

    def value(path):
        for like in other_values(field.annotation, None):
            if isinstance(like, list):
                return [str(path)]
            if isinstance(like, dict):
                return {"other": str(path)}
            if isinstance(like, str):
                return str(path)
        raise AssertionError(key)

    def identity(path):
        return fingerprint(decisive(with_value(cls, key, value(path))))

    for path, edited in ((file, file), (folder, folder / "deep" / "pooling.json")):
        before = identity(path)
        edited.write_text("two, longer")
        after = identity(path)
        assert after != before
        path.rename(tmp_path / "moved")
        assert identity(tmp_path / "moved") == after
        (tmp_path / "moved").rename(path)


def test_every_setting_that_names_a_path_says_so():
    """A text that names a file or folder is marked, so that its contents count."""
    words = ("file", "folder", "hub id", "path")
    for name, cls in all_settings().items():
        from pal.core.explain import meanings

        for key, field, section in fields_of(cls):
            text = meanings(section)[key.rpartition(".")[2]].lower()
            marked = any(isinstance(m, Contents | Inert) for m in marks_of(field))
            named = any(f" {word}" in f" {text}" for word in words)
            assert marked or not named or key in NO_PATHS, f"{name}: {key} says {text!r}"


# Meanings that speak of files or folders, of keys that are none.
NO_PATHS = {
    "split", "prefix", "data.split", "data.columns", "traits.text_column", "traits.dataset",
    "human_eval.pairs", "reproduce.overrides", "llm.model", "llm.base_url", "limit",
    "data.reader", "data.strategy_labels", "architecture.gguf_file", "data.protocol",
}  # fmt: skip


def test_package_versions_are_part_of_an_identity(monkeypatch):
    cls = all_settings()["generate"]
    before = Job("generate", cls(), "out")
    assert before.made_of["version of pal-esc"]
    monkeypatch.setattr("pal.core.job.version_of", lambda name: "another")
    assert Job("generate", cls(), "out").identity != before.identity


def test_a_run_record_hides_secrets():
    cls = all_settings()["reproduce"]
    overrides = {"pal": {"training": {"hub_token": "hf_secret", "learning_rate": 1}}}
    record = Job("reproduce", cls(reproduce={"overrides": overrides}), "out").describe(samples=3)
    assert "hf_secret" not in str(record)
    assert record["settings"]["reproduce"]["overrides"]["pal"]["training"]["learning_rate"] == 1
    assert record["versions"]["torch"]
    assert record["samples"] == 3


def test_the_refusal_of_an_output_names_what_differs(tmp_path):
    from pal.core.errors import OutputError

    cls = all_settings()["generate"]
    output = tmp_path / "out.jsonl"
    job = Job("generate", cls(seed=1), output)
    with job.claimed(processes=False):
        job.publish(lambda path: path.write_text("{}\n"))
    assert Job("generate", cls(seed=1), output).is_finished()
    with pytest.raises(OutputError, match=r"differs: seed: 1, now 2\)"):
        Job("generate", cls(seed=2), output).is_finished()
    others = cls(seed=1, decoding={"alpha": 1.0, "do_sample": False})
    expected = r"decoding.do_sample: true, now false; decoding.alpha: not set, now 1.0\)"
    with pytest.raises(OutputError, match=expected):
        Job("generate", others, output).is_finished()
    record = tmp_path / "out.jsonl.run.json"
    known = json.loads(record.read_text())  # as an earlier version wrote it, without a setting
    del known["made_of"]["data.protocol"]
    record.write_text(json.dumps({**known, "identity": "x"}))
    expected = r"differs: seed: 1, now 2; data.protocol: absent, now not set\)"
    with pytest.raises(OutputError, match=expected):
        Job("generate", cls(seed=2), output).is_finished()
    record.write_text('{"identity": "x", "command": "generate"}')
    with pytest.raises(OutputError, match="was not made by these settings"):
        Job("generate", cls(seed=1), output).is_finished()
