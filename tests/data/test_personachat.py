"""Both formats give one row a speaker; a line that cannot be read is named."""

import csv
import gzip
import json

import pytest

from pal.core.errors import ConfigError, DataError
from pal.data.personachat import load_personachat

BOTH = """\
1 your persona: i like  tea.
2 your persona: i have a dog.
3 partner's persona: i run.
4 hi\thello !\t\tcandidate one|candidate two
5 tea ?\tyes .
1 your persona: i swim.
2 partner's persona: i paint.
3 hey\thi
"""
COLUMNS = ["user 1 personas", "user 2 personas", "Best Generated Conversation"]
TALK = "User 1: Hi!\nUser 2: Hello,\tyou.\n[Later]\n*User 1:* I left.\n* User 2: Bye: then.*"


@pytest.fixture
def write(tmp_path):
    def write(text, name="talks.dat"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def write_csv(tmp_path):
    def write_csv(*records, columns=COLUMNS):
        with (tmp_path / "talks.dat").open("w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows([columns, *records])
        return tmp_path / "talks.dat"

    return write_csv


def test_parlai_gives_a_row_for_each_side(write):
    assert list(load_personachat(write(BOTH))) == [
        {
            "id": "talks-00000-1",
            "utterances": ["hello !", "yes ."],
            "persona": ["i like tea.", "i have a dog."],
        },
        {"id": "talks-00000-2", "utterances": ["hi", "tea ?"], "persona": ["i run."]},
        {"id": "talks-00001-1", "utterances": ["hi"], "persona": ["i swim."]},
        {"id": "talks-00001-2", "utterances": ["hey"], "persona": ["i paint."]},
    ]


def test_parlai_with_one_persona_gives_that_side(write):
    text = "".join(line for line in BOTH.splitlines(keepends=True) if "partner's" not in line)
    dataset = load_personachat(write(text))
    assert dataset["id"][:] == ["talks-00000-1", "talks-00001-1"]
    assert dataset["utterances"][0] == ["hello !", "yes ."]


def test_the_csv_gives_a_row_for_each_user(write_csv):
    path = write_csv(
        ["I left.\nI sing.", "I stay.", TALK], ["A.", "B.", "User 2: Hm.\nUser 1: Oh."]
    )
    first, second, *others = load_personachat(path)
    assert first == {
        "id": "talks-00000-1",
        "utterances": ["Hi!", "I left."],
        "persona": ["I left.", "I sing."],
    }
    assert second == {
        "id": "talks-00000-2",
        "utterances": ["Hello, you.", "Bye: then."],
        "persona": ["I stay."],
    }
    assert [row["utterances"] for row in others] == [["Oh."], ["Hm."]]


def test_excels_line_names_the_separator_of_the_csv(write):
    text = f'{";".join(COLUMNS)}\nA;B;"{TALK}"\n;;"{TALK}"\n'
    with pytest.raises(DataError, match="line 8: a conversation without persona"):
        load_personachat(write(f"sep=;\n{text}"))
    with pytest.raises(DataError, match="names ',' as the separator, and the header has ';'"):
        load_personachat(write(f"sep=,\n{text}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"talks.dat: the file is empty"),
        (BOTH + "no number\n", r"talks.dat, line 9: expected a turn number first, got 'no number'"),
        ("your persona: i swim.\n", r"line 1: expected a turn number first, got 'your persona"),
        (BOTH + "4 no tab\n", r"talks.dat, line 9: an utterance line without TAB, got 'no tab'"),
        (BOTH + "1 hi\tho\n", r"talks.dat, line 9: a conversation without persona; give a file"),
        (BOTH + "1 your persona: i swim.", r"line 9: a conversation without utterances"),
        (
            "a,b\n1,2\n",
            r"talks.dat, line 1: neither ParlAI .* nor a CSV .*missing: user 1 pers",
        ),
        (",".join(COLUMNS), r"talks.dat: no conversations;"),
    ],
)
def test_what_cannot_be_read_is_named(write, text, message):
    with pytest.raises(DataError, match=message) as caught:
        load_personachat(write(text))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_in_a_csv_is_named(write_csv, write):
    good = ["A\nB", "C", TALK]  # six lines
    with pytest.raises(DataError, match="line 8: a conversation without persona"):
        load_personachat(write_csv(good, ["", " ", TALK]))
    with pytest.raises(DataError, match="line 8: a conversation without utterances"):
        load_personachat(write_csv(good, ["A", "B", "They talk."]))
    with pytest.raises(DataError, match=r"line 1: neither .*\(missing: user 2 personas\)"):
        load_personachat(write_csv(["A", TALK], columns=[COLUMNS[0], COLUMNS[2]]))
    path = write_csv(good, [], ["", " ", TALK])  # a blank line is no part of the next row
    with pytest.raises(DataError, match="line 9: a conversation without persona"):
        load_personachat(path)
    with pytest.raises(DataError, match="line 2: not valid CSV"):
        load_personachat(write(",".join(COLUMNS) + '\nA,B,"User 1: Hi'))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none.txt: no such file; check the path"):
        load_personachat(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("name", "rows", "utterances"),
    [
        ("valid_self_original_no_cands.txt", 1000, 7801),
        ("Synthetic-Persona-Chat_valid.csv", 2000, 27777),
    ],
)
def test_the_real_files_lose_no_conversation(shared_data, name, rows, utterances):
    dataset = load_personachat(shared_data / "personachat" / name)
    assert len(set(dataset["id"])) == len(dataset) == rows
    assert sum(map(len, dataset["utterances"])) == utterances
    assert min(map(len, dataset["persona"])) > 0


# Other forms.

SILENT = """\
1 your persona: i like tea.
2 partner's persona: i run.
3 __SILENCE__\thello !
4 tea ?\t__SILENCE__
"""
FIELDS = (
    "text:your persona: i like tea.\\nyour persona: i have a dog.\\nhi\tlabels:hello !|hey"
    "\tlabel_candidates:a|b\tepisode_done:False\n"
    "text:tea ?\tlabels:yes .\tepisode_done:True\n\n"
    "text:your persona: i swim.\\npartner's persona: i paint.\\nhey\teval_labels:hi"
    "\tepisode_done:True\n"
)
SELF_ORIGINAL = {
    "train": [
        {
            "personality": ["i like  tea.", "i have a dog."],
            "utterances": [
                {"candidates": ["no", "hello !"], "history": ["hi"]},
                {"candidates": ["x", "yes ."], "history": ["hi", "hello !", "tea ?"]},
            ],
        }
    ],
    "valid": [
        {"personality": ["i swim."],
         "utterances": [{"candidates": ["hi"], "history": ["__SILENCE__"]}]}
    ],
}  # fmt: skip
TEA = (["hello !", "yes ."], ["i like tea.", "i have a dog."])


def rows(path):
    return [(row["utterances"], row["persona"]) for row in load_personachat(path)]


def test_silence_is_no_utterance(write):
    assert rows(write(SILENT)) == [(["hello !"], ["i like tea."]), (["tea ?"], ["i run."])]


def test_parlais_named_fields_are_read(write):
    assert rows(write(FIELDS)) == [TEA, (["hi"], ["i swim."]), (["hey"], ["i paint."])]
    open_end = FIELDS.rsplit("\tepisode_done", 1)[0]
    assert rows(write(open_end)) == rows(write(FIELDS))
    assert load_personachat(write(FIELDS))["id"][:] == [
        "talks-00000-1", "talks-00001-1", "talks-00001-2",
    ]  # fmt: skip


def test_self_original_json_is_read(write):
    assert rows(write(json.dumps(SELF_ORIGINAL))) == [TEA, (["hi"], ["i swim."])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["train"].append(5), "train, conversation 1: expected an object with 'utter"),
        (lambda d: d.update(train={}), "train: expected a list"),
        (lambda d: d["train"][0].pop("personality"), "expected an object with 'personality'"),
        (lambda d: d["train"][0].update(personality="x"), "personality: expected a list"),
        (lambda d: d["train"][0]["utterances"][1].update(history=["other", "hello !", "tea ?"]),
         "conversation 0, utterance 1: 'history' must hold what was said before"),
        (lambda d: d["train"][0]["utterances"][0].update(candidates=[]), "utterance 0: 'history'"),
        (lambda d: d["train"][0]["utterances"][0].update(candidates=[1]), "a list of texts"),
        (lambda d: d["valid"][0].update(personality=[" "]), "valid, conversation 0: a conv"),
    ],
)  # fmt: skip
def test_damaged_json_is_named(write, change, message):
    damaged = json.loads(json.dumps(SELF_ORIGINAL))
    change(damaged)
    with pytest.raises(DataError, match=message) as caught:
        load_personachat(write(json.dumps(damaged)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text:hi\tepisode_done:True", "line 1: expected text:…, a TAB and labels:…"),
        (FIELDS + "labels:x", "line 5: expected text:"),
        ('{"train": [', "not valid JSON"),
        ("1" * 5000 + " hi\tho", "line 1: expected a turn number first"),
        ('"' + ",".join(COLUMNS), "line 1: not valid CSV"),
        (",".join(COLUMNS) + "\nA,B,\"User 1: Hi", "line 2: not valid CSV"),
    ],
)  # fmt: skip
def test_damaged_lines_of_other_forms_are_named(write, text, message):
    with pytest.raises(DataError, match=message) as caught:
        load_personachat(write(text))
    assert "\n" not in str(caught.value)


def test_compressed_files_and_readers_by_name(write, tmp_path):
    (tmp_path / "talks.txt.gz").write_bytes(gzip.compress(BOTH.encode()))
    assert load_personachat(tmp_path / "talks.txt.gz")["id"][0] == "talks-00000-1"
    assert len(load_personachat(write(BOTH), reader="parlai")) == 4
    with pytest.raises(ConfigError, match="unknown reader 'parly'; did you mean 'parlai'"):
        load_personachat(write(BOTH), reader="parly")


def test_what_cannot_be_seen_is_no_text(write):
    text = "1 your persona: i\u200b swim.\n2 your persona: \u200b\n3 \ufeff\thi\u200d\n"
    assert rows(write(text)) == [(["hi"], ["i swim."])]
