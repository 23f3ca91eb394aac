"""A system of your own in one table with PAL: the same dialogues, scores, intervals and tests.

    python examples/benchmark_own_system.py
    python examples/benchmark_own_system.py --responses theirs.jsonl output_dir=runs/theirs

Put your system in the place of `reply`. `--responses` compares a file that exists already, of any
program. PAL's responses are those that `pal quickstart` wrote for the bundled test dialogues.
Further arguments are settings of `pal reproduce`: with `reproduce.systems=[pal]` and its settings
of training, PAL is trained here, with as many seeds as you name.
"""

import argparse
from pathlib import Path

import pal
from pal.commands.reproduce import reproduce
from pal.core.errors import PalError
from pal.core.files import write_jsonl
from pal.core.runtime import show_messages
from pal.data.samples import load_samples

# What a sample holds: `context`, turns with speaker and text, and `persona`, sentences.
# The response and strategy that people gave are there too, and no system may look at them.


def reply(sample, known):
    """Return a response and its strategy: those to the most similar turn of the training dialogues.

    Args:
        sample: what is to be answered.
        known: samples of the training dialogues, whose responses may be looked at.
    """
    said = set(sample.context[-1]["text"].lower().split())

    def similarity(other):
        words = set(other.context[-1]["text"].lower().split())
        return len(said & words) / len(said | words)

    nearest = max(known, key=similarity)
    return nearest.response, nearest.strategy


def main(quickstart, responses, overrides):
    """Answer the test dialogues with `reply`, and compare."""
    pal.configure_runtime()
    show_messages()  # what the command reports, on standard error
    settings = [
        f"data.train={quickstart / 'pesconv.jsonl'}", "data.split=seeded", "reproduce.systems=[]",
        "metrics.embedder=null", "output_dir=runs/own_system", *overrides,
    ]  # fmt: skip
    chosen = pal.load_settings(None, settings, command="reproduce")
    if responses is None:
        responses = Path(chosen.output_dir) / "own.jsonl"
        known = load_samples(chosen.data.train, "train", chosen.data)
        rows = []
        for sample in load_samples(chosen.data.train, "test", chosen.data, limit=chosen.limit):
            response, strategy = reply(sample, known)
            rows.append({"id": sample.id, "response": response, "strategy": strategy})
        responses.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(responses, rows)
    outside = {"PAL": str(quickstart / "predictions.jsonl"), "own": str(responses)}
    fixed = {"reproduce": {"outside": chosen.reproduce.outside | outside}}
    table = reproduce(pal.load_settings(None, settings, command="reproduce", fixed=fixed))
    print(f"{table}\n\nThe page: {Path(chosen.output_dir) / 'report.html'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
    parser.add_argument("--responses", type=Path, help="a file of responses, to compare as `own`")
    parser.add_argument("--quickstart", type=Path, default="runs/quickstart", help="its folder")
    try:
        main(**vars(parser.parse_intermixed_args()))
    except PalError as error:  # a mistake in what was given: one line
        parser.exit(2, f"{parser.prog}: error: {error}\n")
