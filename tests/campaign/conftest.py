"""What a campaign did: counts at the end of the run, and in a file where PAL_REPORT names one.

    PAL_REPORT=campaign.json pytest -n0 -m campaign tests/campaign

Parts that are run one after the other join in one file; a part that is run again replaces its
counts.
"""

import json
import os
import platform
import time
from collections import Counter
from pathlib import Path

import pytest

SEED = int(os.environ.get("PAL_SEED", "1"))
_parts: dict[str, dict] = {}


@pytest.fixture(scope="session")
def assets(tmp_path_factory):
    """A folder of inputs, and what runs commands.

    Parts that name one folder in PAL_INPUTS share its inputs.
    """
    from tests.campaign.commands import prepared
    from tests.campaign.forked import Forked

    shared = os.environ.get("PAL_INPUTS")
    folder = Path(shared) if shared else tmp_path_factory.mktemp("campaign")
    folder.mkdir(exist_ok=True)
    fork = Forked(tmp_path_factory.mktemp("log") / "commands.log")
    if not (folder / "prepared").exists():
        prepared(folder, fork)
        (folder / "prepared").touch()
    return folder, fork


@pytest.fixture
def tally(request):
    """A counter whose numbers are reported, with the seconds and the seed of the test."""
    found, started = Counter(), time.monotonic()
    yield found
    seconds = round(time.monotonic() - started, 1)
    name = request.node.nodeid.removeprefix("tests/")
    _parts[name] = {**found, "seconds": seconds, "seed": SEED}
    if "PAL_REPORT" in os.environ:
        keep(Path(os.environ["PAL_REPORT"]))


def sums(parts):
    """Return the sums of all counts."""
    total = Counter()
    for part in parts.values():
        total.update({key: value for key, value in part.items() if key != "seed"})
    return {key: round(value, 1) for key, value in total.items()}


def keep(path):
    """Join the counts with those that a file has."""
    parts = json.loads(path.read_text())["parts"] if path.exists() else {}
    parts |= _parts
    machine = [platform.platform(), f"{os.cpu_count()} cores", platform.python_version()]
    whole = {"machine": machine, "in_all": sums(parts), "parts": dict(sorted(parts.items()))}
    path.write_text(json.dumps(whole, indent=2) + "\n")


def pytest_terminal_summary(terminalreporter):
    """Print the counts."""
    if not _parts:
        return
    terminalreporter.section("campaign")
    for name, part in _parts.items():
        terminalreporter.line(f"{name}: {_shown(part)}")
    terminalreporter.line(f"in all: {_shown(sums(_parts))}")


def _shown(part):
    return ", ".join(f"{key} {value}" for key, value in part.items())
