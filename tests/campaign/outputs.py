"""What an output holds, without what tells of the run that made it."""

import json
from pathlib import Path

# Parts of records and logs that tell of the run, not of its result.
TIMES = {
    "finished", "seconds", "elapsed", "train_runtime", "train_samples_per_second",
    "train_steps_per_second", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second",
    "total_flos", "run", "output_dir", "made_at", "settings", "platform", "git_commit",
    "bytes",  # of a file that holds some of these
}  # fmt: skip


def contents(place: Path):
    """Return what an output holds, by file: bytes, or JSON without what tells of the run."""
    found = {}
    files = [p for p in place.parent.rglob("*") if p.is_file()]
    for path in sorted(files):
        name = str(path.relative_to(place.parent))
        if path.suffix in (".lock", ".sqlite") or ".sqlite-" in path.name or "optimizer" in name:
            continue
        if path.suffix == ".json":
            try:
                found[name] = without_times(json.loads(path.read_text()))
            except ValueError:  # half of one, in a folder that a kill left unfinished
                found[name] = path.read_bytes()
        elif path.suffix in (".pt", ".pth", ".bin"):
            continue  # pickles of the resumable state
        else:
            found[name] = path.read_bytes()
    return found


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value
