"""Every command where a machine fails it: a full disk, a locked folder, a clock that jumps.

And a second writer, and endpoints that break off.

    pytest -n0 -m campaign tests/campaign/test_faults.py     # PAL_ROUNDS changes how often

A command that cannot write says so in one line, and run again where it can, it ends in the bytes of
a run left alone. Full disks and locked folders are real ones, of a few kilobytes in memory, so they
need a Linux whose user may mount them.
"""

import contextlib
import json
import math
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pal.llm.base import REPEAT
from tests.campaign.commands import Bench, answering, works
from tests.campaign.conftest import SEED

pytestmark = pytest.mark.campaign

ROUNDS = int(os.environ.get("PAL_ROUNDS", "3"))
NAMES = list(works(Path()))
ASKING = [name for name, work in works(Path()).items() if work.answers is not None]


@contextlib.contextmanager
def disk(folder, options):
    """Mount a disk in memory; skip where this is not allowed."""
    folder.mkdir(exist_ok=True)
    call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        subprocess.run(call, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk in memory can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def change(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def empty(folder):
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def alone(assets, request, tmp_path):
    """Yield (bench on a disk in memory, what a run left alone ends in, the disk, its bytes)."""
    folder, fork = assets
    work = works(folder)[request.param]
    with disk(tmp_path / "work", "size=64m") as place, answering(work) as server:
        bench = Bench(work, place, fork, server)
        assert bench.run() == 0, bench.said
        used = shutil.disk_usage(place).used
        yield bench, bench.look(), place, used


@pytest.mark.parametrize("alone", NAMES, indirect=True)
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(alone, request, tally):
    bench, expected, place, used = alone
    chance = random.Random(f"{SEED} {request.node.name}")
    for _ in range(ROUNDS):
        empty(place)
        ballast = place.parent / "work" / "ballast"
        free = chance.randrange(0, max(used, 1))
        ballast.write_bytes(b"\0" * (64 * 2**20 - 2**16 - free) if free else b"")
        with contextlib.suppress(OSError), ballast.open("ab") as handle:
            while shutil.disk_usage(place).free > free:
                handle.write(b"\0" * 4096)
                handle.flush()
        code = bench.run()
        tally["full disks"] += 1
        tally["refused" if code == 2 else "done"] += 1
        assert code == 0 or "disk" in bench.said or "space" in bench.said, bench.said[-2000:]
        ballast.unlink()
        assert bench.run() in (0, bench.work.done if code == 0 else 0), bench.said
        assert not bench.differences(expected)
        tally["results equal"] += 1


@pytest.mark.parametrize("alone", NAMES, indirect=True)
def test_a_locked_folder_is_one_line(alone, tally):
    bench, expected, place, _ = alone
    empty(place)
    change(place, "ro")
    code = bench.run()
    change(place, "rw")
    tally["locked folders"] += 1
    assert code == 2, bench.said[-2000:]
    assert not list(place.iterdir())
    assert bench.run() == 0, bench.said
    assert not bench.differences(expected)
    tally["results equal"] += 1


@pytest.mark.parametrize("alone", NAMES, indirect=True)
def test_one_of_two_writers_writes(alone, tally):
    bench, expected, place, _ = alone
    for _ in range(ROUNDS):
        empty(place)
        bench.run(writers=2)
        tally["two writers"] += 1
        codes = sorted(bench.took["codes"])
        assert codes in ([0, 0], [0, 2]), (codes, bench.said[-3000:])
        if codes == [0, 2]:
            assert re.search("another process|exist|not empty", bench.said), bench.said[-2000:]
        assert not bench.differences(expected)
        tally["results equal"] += 1


@pytest.mark.parametrize("alone", NAMES, indirect=True)
def test_a_clock_that_jumps_changes_nothing(alone, request, tally):
    bench, expected, place, _ = alone
    for number in range(ROUNDS):
        empty(place)
        assert bench.run(clock=SEED + number) == 0, bench.said
        tally["clocks"] += 1
        assert not bench.differences(expected)
        tally["results equal"] += 1


FAULTS = ("429", "500", "cut", "drop", "malformed", "empty", "stall")


@pytest.mark.parametrize("name", ASKING)
def test_an_endpoint_that_breaks_off_changes_nothing(assets, name, tmp_path, tally):
    folder, fork = assets
    work = works(folder)[name]
    chance = random.Random(f"{SEED} {name}")
    how = {"stall": 1.0, "retry_after": "0.05"}
    more = ["llm.timeout=0.5", "llm.max_attempts=12"]
    share, until, malformed = [0.0], [math.inf], set()

    def faults(number, body):
        if number >= until[0]:
            return chance.choice(("500", "cut", "drop"))
        if chance.random() >= share[0]:
            return None
        fault, asked = chance.choice(FAULTS), json.dumps(body)
        if fault == "malformed" and asked in malformed:  # the third would be final
            return None
        malformed.update([asked] if fault == "malformed" else [])
        tally["network faults"] += 1
        return fault

    with answering(work, faults=faults, **how) as server:
        bench = Bench(work, tmp_path / "work", fork, server, more)
        assert bench.run() == 0, bench.said
        expected = bench.look()
        share[0] = 0.3
        for _ in range(ROUNDS):
            bench.clean()
            malformed.clear()
            assert bench.run() == 0, bench.said
            assert not bench.differences(expected)
            tally["results equal"] += 1
        needed = len(server.requests)
        bench.clean()
        share[0] = 0.0
        assert bench.run() == 0, bench.said
        needed = len(server.requests) - needed
        for _ in range(ROUNDS):  # breaks off for good, and is there again
            bench.clean()
            until[0] = len(server.requests) + chance.randrange(needed)
            bench.call.insert(-1, "llm.max_attempts=2")
            code = bench.run()
            tally["endpoints gone"] += 1
            partly = REPEAT in bench.said  # a step of several may be, before one that got nothing
            assert code == 2 or partly, bench.said
            until[0] = math.inf
            bench.call[-2] = f"overwrite={str(partly).lower()}"
            assert bench.run() == 0, bench.said
            del bench.call[-2]
            # Files of a study are named after what is in them: those of missing answers stay.
            wrong = [(name, then) for name, then, _ in bench.differences(expected)]
            assert not [name for name, then in wrong if not partly or then != "None"], wrong
            tally["results equal"] += 1
    bench.clean()  # and now nobody answers
    bench.call.insert(-1, "llm.max_attempts=1")
    assert bench.run() == 2, bench.said
    assert not [path for path in bench.folder.rglob("out*") if path.suffix in (".jsonl", ".json")]
    tally["nobody answers"] += 1
