"""``pal analyze`` as a user runs it, and what it says of personas."""

import json

import pytest

from pal.benchmark.persona_analysis import analyze_personas
from pal.data.esconv import load_esconv
from pal.data.strategies import STRATEGIES
from tests.jobs import ESCONV, command

BLIND = "metrics.embedder=null"


@pytest.fixture(scope="module")
def pesconv(tmp_path_factory):
    """The bundled test dialogues, each seeker turn's first words as the persona after it."""
    path = tmp_path_factory.mktemp("personas") / "test.jsonl"
    rows = [json.loads(line) for line in (ESCONV / "test.jsonl").read_text().splitlines()]
    for row in rows[1:]:  # the first dialogue has none
        known = []
        for index, turn in enumerate(row["dialog"]):
            if turn["speaker"] == "usr" and index > 1:
                known = [*known, " ".join(turn["text"].split()[:5])]
            turn["persona"] = known
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "words.vec"
    words = {"i": "1 0 0", "you": "0 1 0", ".": "1 1 0", "feel": "0 0 1", "my": "1 0 1"}
    lines = [f"{word} {numbers} \n" for word, numbers in words.items()]
    path.write_text(f"{len(words)} 3\n{''.join(lines)}")
    return path


@pytest.fixture(scope="module")
def predictions(pesconv, tmp_path_factory):
    from pal.data.samples import build_samples

    path = tmp_path_factory.mktemp("systems") / "echo.jsonl"
    records = [
        {
            "id": sample.id, "response": "I feel you.", "reference": sample.response,
            "reference_strategy": sample.strategy, "strategy": "Question",
            "strategy_probs": {name: 1 / (1 + i) for i, name in enumerate(STRATEGIES)},
            "persona": sample.persona,
        }
        for sample in build_samples(load_esconv(pesconv), "evaluation")
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_all_parts_from_files(pesconv, vectors, predictions, tmp_path, capsys, caplog):
    output = tmp_path / "out" / "analysis.json"
    arguments = [
        "analyze", f"input={pesconv}", f"analyze.systems={{echo: {predictions}}}",
        f"analyze.word_vectors={vectors}", f"output={output}",
    ]  # fmt: skip
    assert command(*arguments) == 0
    summary = capsys.readouterr().out
    analysis = json.loads(output.read_text())
    assert (analysis["kind"], analysis["format"]) == ("analysis", 1)
    assert analysis["title"] == "Analysis of test.jsonl"
    similarity = analysis["similarity"]
    assert similarity["embedder"] == "words.vec"
    dialogues = len(load_esconv(pesconv))
    left_out = similarity["without_survey"] + similarity["without_persona"]
    assert similarity["dialogues"] + left_out == dialogues
    assert similarity["without_persona"] == 1
    empathy = similarity["scores"]["empathy"]
    assert sum(level["n"] for level in empathy["levels"]) == empathy["n"] == len(empathy["points"])
    assert analysis["personas"]["with_persona"] == dialogues - 1
    system = analysis["strategies"]["systems"]["echo"]
    assert system["top"][0] == pytest.approx(
        100 * analysis["strategies"]["gold"]["Question"] / system["n"]
    )
    assert system["top"][7] == 100
    assert any(row["cos_sim"] is not None for row in system["per_strategy"])
    assert analysis["run"]["command"] == "analyze"
    record = json.loads((output.parent / "analysis.json.run.json").read_text())
    sizes = {
        name: (output.parent / name).stat().st_size for name in ("analysis.json", "analysis.md")
    }
    assert record == {**analysis["run"], "bytes": sizes}
    for heading in ("## Similarity", "## Strategies", "## Personas"):
        assert heading in summary
    assert output.with_suffix(".md").read_text().strip() == summary.strip()
    assert "nan" not in summary

    # The same again is found finished; other settings are refused.
    before = output.stat().st_mtime_ns
    assert command(*arguments) == 0
    assert output.stat().st_mtime_ns == before
    assert capsys.readouterr().out == summary
    assert command(*arguments, "statistics.confidence=0.9") == 2
    assert "overwrite=true" in capsys.readouterr().err


def test_parts_that_cannot_be_are_null(pesconv, predictions, tmp_path, capfd):
    """No embedder; no personas but responses; responses alone."""
    output = tmp_path / "a.json"
    assert command("analyze", f"input={pesconv}", BLIND, f"output={output}") == 0
    analysis = json.loads(output.read_text())
    assert analysis["similarity"] is analysis["strategies"] is None
    assert analysis["personas"]["with_persona"] > 0
    assert "give metrics.embedder" in capfd.readouterr().err

    systems = f"analyze.systems={{echo: {predictions}}}"
    for source in ([f"input={ESCONV}", "split=test"], []):
        assert command("analyze", *source, systems, BLIND) == 0
        captured = capfd.readouterr()
        assert "## Strategies" in captured.out
        assert "## Personas" not in captured.out
        assert "no analysis of personas and similarity" in captured.err
        assert "embedder" not in captured.err  # that is not what is missing


def test_mistakes(predictions, tmp_path, capsys):
    assert command("analyze", BLIND) == 2
    assert "give input=… or analyze.systems=" in capsys.readouterr().err
    # The bundled corpus holds no personas; the encoder's absence is not the trouble then.
    assert command("analyze", f"input={ESCONV / 'test.jsonl'}") == 2
    error = capsys.readouterr().err
    assert "test.jsonl: nothing to analyse: no turn has a persona" in error
    assert "pal annotate" in error
    systems = f"analyze.systems={{echo: {predictions}}}"
    assert command("analyze", systems, BLIND, f"output={tmp_path / 'a.md'}") == 2
    assert "give a .json name" in capsys.readouterr().err
    assert command("analyze", systems, BLIND, "analyze.word_vectors=missing.vec") == 2
    assert "missing.vec: cannot be read" in capsys.readouterr().err


def test_several_processes_are_refused(predictions, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command("analyze", f"analyze.systems={{echo: {predictions}}}") == 2
    assert "one process" in capsys.readouterr().err


def turns(*personas):
    """Turns of seeker and supporter in turn, with the persona known after each."""
    return [
        {"speaker": speaker, "text": "text", "strategy": "Others", "persona": list(persona)}
        for persona, speaker in zip(personas, ["usr", "sys"] * len(personas), strict=False)
    ]


def test_personas_by_hand(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = [
        # Table 1: the third utterance gives the first sentence, the fifth the second.
        {"dialog": turns("", "", "p", "p", "pq", "pq")},
        {"dialog": turns("", "", "", "", "p", "p")},
        {"dialog": turns("", "")},
    ]
    # A supporter turn after a supporter turn is none that evaluation answers.
    rows[0]["dialog"].append({**rows[0]["dialog"][-1]})
    path.write_text("\n".join(map(json.dumps, rows)))
    found = analyze_personas(load_esconv(path))
    assert (found["dialogues"], found["with_persona"]) == (3, 2)
    assert found["sentences"] == {
        "mean": 1, "sd": 1, "median": 1, "max": 2, "histogram": [[0, 1], [1, 1], [2, 1]],
    }  # fmt: skip
    assert found["first_turn"] == {"mean": 4, "median": 4, "histogram": [[3, 1], [5, 1]]}
    # Turns 2, 4, 6: known before them in none of three, one of two, two of two.
    assert found["coverage"] == {
        "turns": 7, "with_persona": 3, "by_turn": [[2, 0], [4, 0.5], [6, 1]],
    }  # fmt: skip


def test_a_persona_of_the_whole_conversation_is_known_at_no_turn(tmp_path, caplog):
    path = tmp_path / "p.jsonl"
    dialog = [{key: turn[key] for key in ("speaker", "text", "strategy")} for turn in turns("", "")]
    path.write_text(json.dumps({"dialog": dialog, "persona": "<input>I am sad."}))
    with caplog.at_level("WARNING"):
        assert analyze_personas(load_esconv(path)) is None
    assert "no turn of the 1 dialogues has a persona" in caplog.text


def test_a_word_vector_file_takes_the_place_of_the_encoder(pesconv, vectors, tmp_path):
    from pal.metrics import compute_metrics
    from pal.metrics.base import Predictions
    from pal.metrics.similarity import load_word_vectors

    output = tmp_path / "a.json"
    call = ["analyze", f"input={pesconv}", f"analyze.word_vectors={vectors}", f"output={output}"]
    assert command(*call, "metrics.embedder=no/encoder") == 0  # which is not loaded
    similarity = json.loads(output.read_text())["similarity"]
    assert similarity["embedder"] == "words.vec"
    points = {tuple(point) for point in similarity["scores"]["empathy"]["points"]}
    row = next(row for row in load_esconv(pesconv) if row["dialog"][-1]["persona"])
    pairs = [
        (turn["text"], list(before["persona"]))
        for before, turn in zip(row["dialog"], row["dialog"][1:], strict=False)
        if turn["speaker"] == "supporter" and before["persona"]
    ]
    responses, personas = map(list, zip(*pairs, strict=True))
    expected = compute_metrics(
        Predictions(responses, personas=personas, embedder=load_word_vectors(vectors)), ["cos_sim"]
    ).values["cos_sim"]
    assert any(value == pytest.approx(expected) for _, value in points)


def test_without_a_network_the_default_encoder_costs_similarity_alone(
    pesconv, predictions, tmp_path, capfd
):
    systems = f"analyze.systems={{echo: {predictions}}}"
    output = tmp_path / "a.json"
    assert command("analyze", f"input={pesconv}", systems, f"output={output}") == 0
    (line,) = [
        line for line in capfd.readouterr().err.splitlines() if "cos_sim is left out" in line
    ]
    assert "metrics.embedder=" in line
    analysis = json.loads(output.read_text())
    assert analysis["similarity"] is None
    assert analysis["personas"]["with_persona"] > 0
    assert analysis["strategies"]["systems"]["echo"]["per_strategy"][0]["bleu_2"] is not None
    assert command("analyze", f"input={pesconv}", "metrics.embedder=some/encoder") == 2
    assert "some/encoder: cannot load" in capfd.readouterr().err


def test_given_strategies_are_no_predictions(predictions, tmp_path, capfd):
    records = [json.loads(line) for line in predictions.read_text().splitlines()]
    path = tmp_path / "given.jsonl"
    path.write_text("\n".join(json.dumps({**row, "strategy_from": "given"}) for row in records))
    output = tmp_path / "a.json"
    systems = f"analyze.systems={{given: {path}}}"
    assert command("analyze", systems, BLIND, f"output={output}") == 0
    assert "given: no accuracy (the strategies were given" in capfd.readouterr().err
    system = json.loads(output.read_text())["strategies"]["systems"]["given"]
    assert system["top"] is system["confusion"] is None
    assert system["per_strategy"][0]["recall"] is None
    assert system["per_strategy"][0]["bleu_2"] is not None
