"""Answer the dialogues of a CSV file, and write the answers beside its rows.

    python examples/answer_csv.py talks.csv runs/talks seed=7 model=runs/mine_model

The CSV has a turn a row: dialogue, speaker (seeker or supporter), text, and what else you keep. The
next turn of every dialogue is answered; with a column `strategy`, each supporter turn behind one of
a seeker. Arguments with `annotate.` or `data.` are settings of `pal annotate`, others of generate.
"""

import argparse
import csv
from collections import Counter
from pathlib import Path

import pal
from pal.commands.annotate import annotate
from pal.commands.generate import generate
from pal.core.errors import DataError, PalError
from pal.core.files import atomic_writer, read_jsonl
from pal.core.runtime import show_messages
from pal.data.corpora import CorpusFile
from pal.data.corpora.tables import TableReader, find_columns
from pal.data.texts import normalise_text

ADDED = {"persona": "pal_persona", "strategy": "pal_strategy", "response": "pal_response"}


def read_table(path, names):
    """Return the rows as the commands read them, and the name of the column `dialogue`."""
    rows = [row for _, row in TableReader().read(CorpusFile(path, ".csv"))]
    columns = find_columns(rows[0], names, path) if rows else None
    if not columns:
        raise DataError(f"{path}: expected a CSV with the columns dialogue, speaker and text")
    return rows, columns["dialogue"]


def join(rows, column, answers):
    """Give every row the answer to the turns up to it; return the number of answers."""
    turns: Counter[str] = Counter()
    for row in rows:
        dialogue = normalise_text(row[column])
        turns[dialogue] += 1  # an answer's id says which turn it is, counted from 0
        if found := answers.get(f"{dialogue}/{turns[dialogue]}"):
            found["persona"] = " | ".join(found["persona"])
            row |= {name: found[key] for key, name in ADDED.items()}
    return sum("pal_response" in row for row in rows)


def main(table, folder, extractor, overrides):
    """Infer personas, answer, join; what is done already is not done again."""
    pal.configure_runtime()
    show_messages()  # what the commands report, on standard error
    pesconv, responses = folder / "pesconv.jsonl", folder / "responses.jsonl"
    first = [one for one in overrides if one.startswith(("annotate.", "data.", "overwrite="))]
    given = [f"model={extractor}", f"input={table}", f"output={pesconv}", *first]
    infer = pal.load_settings(None, given, command="annotate")
    then = [one for one in overrides if not one.startswith(("annotate.", "data."))]
    given = ["model=runs/quickstart/model", f"input={pesconv}", f"output={responses}", *then]
    reply = pal.load_settings(None, given, command="generate")
    annotate(infer)  # begins when all settings are known to be right
    generate(reply)
    rows, column = read_table(table, infer.data.columns.model_dump())
    added = join(rows, column, {row["id"]: row for _, row in read_jsonl(responses)})
    with atomic_writer(folder / "answered.csv", private=True) as file:  # it holds people's words
        writer = csv.DictWriter(file, dict.fromkeys([*rows[0], *ADDED.values()]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{added} answer{'' if added == 1 else 's'} in {folder / 'answered.csv'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", help="the CSV file")
    parser.add_argument("folder", type=Path, help="of the outputs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
    parser.add_argument("--extractor", default="runs/quickstart/extractor", help="of personas")
    try:
        main(**vars(parser.parse_intermixed_args()))
    except PalError as error:  # a mistake in what was given: one line
        parser.exit(2, f"{parser.prog}: error: {error}\n")
