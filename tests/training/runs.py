"""What tests do with the folders of training runs."""

import json
import shutil

import torch
from safetensors.torch import load_file

BEGUN = ("identity", "made_of", "number_format", "number_format_chosen_by", "devices")


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def record(folder):
    return json.loads((folder / "run.json").read_text())


def log_without_times(folder):
    log = json.loads((folder / "training_log.json").read_text())
    timed = ("runtime", "per_second")
    return [{k: v for k, v in entry.items() if not k.endswith(timed)} for entry in log]


def steps_saved(folder):
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def begun_of(folder):
    """What lay in a trained folder while it was trained."""
    return {name: record(folder)[name] for name in BEGUN}


def interrupted_copy(trained, folder, step):
    """Copy a trained folder as a kill right after one of its checkpoints would have left it."""
    shutil.copytree(trained, folder)
    (folder / "started.json").write_text(json.dumps(begun_of(trained)))
    for name in ("run.json", "model.safetensors", "training_log.json"):
        (folder / name).unlink()
    for later in steps_saved(folder):
        if later > step:
            shutil.rmtree(folder / f"checkpoint-{later}")
    return folder
