"""What commands keep for themselves, damaged: records of runs, journals, caches of answers.

    pytest tests/campaign/test_fuzz_records.py                # about 400 inputs
    pytest -m campaign tests/campaign/test_fuzz_records.py    # 6,000; PAL_FUZZ changes it

Nothing that a disk or a hand has changed is taken for a result: a unit of work comes back as it
was written or is done again, an answer as it was given or is asked for again, and a record of other
work protects the output beside it.
"""

import contextlib
import json
import os
import random
import shutil
import sqlite3

import pytest

from pal.core.errors import OutputError, PalError
from pal.core.job import record_beside
from pal.core.journal import Journal
from pal.llm import connect
from tests.campaign.commands import write_rows
from tests.campaign.conftest import SEED
from tests.campaign.damaging import check_refusal, run_quietly
from tests.campaign.mutations import damage_one, damage_text, dump
from tests.jobs import ESCONV
from tests.llm.server import FakeServer
from tests.llm.test_client import answer, question, settings_for

QUICK = 100
MANY = int(os.environ.get("PAL_FUZZ", "6000")) // 3
UNITS = {str(n): {"text": f"unit {n} is no other", "numbers": [n, n / 7]} for n in range(12)}


def read_damaged_journals(numbers, folder, tally):
    journal = Journal(folder / "out.jsonl", "identity")
    for key, value in UNITS.items():
        journal.append(key, value)
    journal.close()
    whole = journal.path.read_bytes()
    for number in numbers:
        rng = random.Random(f"{SEED} journal {number}")
        journal.path.write_bytes(damage_text(whole, rng))
        tally["inputs"] += 1
        try:
            found = journal.read()
        except OutputError as error:
            check_refusal(error, number)
            tally["refused"] += 1
            continue
        assert all(UNITS[key] == value for key, value in found.items()), number
        for key, place in journal.places().items():
            assert journal.fetch(key, place) == UNITS[key], number
        for key in UNITS.keys() - found.keys():
            journal.append(key, UNITS[key])
        journal.close()
        assert journal.read() == UNITS, number
        tally["read"] += 1


def test_a_damaged_journal_gives_what_was_written_or_nothing(tmp_path, tally):
    read_damaged_journals(range(QUICK), tmp_path, tally)
    assert tally["read"] > QUICK // 4


@pytest.mark.campaign
def test_many_damaged_journals(tmp_path, tally):
    read_damaged_journals(range(MANY), tmp_path, tally)


# ----------------------------------------------------------------------------- records


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Outputs of a command that writes a file, and of one that writes a folder."""
    folder = tmp_path_factory.mktemp("finished")
    rows = [json.loads(line) for line in (ESCONV / "test.jsonl").read_text().splitlines()[:2]]
    for row in rows:
        for turn in row["dialog"]:
            turn["persona"] = ["I fly."]
    write_rows(folder / "pes.jsonl", rows)
    calls = {
        "sheets": ["human-eval", "personas", f"input={folder / 'pes.jsonl'}", "human_eval.items=4",
                   f"output={folder / 'sheets'}"],
        "table.json": ["audit", f"data.train={folder / 'pes.jsonl'}",
                       f"output={folder / 'table.json'}"],
    }  # fmt: skip
    for call in calls.values():
        assert run_quietly(call)[0] == 0
    return folder, calls


def run_beside_damaged_records(finished, numbers, tally):
    folder, calls = finished
    for number in numbers:
        rng = random.Random(f"{SEED} record {number}")
        name = list(calls)[number % len(calls)]
        output = folder / name
        record = output / "run.json" if output.is_dir() else folder / f"{name}.run.json"
        whole = record.read_bytes()
        made = json.loads(whole)
        contents = dump(damage_one(made, rng), rng).encode("utf-8", "surrogatepass")
        record.write_bytes(damage_text(whole, rng) if number % 3 == 0 else contents)
        try:
            found = record_beside(output)
            assert isinstance(found, dict)
            code, said = run_quietly(calls[name])
            tally["inputs"] += 1
            tally["read" if code == 0 else "refused"] += 1
            assert "Traceback" not in said, number
            if code == 0:  # then it says that this very run made what is there
                assert found.get("identity") == made["identity"], number
            else:
                assert code == 2, number
                assert said.count("pal: error: ") == 1, (number, said)
                assert len(said) < 3000, number
        finally:
            record.write_bytes(whole)
    (folder / "table.json.run.json").write_text("[1]")
    assert run_quietly(calls["table.json"])[0] == 2
    assert run_quietly([*calls["table.json"], "overwrite=true"])[0] == 0


def test_a_damaged_record_protects_its_output(finished, tally):
    run_beside_damaged_records(finished, range(QUICK), tally)
    assert tally["refused"] > QUICK // 10


@pytest.mark.campaign
def test_many_damaged_records(finished, tally):
    run_beside_damaged_records(finished, range(MANY), tally)


# ----------------------------------------------------------------------------- answers


def ask_of_damaged_caches(numbers, folder, tally):
    requests = [question(n) for n in range(30)]
    right = [{"answer": n % 5 + 1} for n in range(30)]
    with FakeServer(answer) as server:
        settings = settings_for(folder, server.url)
        connect(settings.llm).ask(requests, description="x")
        cache = folder / "c.sqlite"
        with contextlib.closing(sqlite3.connect(cache)) as database:  # all into the one file
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        kept = folder / "kept"
        shutil.copy(cache, kept)
        whole = kept.read_bytes()
        places = [at for at in range(len(whole)) if whole.startswith(b'{"answer', at)]
        for number in numbers:
            rng = random.Random(f"{SEED} cache {number}")
            for path in folder.glob("c.sqlite*"):
                path.unlink()
            contents = bytearray(damage_text(whole, rng, 1)) if number % 3 else bytearray(whole)
            if number % 3 == 0:  # another answer in the place of one
                contents[rng.choice(places) + 11] = ord(rng.choice("12345"))
            cache.write_bytes(contents)
            tally["inputs"] += 1
            try:
                found = connect(settings.llm).ask(requests, description="x")
            except PalError as error:
                check_refusal(error, number)
                tally["refused"] += 1
                continue
            assert [one.value for one in found] == right, number
            tally["read"] += 1


def test_a_damaged_cache_gives_what_was_answered(tmp_path, tally):
    ask_of_damaged_caches(range(QUICK), tmp_path, tally)
    assert tally["read"] > QUICK // 4
    assert tally["refused"]


@pytest.mark.campaign
def test_many_damaged_caches(tmp_path, tally):
    ask_of_damaged_caches(range(MANY), tmp_path, tally)
