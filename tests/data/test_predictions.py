import json
import logging

import pytest

from pal.core.errors import DataError
from pal.data.predictions import PredictionFile, column, read_outside, read_predictions
from pal.data.samples import build_samples
from pal.data.splits import load_split
from pal.data.strategies import STRATEGIES, strategy_id
from tests.jobs import ESCONV


def test_aliases_and_single_strings_are_normalised(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"id": "a", "response": "x", "strategy": "questions", "persona": "I am sad."}\n\n'
        '{"id": "b", "response": "y", "strategy": "Others"}\n'
    )
    records = read_predictions(path)
    assert [record["strategy"] for record in records] == ["Question", "Others"]
    assert column(records, "strategy") == ["Question", "Others"]
    assert column(records, "persona") is None
    assert records[0]["persona"] == ["I am sad."]


@pytest.fixture(scope="module")
def samples():
    return build_samples(load_split(str(ESCONV / "test.jsonl"), None), "evaluation")


@pytest.fixture
def logged(caplog):
    """What the project logs; its logger may no longer pass anything on to pytest's."""
    logger = logging.getLogger("pal")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def spaced(text):
    """As a tokenizer writes it back: lower case, apart, with an unknown token."""
    return " ".join(text.lower().replace("?", " ? ").replace("'", " ' ").split()) + " __unk__"


def authors_rows(samples, text=lambda text: text):
    """Records with the fields and types that the authors' infer.py writes."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(s.dialogue_id for s in samples))}
    return [
        {
            "sample_id": numbers[sample.dialogue_id],
            "post": text(sample.context[-1]["text"]),
            "response": text(sample.response),
            "generation": f"answer to {sample.id}",
            "persona": "i am a flight attendant .",
            "pred_strat_id": strategy_id(sample.strategy),
            "pred_strat_id_top1": [strategy_id(sample.strategy)],
            "pred_strat_id_top3": [0, 1, 2, 3, 4],
            "pred_strat_id_dist": " ".join(["0.125"] * 8),
            "token_num": 9,
            "loss": 2.5,
            "ppl": 12.2,
        }
        for sample in samples
    ]


def test_records_with_ids_in_any_order(tmp_path, samples):
    rows = [{"id": s.id, "response": s.id, "strategy": "greeting"} for s in samples]
    rows[0] |= {"persona": "My own.", "reference": spaced(samples[0].response)}
    for name, value in {"a.jsonl": lines(rows[::-1]), "a.json": rows[::-1]}.items():
        records = read_outside(write(tmp_path / name, value), samples)
        assert [record["id"] for record in records] == [sample.id for sample in samples]
        assert [record["response"] for record in records] == [sample.id for sample in samples]
        assert records[0]["persona"] == ["My own."]
        assert records[1]["persona"] == list(samples[1].persona)
        assert column(records, "reference") == [sample.response for sample in samples]
        assert column(records, "reference_strategy") == [sample.strategy for sample in samples]
        assert set(column(records, "strategy")) == {"Others"}


def test_missing_extra_and_foreign_records(tmp_path, samples):
    rows = [{"id": sample.id, "response": "x"} for sample in samples]

    def message(rows):
        with pytest.raises(DataError) as caught:
            read_outside(write(tmp_path / "a.jsonl", lines(rows)), samples)
        assert str(tmp_path / "a.jsonl") in str(caught.value)
        return str(caught.value)

    found = message(rows[5:])
    assert "no response for 5 ids" in found
    assert repr(samples[0].id) in found
    assert " …" in found
    assert "no sample has 1 id ('other/1')" in message([*rows, {"id": "other/1", "response": ""}])
    assert "already occurred on line 1" in message([rows[0], *rows])
    found = message([{**row, "reference": "Something else entirely."} for row in rows])
    assert f"id {samples[0].id!r}: its reference 'Something else" in found
    assert "input" in found
    few = samples[0].response[:3]  # letters that are all there, but too few of them
    assert "its reference" in message([{**rows[0], "reference": few}, *rows[1:]])


@pytest.mark.parametrize("name", ["gen.json", "gen.txt"])
def test_the_authors_file(tmp_path, samples, name):
    rows = authors_rows(samples, spaced)
    rows = rows[7:] + rows[:7]  # begins in the midst of the test set: 7 is the first dialogue's end
    assert rows[0]["sample_id"] != rows[-1]["sample_id"]
    path = write(tmp_path / name, rows if name == "gen.json" else lines(rows))
    records = read_outside(path, samples)
    assert [record["response"] for record in records] == [f"answer to {s.id}" for s in samples]
    assert column(records, "strategy") == [sample.strategy for sample in samples]
    assert records[0]["strategy_probs"] == dict.fromkeys(STRATEGIES, 0.125)
    assert records[0]["reference"] == samples[0].response
    assert records[0]["persona"] == list(samples[0].persona)


def test_several_generations_the_first_counts(tmp_path, samples):
    rows = authors_rows(samples)
    for row in rows:
        row["generation"] = ["first", "second"]
    assert read_outside(write(tmp_path / "gen.json", rows), samples)[3]["response"] == "first"


def test_another_split_of_the_authors_cannot_pass(tmp_path, samples):
    other = build_samples(load_split(str(ESCONV / "validation.jsonl"), None), "evaluation")
    with pytest.raises(DataError, match="record 1: the dialogue that starts here") as caught:
        read_outside(write(tmp_path / "gen.json", authors_rows(other)), samples)
    assert "is not among the samples; found before it: 0 dialogues" in str(caught.value)
    mixed = [s for s in samples if s.dialogue_id != samples[0].dialogue_id]
    with pytest.raises(DataError, match=f"not in it: 1 dialogue of .*{samples[0].dialogue_id}"):
        read_outside(write(tmp_path / "gen.json", authors_rows(mixed)), samples)
    swapped = authors_rows(samples)
    swapped[2]["response"], swapped[3]["response"] = (
        swapped[3]["response"], swapped[2]["response"],
    )  # fmt: skip
    with pytest.raises(DataError, match="record 1: the dialogue"):
        read_outside(write(tmp_path / "gen.json", swapped), samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred_strat_id": True}, "'pred_strat_id' must be 0 to 7, got True"),
        ({"generation": None}, "record 2: 'generation' must be a string"),
        ({"response": 3}, "record 2: 'response' must be a string"),
        ({"pred_strat_id": 8}, "'pred_strat_id' must be 0 to 7, got 8"),
        ({"pred_strat_id_dist": "0.5 0.5"}, "'pred_strat_id_dist' must be 8 numbers"),
    ],
)
def test_broken_records_of_the_authors_form(tmp_path, samples, change, message):
    rows = authors_rows(samples)
    rows[1] |= change
    with pytest.raises(DataError, match=message):
        read_outside(write(tmp_path / "gen.json", rows), samples)


def test_their_real_tokenizer_on_the_whole_test_set(tmp_path, shared_data):
    from transformers import BlenderbotSmallTokenizer

    tokenizer = BlenderbotSmallTokenizer.from_pretrained(shared_data / "blenderbot_small_tokenizer")
    samples = build_samples(load_split(str(shared_data / "esconv"), "test"), "evaluation")

    def through(text):  # thu-coai/Emotional-Support-Conversation decodes its references
        return tokenizer.decode(tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)))

    rows = authors_rows(samples)
    for row in rows:
        row["response"] = through(row["response"])
    assert sum("__unk__" in row["response"] for row in rows) > 10
    rows.sort(key=lambda row: -row["sample_id"])
    records = read_outside(write(tmp_path / "gen.json", rows), samples)
    assert [record["response"] for record in records] == [f"answer to {s.id}" for s in samples]


def test_hypotheses_as_misc_writes_them(tmp_path, samples, logged):
    hypotheses = write(tmp_path / "hyp_strategy.json", [f"answer {s.id}" for s in samples])
    references = write(tmp_path / "ref_strategy.json", [spaced(s.response) for s in samples])
    write(
        tmp_path / "strategy_record.json",
        [{"ref strategy": "[Question]", "hyp strategy": f"[{s.strategy}]"} for s in samples],
    )
    records = read_outside(hypotheses, samples)
    assert [record["response"] for record in records] == [f"answer {s.id}" for s in samples]
    assert column(records, "strategy") == [sample.strategy for sample in samples]
    assert not logged.records

    led = [f"[{s.strategy.lower()}] answer [sic] {s.id}" for s in samples]
    records = read_outside(write(hypotheses, led), samples)
    assert records[1]["response"] == f"answer [sic] {samples[1].id}"
    assert column(records, "strategy") == [sample.strategy for sample in samples]

    turned = [spaced(s.response) for s in samples]
    turned[4], turned[5] = turned[5], turned[4]
    write(references, turned)
    with pytest.raises(DataError, match=r"ref_strategy.json, record 5: its reference") as caught:
        read_outside(hypotheses, samples)
    assert samples[4].id in str(caught.value)
    write(references, turned[:-1])
    with pytest.raises(DataError, match=f"{len(samples) - 1} records for {len(samples)} samples"):
        read_outside(hypotheses, samples)


def test_plain_lines_are_taken_on_trust_and_said_so(tmp_path, samples, logged):
    texts = [f"[Question] line {number}" for number in range(len(samples))]
    texts[2] = "[laughs] line 2"
    texts[3] = ""
    records = read_outside(write(tmp_path / "out.txt", "\r\n".join(texts) + "\r\n"), samples)
    assert [r["response"] for r in records[:4]] == ["line 0", "line 1", "[laughs] line 2", ""]
    assert records[0]["strategy"] == "Question"
    assert "order is assumed to be" in logged.text
    assert f"{len(samples) - 2} of {len(samples)} responses start with" in logged.text
    with pytest.raises(DataError, match="records for"):
        read_outside(write(tmp_path / "out.txt", "one\ntwo\n"), samples)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[1, 2", "not valid JSON"),
        ("a.json", '"text"', "expected a list of responses, got 'text'"),
        ("a.jsonl", "hello\n", "line 1: not valid JSON"),
        ("a.txt", '{"id": "a"\n', "line 1: not valid JSON"),
        ("a.json", "[1]", "record 1: expected an object, got int"),
        ("a.json", '["x", 2]', "record 2: expected a string as before, got 2"),
        ("a.json", '[{"generation": "x", "response": "y"}]', "record 1: 'sample_id' is missing"),
        (
            "a.json",
            '[{"id": "a", "text": "y"}]',
            "record 1: missing key 'response'; it has 'id', 'text'",
        ),
        ("a.json", "[]", "an empty list; give at least one record"),
        ("a.jsonl", '[{"id": "a"},\n {"id": }]', "line 2: not valid JSON"),
        ("a.json", '{"predictions": [{"id": "a"}]}', "one object with the keys 'predictions'"),
        ("a.jsonl", '{"id": "a", "id": "b"}\n{}', "line 1: not valid JSON .the key 'id' occurs"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.jsonl", '{"id": "a", "response": NaN}', "line 1: not valid JSON"),
        ("a.csv", "id,text\n1,x\n", "without the columns 'id' and 'response' .found: 'id', 'text'"),
        ("a.csv", "id,response\n", "a header but no rows"),
        ("a.csv", 'id,response\n1,"open\n2,x\n', "line 2: not valid CSV"),
        ("a.csv", "id,response\n1,well, then\n", "line 2: expected 2 cells, .* got 3; complete"),
        ("a.csv", 'id,response,persona\n\n1,"a\nb",[oops\n', "line 3: 'persona': not valid"),
        ("a.csv", "id,response,response\n1,a,b\n", "the column 'response' occurs twice"),
        ("a.csv", "id,Response,response\n1,a,b\n", "the column 'Response' occurs twice"),
        ("a.csv", ",,,\n", "a header but no rows"),
        ("a.tsv", "id\tresponse\tpersona\n1\ta\t[oops\n", "line 2: 'persona': not valid JSON"),
        (
            "a.csv",
            "id,response\n1," + "x" * 140_000 + "\n",
            "line 2: a cell of more than 131,072 characters; close its quotes",
        ),
        ("a.txt", "", "the file is empty"),
    ],
)
def test_files_of_no_form(tmp_path, samples, name, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_outside(write(tmp_path / name, text), samples)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


GIVEN = [
    {
        "id": "a/1", "response": 'She said "no", then\nleft.', "reference": "Oh, no;\tno.",
        "strategy": "Question", "reference_strategy": "Others", "strategy_from": "model",
        "persona": ["I am sad.", "It's over."],
        "strategy_probs": dict.fromkeys(STRATEGIES, 0.125),
    },
    {"id": "a/3", "response": "", "persona": []},
]  # fmt: skip


def as_table(rows, delimiter=",", nested=json.dumps, extra=True):
    """A table as spreadsheets and pandas write it, with an index and a column that is not ours."""
    import csv
    import io

    names = list(rows[0])
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow([*([""] if extra else []), *map(str.title, names), *(["score"] * extra)])
    for number, row in enumerate(rows):
        cells = [row.get(name, "") for name in names]
        cells = [nested(cell) if isinstance(cell, list | dict) else cell for cell in cells]
        writer.writerow([*([number] if extra else []), *cells, *(["0.5"] * extra)])
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lines.jsonl", lines(GIVEN)),
        ("lines.txt", lines(GIVEN)),
        ("list.json", json.dumps(GIVEN)),
        ("list.jsonl", json.dumps(GIVEN)),
        ("indented.json", json.dumps(GIVEN, indent=2)),
        ("indented.jsonl", "\n" + json.dumps(GIVEN, indent=4)),
        ("table.csv", as_table(GIVEN)),
        ("table", as_table(GIVEN, extra=False)),
        ("semicolons.csv", as_table(GIVEN, ";")),
        ("table.tsv", as_table(GIVEN, "\t")),
        ("pandas.csv", as_table(GIVEN, nested=str)),
        ("excel.csv", "\ufeff" + as_table(GIVEN)),
        ("german_excel.csv", "\ufeffsep=;\n" + as_table(GIVEN, ";")),
        ("excel.txt", "sep=;\n" + as_table(GIVEN, ";")),
        ("bars", "sep=|\n" + as_table(GIVEN, "|")),
    ],
)
def test_one_content_in_many_forms(tmp_path, name, text):
    records = read_predictions(write(tmp_path / name, text))
    for record, given in zip(records, GIVEN, strict=True):
        assert {key: record[key] for key in given} == given
        assert not any(record.get(key) for key in GIVEN[0].keys() - given.keys())
    assert PredictionFile(tmp_path / name).has_ids


def test_a_single_record_is_a_file_too(tmp_path):
    text = json.dumps(GIVEN[0], indent=2)
    assert [row["id"] for row in read_predictions(write(tmp_path / "a.json", text))] == ["a/1"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-3, "-3"), (True, "True"), ("0.5", "'0.5'"), (None, "None"), (2.0, "2.0"), ([1], "[1]")],
)
def test_probabilities_that_are_none(tmp_path, samples, value, shown):
    probs = dict.fromkeys(STRATEGIES, 0.125) | {"Information": value}
    rows = [{"id": "a", "response": "x"}, {"id": "b", "response": "x", "strategy_probs": probs}]
    with pytest.raises(DataError) as caught:
        read_predictions(write(tmp_path / "a.jsonl", lines(rows)))
    message = str(caught.value)
    assert "a.jsonl, line 2: 'strategy_probs' of 'Information' must be a number from 0" in message
    assert f"got {shown}" in message
    assert "leave 'strategy_probs' out" in message
    for word in ("-3", "nan", "inf"):
        theirs = authors_rows(samples)
        theirs[4]["pred_strat_id_dist"] = " ".join([word, *["0.125"] * 7])
        with pytest.raises(DataError, match="record 5: 'pred_strat_id_dist' of 'Question' must be"):
            read_outside(write(tmp_path / "gen.json", theirs), samples)


def test_other_fields_of_the_wrong_kind_are_named_with_their_line(tmp_path):
    for field, value in (("reference", 3), ("strategy_from", "x"), ("strategy", 1), ("id", 1)):
        row = {"id": "a", "response": "x", field: value}
        with pytest.raises(DataError, match=f"line 1: .*{field}"):
            read_predictions(write(tmp_path / "a.jsonl", lines([row, row])))
