from pal.evaluation.predictions import column, read_predictions


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
