"""Runs commands on damaged files: each ends well or is refused in one line."""

import contextlib
import io
import json
import logging
import random
import shutil
from pathlib import Path

from pal.core.files import parse_json
from tests.campaign.conftest import SEED
from tests.campaign.mutations import damage_text, damage_values, dump
from tests.jobs import command


def check_refusal(error, number):
    message = str(error)
    assert "\n" not in message, f"input {number}: {message!r}"
    assert 10 < len(message) < 3000, f"input {number}: {len(message)} characters"


def damaged(path, rng):
    """Return the damaged contents of a file, by its kind."""
    contents = path.read_bytes()
    kind = rng.randrange(4)
    if path.suffix == ".safetensors" and kind:  # its header, which a random place seldom hits
        return damage_text(contents[:2000], rng) + contents[2000:]
    if path.suffix in (".json", ".jsonl") and kind:
        records = [json.loads(line) for line in contents.splitlines()] if (
            path.suffix == ".jsonl"
        ) else [json.loads(contents)]  # fmt: skip
        lines = [dump(record, rng) for record in damage_values(records, rng)]
        contents = "\n".join(lines).encode("utf-8", "surrogatepass")
    return contents if kind > 1 and path.suffix.startswith(".json") else damage_text(contents, rng)


def run_quietly(arguments):
    """Run a command and return its exit code and what it said on standard error."""
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(told):
        code = command(*arguments)
    return code, said.getvalue()


def check_sound(place):
    """JSON that was written is strict JSON, and nothing is half written."""
    for path in filter(Path.is_file, [place, *place.rglob("*")]):
        if path.suffix == ".json":
            parse_json(path.read_text())
        if path.suffix == ".jsonl":
            for line in path.read_text().splitlines():
                parse_json(line)
    assert not [path for path in place.parent.rglob("*") if ".tmp" in path.name]


def run_damaged(made, numbers, folder, tally):
    logging.disable(logging.WARNING)
    out = folder / "out"
    names = list(made)
    try:
        for number in numbers:
            rng = random.Random(f"{SEED} command {number}")
            name = names[number % len(names)]
            call, reads, output = made[name]
            path = rng.choice(reads)
            whole = path.read_bytes()
            place = out / output
            try:
                path.write_bytes(damaged(path, rng))
                code, said = run_quietly([*call, f"output={place}"])
                assert code in (0, 2), (code, said)
                if code == 2:
                    assert said.count("pal: error: ") == 1, said
                    last = said.rstrip("\n").split("\n")[-1]
                    assert last.startswith("pal: error: "), said
                    assert 20 < len(last) < 3000, len(last)
                else:
                    check_sound(place)
                tally["inputs"] += 1
                tally["read" if code == 0 else "refused"] += 1
            except BaseException as error:
                kept = folder / f"{number}-{path.name}"
                shutil.copy(path, kept)
                raise AssertionError(f"input {number}: {name} on {kept}: {error!r}") from error
            finally:
                path.write_bytes(whole)
                shutil.rmtree(out, ignore_errors=True)
    finally:
        logging.disable(logging.NOTSET)
