"""Every command killed at random moments ends, run again, in the bytes of a run left alone.

    pytest -n0 -m campaign tests/campaign/test_kills.py          # 1,000 kills; PAL_KILLS changes it

Moments are drawn with a seed (PAL_SEED), so that a failure can be looked at again.
"""

import math
import os
import random
from pathlib import Path

import pytest

from tests.campaign.commands import Bench, answering, works
from tests.campaign.conftest import SEED

pytestmark = pytest.mark.campaign

KILLS = int(os.environ.get("PAL_KILLS", "1000"))
IN_A_ROW = 6  # kills before a job may finish
NAMES = list(works(Path()))
SLOW = ("quickstart", "reproduce", "traits run", "train", "tune-alpha")  # killed less often
SHARE = 4


def wanted(name):
    """Return how often a command is killed."""
    slow = [one for one in NAMES if one.startswith(SLOW)]
    whole = KILLS / (len(NAMES) - len(slow) + len(slow) / SHARE)
    return math.ceil(whole / SHARE if name in slow else whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_ends_in_the_same_bytes(assets, name, tmp_path, tally):
    folder, fork = assets
    work = works(folder)[name]
    chance = random.Random(f"{SEED} {name}")
    with answering(work) as server:
        bench = Bench(work, tmp_path / "work", fork, server)
        assert bench.run() == 0, bench.said
        seconds = bench.took["seconds"]
        expected = bench.look()
        assert len(expected) > 1
        while tally["kills"] < wanted(name):
            bench.clean()
            for attempt in range(IN_A_ROW):
                code = bench.run(kill_after=chance.uniform(0, seconds))
                tally["kills"] += code == -9
                if code != -9:  # it was faster
                    assert code in (0, work.done if attempt else 0), bench.said
                    seconds = min(seconds, bench.took["seconds"]) if attempt == 0 else seconds
                    break
            assert bench.run() in (0, work.done), bench.said
            assert not bench.differences(expected)
            tally["results equal"] += 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "convert-authors"])
def test_a_command_killed_while_it_replaces_its_output_ends_in_the_same_bytes(
    assets, name, tmp_path, tally
):
    """With ``overwrite=true``; without it, what was there before or what is new is whole."""
    folder, fork = assets
    work = works(folder)[name]
    chance = random.Random(f"{SEED} {name} again")
    with answering(work) as server:
        plain = Bench(work, tmp_path / "work", fork, server)
        again = Bench(work, tmp_path / "work", fork, server, ["overwrite=true"])
        assert plain.run() == 0, plain.said
        expected = plain.look()
        assert again.run() == 0, again.said
        seconds = again.took["seconds"]
        while tally["kills while replacing"] < wanted(name):
            for _ in range(chance.randrange(1, IN_A_ROW)):
                code = again.run(kill_after=chance.uniform(0, seconds))
                tally["kills while replacing"] += code == -9
                if code != -9:
                    assert code == 0, again.said
                    seconds = min(seconds, again.took["seconds"])
            assert plain.run() in (0, work.done), plain.said
            wrong = [(name, then) for name, then, _ in plain.differences(expected)]
            assert not [name for name, then in wrong if then != "None"], wrong
            assert again.run() == 0, again.said  # and what the kills left is gone
            assert not again.differences(expected)
            tally["results equal"] += 1
