"""The examples run as they stand, on models small enough for a test."""

import csv
import io
import json
import os
import runpy
import sys
from importlib.util import find_spec

import pytest

from pal.core.errors import PalError
from pal.core.files import write_jsonl
from pal.data.esconv import load_esconv, write_pesconv
from tests.jobs import ESCONV, ROOT, command
from tests.llm.server import FakeServer

EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
TALKS = """\
dialogue,speaker,text,note
a,seeker,"I lost my job, and I have two kids.",first
a,supporter,"What happened, ""again""?",
a,seeker,The firm closed.,
b,seeker,My friend does not talk to me.,second
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, response_model, extractor_model):
    """A folder in which `pal quickstart` has run, on small models and a part of the corpus."""
    from tests.modeling.languages import with_notes

    folder = tmp_path_factory.mktemp("examples")
    made = folder / "runs" / "quickstart"
    made.mkdir(parents=True)
    (made / "model").symlink_to(response_model)
    (made / "extractor").symlink_to(extractor_model)
    rows = list(load_esconv(str(ESCONV / "train.jsonl")))[:20]
    write_pesconv(made / "pesconv.jsonl", with_notes(rows))
    answered = [f"input={made / 'pesconv.jsonl'}", "split=test", "data.split=seeded"]
    limits = ["decoding.max_new_tokens=8", f"output={made / 'predictions.jsonl'}"]
    assert command("generate", f"model={made / 'model'}", *answered, *limits) == 0
    return folder


@pytest.fixture
def run(place, monkeypatch, capsys):
    """Run a script as ``python examples/NAME …`` does: its exit code, output and errors."""
    monkeypatch.chdir(place)

    def call(name, *arguments, said=""):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        capsys.readouterr()
        code: int | str | None = 0
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        out, errors = capsys.readouterr()
        return code, out, errors

    return call


def cells_of(path, parameters):
    """Return the code cells of a notebook, and behind its parameters those of the test."""
    cells: list[str] = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            cells.append("".join(cell["source"]))
            if "parameters" in cell["metadata"].get("tags", ()):
                cells.append("\n".join(f"{key} = {value!r}" for key, value in parameters.items()))
    return cells


def run_notebook(name, **parameters):
    """Run the code cells one after the other in one namespace, and return it."""
    namespace = {"__name__": "__main__"}
    for number, text in enumerate(cells_of(EXAMPLES / name, parameters)):
        exec(compile(text, f"{name}, code cell {number}", "exec"), namespace)
    return namespace


def test_the_chat_streams_what_a_session_replies(run, place):
    import pal

    limits = ["decoding.max_new_tokens=8", "seed=5"]
    code, out, errors = run("chat_loop.py", *limits, said="I lost my job.\nI have two kids.\n")
    assert (code, out.count("you: "), out.count("knows: ")) == (0, 3, 2), errors
    settings = pal.load_settings(None, limits, command="chat")
    model, extractor = (str(place / "runs/quickstart" / name) for name in ("model", "extractor"))
    chat = pal.load(model, extractor=extractor, decoding=settings.decoding, seed=5)
    reply = chat.respond([{"role": "user", "content": "I lost my job."}])
    assert f"pal: [{reply.strategy}, α {reply.alpha:g}; knows: nothing yet]\n{reply.text}\n" in out


def test_in_the_chat_the_guard_speaks_in_place_of_the_model(run):
    code, out, _ = run("chat_loop.py", said="I am going to kill myself tonight.\n")
    assert code == 0
    assert "(The guard speaks.)" in out
    assert "knows:" not in out


def test_the_answers_stand_in_the_rows_of_the_csv(run, place):
    (place / "talks.csv").write_text(TALKS, encoding="utf-8-sig")
    options = ["decoding.max_new_tokens=8", "annotate.num_beams=1"]
    code, out, errors = run("answer_csv.py", "talks.csv", "runs/talks", *options)
    assert (code, out) == (0, "2 answers in runs/talks/answered.csv\n"), errors
    given = list(csv.DictReader(io.StringIO(TALKS)))
    rows = list(csv.DictReader((place / "runs/talks/answered.csv").open(encoding="utf-8")))
    assert [{key: row[key] for key in given[0]} for row in rows] == given
    assert [bool(row["pal_response"]) for row in rows] == [False, False, True, True]
    written = [json.loads(line) for line in (place / "runs/talks/responses.jsonl").open()]
    assert [row["pal_response"] for row in rows[2:]] == [row["response"] for row in written]
    assert rows[2]["pal_strategy"] == written[0]["strategy"]


def test_columns_of_other_names_and_strategies(run, place):
    """Every supporter turn is then answered, in the row before it."""
    lines = ["who;said;talk;strategy", "seeker;I lost it.;1;", "supporter;What?;1;Question",
             "seeker;My job.;1;", "supporter;Oh no.;1;Others"]  # fmt: skip
    (place / "other.csv").write_text("\n".join(lines) + "\n")
    columns = "data.columns={dialogue: talk, speaker: who, text: said}"
    options = ["decoding.max_new_tokens=8", "--extractor", "runs/quickstart/extractor", columns]
    code, _, errors = run("answer_csv.py", "other.csv", "runs/other", *options)
    assert code == 0, errors
    rows = list(csv.DictReader((place / "runs/other/answered.csv").open(encoding="utf-8")))
    assert [bool(row["pal_response"]) for row in rows] == [True, False, True, False]


def test_a_system_of_ones_own_stands_in_the_table_with_pal(run, place):
    options = ["statistics.resamples=100", "report.cases=0"]
    code, out, errors = run("benchmark_own_system.py", *options, "output_dir=runs/own")
    assert code == 0, errors
    assert "| PAL |" in out
    assert "| own |" in out
    results = json.loads((place / "runs/own/results.json").read_text())
    assert results["systems"]["own"]["summary"]["bleu_2"]["mean"] is not None
    assert {(test["a"], test["b"]) for test in results["tests"]} == {("PAL", "own")}
    file = place / "theirs.jsonl"
    rows = [json.loads(line) for line in (place / "runs/own/own.jsonl").open()]
    write_jsonl(file, [{"id": row["id"], "response": "i hear you ."} for row in rows])
    more = ["output_dir=runs/theirs", "--responses", file]
    code, _, errors = run("benchmark_own_system.py", *options, *more)
    assert code == 0, errors
    results = json.loads((place / "runs/theirs/results.json").read_text())
    assert results["systems"]["own"]["summary"]["length"]["mean"] == 4


@pytest.mark.parametrize(("call", "message"), [
    (("chat_loop.py", "model=runs/none"), "runs/none"),
    (("chat_loop.py", "guard.country=Germany"), "guard.country"),
    (("chat_loop.py", "temperature=1"), "unknown key 'temperature'"),
    (("answer_csv.py", "none.csv", "runs/x"), "none.csv: no such file"),
    (("answer_csv.py", "bad.csv", "runs/x"), "bad.csv"),
    (("answer_csv.py", "talks.csv", "runs/x", "decoding.top_q=1"), "decoding.top_q"),
    (("benchmark_own_system.py", "--quickstart", "none"), "none"),
    (("benchmark_own_system.py", "--responses", "none.jsonl"), "none.jsonl: no such file"),
    (("benchmark_own_system.py", "metrics.names=[bleuu]"), "did you mean 'bleu'"),
])  # fmt: skip
def test_a_mistake_is_one_line(call, message, run, place):
    (place / "talks.csv").write_text(TALKS, encoding="utf-8")
    (place / "bad.csv").write_text("dialogue,speaker\n1,seeker\n", encoding="utf-8")
    code, _, errors = run(*call)
    last = errors.strip().splitlines()[-1]
    assert code == 2
    assert last.startswith(f"{call[0]}: error: ")
    assert message in last
    assert "Traceback" not in errors


def lora_parameters(folder):
    from tests.modeling.languages import chat_tokenizer, tiny

    tiny("llama", initializer_range=0.08).save_pretrained(folder / "tiny")
    chat_tokenizer().save_pretrained(folder / "tiny")
    short = ["data.max_train_samples=16", "data.max_validation_samples=4",
             "training.num_train_epochs=1", "training.learning_rate=0.01",
             "architecture.max_context_tokens=256",
             "architecture.max_target_tokens=32"]  # fmt: skip
    return {
        "BASE": str(folder / "tiny"), "FOLDER": str(folder / "lora"), "SETTINGS": short,
        "DIALOGUES": str(folder / "runs/quickstart/pesconv.jsonl"),
    }  # fmt: skip


def study_parameters(folder, url):
    return {
        "LLM": [f"llm.base_url={url}", "llm.model=fake", "llm.backoff=0.01"], "PEOPLE": 6,
        "FOLDER": str(folder / "study"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def endpoint():
    from tests.traits.fakes import World, answer, planted

    with FakeServer(answer(World(planted(40)))) as server:
        yield server


def test_the_notebook_of_lora_changes_what_is_said_and_exports_the_same(place, capsys):
    pytest.importorskip("peft")
    found = run_notebook("lora_own_dialogues.ipynb", **lora_parameters(place))
    assert (found["folder"] / "model" / "adapter_config.json").exists()
    assert not (found["folder"] / "merged" / "adapter_config.json").exists()
    assert [row for row in found["log"] if "eval_loss" in row]
    assert found["reply"].text
    assert found["same"]
    assert "the same answer: True" in capsys.readouterr().out


def test_the_notebook_of_traits_asks_an_endpoint_once(place, endpoint, capsys):
    found = run_notebook("trait_study.ipynb", **study_parameters(place, endpoint.url))
    asked = len(endpoint.requests)
    assert asked >= 48
    assert found["answered"] == 6 * 48
    assert "288 statements answered, 0 without" in capsys.readouterr().out
    assert found["page"].read_text(encoding="utf-8").startswith("<!")
    run_notebook("trait_study.ipynb", **study_parameters(place, endpoint.url))
    assert len(endpoint.requests) == asked


def test_a_mistake_in_a_notebook_is_an_error_of_the_package(place):
    parameters = {**lora_parameters(place), "SETTINGS": ["training.epochs=1"]}
    with pytest.raises(PalError, match=r"training\.epochs"):
        run_notebook("lora_own_dialogues.ipynb", **parameters)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_valid_and_carries_no_long_outputs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert sum("parameters" in c["metadata"].get("tags", ()) for c in notebook["cells"]) == 1
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert len(json.dumps(cell["outputs"])) < 2000
    if find_spec("nbformat"):
        import nbformat

        nbformat.validate(notebook)


@pytest.mark.notebooks
@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_a_notebook_runs_in_a_kernel(name, place, endpoint, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    more = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *more]))
    given = (
        lora_parameters(place) | {"FOLDER": str(tmp_path)}
        if "lora" in name
        else study_parameters(tmp_path, endpoint.url)
    )
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    (place_of,) = [
        number for number, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", ())
    ]  # fmt: skip
    text = "\n".join(f"{key} = {value!r}" for key, value in given.items())
    notebook.cells.insert(place_of + 1, nbformat.v4.new_code_cell(text))
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_scripts_are_short_and_the_readme_names_every_example():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert len(SCRIPTS) >= 3
    assert len(NOTEBOOKS) >= 2
    for path in SCRIPTS:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, path.name
    for path in [*SCRIPTS, *NOTEBOOKS]:
        assert path.name in readme
