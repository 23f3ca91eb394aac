"""A chat in Python: replies stream word by word, with the strategy and the persona behind them.

    python examples/chat_loop.py guard.country=US
    python examples/chat_loop.py model=runs/mine_model extractor=runs/extractor guard.country=GB

An empty line or Ctrl-D ends it. `pal chat` is the finished program, and this the loop to build on.
The arguments are settings of `pal chat`, which `pal chat --help` lists.
"""

import argparse

import pal
from pal.core.errors import PalError

DEFAULTS = ["model=runs/quickstart/model", "extractor=runs/quickstart/extractor"]


def answer(chat, messages):
    """Print the reply to a dialogue as it grows, and return it whole."""
    print("pal: ", end="", flush=True)
    for piece in chat.respond(messages, stream=True):
        if piece.growing and piece.growing.strategy:  # known before the first word
            known = " | ".join(piece.growing.persona) or "nothing yet"
            print(f"[{piece.growing.strategy}, α {piece.growing.alpha:g}; knows: {known}]")
        if piece.reply and piece.reply.finish == "guard":  # instead of what was shown so far
            print(f"\n(The guard speaks.)\n{piece.reply.text}", end="")
        else:
            print(piece.text, end="", flush=True)
    print()
    return piece.reply  # the last piece holds the whole reply


def read_line():
    """Return what the person says; empty at the end."""
    try:
        return input("you: ").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""


def main(overrides):
    """Load the model once, then answer line by line."""
    settings = pal.load_settings(None, [*DEFAULTS, *overrides], command="chat")
    pal.configure_runtime()  # replies are then those of `pal chat`, to the last digit
    chat = pal.load(
        settings.model, extractor=settings.extractor, guard=settings.guard,
        decoding=settings.decoding, annotate=settings.annotate, seed=settings.seed,
        dtype=settings.dtype,
    )  # fmt: skip
    messages = []
    while line := read_line():
        messages.append({"role": "user", "content": line})
        reply = answer(chat, messages)
        # The model reads what it said before, and with which strategy.
        said = {"role": "assistant", "content": reply.text, "strategy": reply.strategy}
        messages.append(said)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
    try:
        main(parser.parse_args().overrides)
    except PalError as error:  # a mistake in what was given: one line
        parser.exit(2, f"{parser.prog}: error: {error}\n")
