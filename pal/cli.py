"""The command line: arguments in, one call, exit code out.

Every command takes ``--config FILE_OR_NAME`` and ``key=value`` overrides. Exit codes: 0 done,
2 a mistake of the user's (one line tells it), 130 interrupted.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pal import __version__
from pal.errors import PalError, PlannedStop

EPILOG = """\
settings: --config takes a YAML file or the name of a bundled one (small, pal, joint, ...);
key=value overrides follow, dotted for nested keys: training.learning_rate=1e-5
"""


def _load(arguments: argparse.Namespace) -> Any:
    from pal.config import load_settings

    return load_settings(arguments.config, arguments.overrides, check_training=True)


def _train(arguments: argparse.Namespace) -> None:
    settings = _load(arguments)
    from pal.training import train

    train(settings)


def _annotate(arguments: argparse.Namespace) -> None:
    settings = _load(arguments)
    from pal.persona.annotation import annotate

    annotate(settings)


def _generate(arguments: argparse.Namespace) -> None:
    settings = _load(arguments)
    from pal.generation import generate

    generate(settings)


def _eval(arguments: argparse.Namespace) -> None:
    settings = _load(arguments)
    from pal.evaluation.scoring import score

    print(score(settings))


def _reproduce(arguments: argparse.Namespace) -> None:
    from pal.evaluation.reproduce import reproduce

    print(reproduce(arguments.config, arguments.overrides))


def _tune_alpha(arguments: argparse.Namespace) -> None:
    settings = _load(arguments)
    from pal.evaluation.alpha import tune_alpha

    print(tune_alpha(settings))


def _analyze(arguments: argparse.Namespace) -> None:
    settings = _load(arguments)
    from pal.evaluation.analysis import analyze

    print(analyze(settings))


def _report(arguments: argparse.Namespace) -> None:
    settings = _load(arguments)
    from pal.evaluation.report import report

    print(f"written to {report(settings)}")


def _human_eval(arguments: argparse.Namespace) -> None:
    settings = _load(arguments)
    from pal.evaluation import human_eval

    action = {"export": human_eval.export, "score": human_eval.score}[arguments.action]
    print(action(settings))


def _traits(arguments: argparse.Namespace) -> None:
    settings = _load(arguments)
    from importlib import import_module

    module, name = TRAITS[arguments.action]
    print(getattr(import_module(f"pal.traits.{module}"), name)(settings))


def _bench(arguments: argparse.Namespace) -> None:
    settings = _load(arguments)
    from importlib import import_module

    module = import_module(f"pal.bench.{arguments.action}")
    print(getattr(module, f"bench_{arguments.action}")(settings))


def _quickstart(arguments: argparse.Namespace) -> None:
    arguments.config = arguments.config or "quickstart"
    from pal.quickstart import quickstart

    print(quickstart(arguments.config, arguments.overrides))


def _convert_authors(arguments: argparse.Namespace) -> None:
    from pal.modeling.checkpoint import convert_authors

    given = dict(item.partition("=")[::2] for item in arguments.overrides)
    unknown = sorted(set(given) - {"config", "output", "tokenizer"})
    if unknown or not {"config", "output"} <= set(given):
        raise PalError(
            "convert-authors: give config=CONFIG.json output=DIR, and tokenizer=DIR_OR_ID if wanted"
            + (f"; unknown key {unknown[0]!r}" if unknown else "")
        )
    folder = convert_authors(arguments.state_dict, given["config"], given["output"])
    if "tokenizer" in given:
        from pal.data.tokenizer import add_pal_tokens, load_tokenizer

        add_pal_tokens(load_tokenizer(given["tokenizer"])).save_pretrained(folder)
    else:
        print("no tokenizer= given: generate needs the tokenizer's files in the same folder")
    print(f"written to {folder}")


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], None], str]] = {
    "quickstart": (_quickstart, "run the whole pipeline on the bundled corpus"),
    "train": (_train, "train PAL, a baseline, or the persona extractor (task=persona_extractor)"),
    "annotate": (_annotate, "infer personas: ESConv in, PESConv out"),
    "generate": (_generate, "answer every sample of a file: model= input= output="),
    "eval": (_eval, "score predictions and/or a model: predictions= model= input= output="),
    "reproduce": (_reproduce, "train, run and score every system with every seed: the table"),
    "tune-alpha": (_tune_alpha, "choose α of each strategy on validation dialogues: model= input="),
    "analyze": (_analyze, "similarity, strategies and personas of dialogues and responses: input="),
    "report": (_report, "one HTML page of results: report.include= output="),
    "human-eval": (_human_eval, "blinded A/B sheets out (export), answers in (score)"),
    "traits": (_traits, "personality and style that a language model sees in personas and talks"),
    "bench": (_bench, "measure this machine against what one would use instead"),
    "convert-authors": (
        _convert_authors,
        "turn a checkpoint of the authors' code into a PAL model",
    ),
}


# What ``pal traits`` does: action → module of pal.traits and function in it.
TRAITS = {
    "cards": ("cards", "cards"),
    "filter": ("cards", "filter_cards"),
    "describe": ("cards", "describe"),
    "measure": ("measure", "measure"),
    "correlate": ("correlations", "correlate"),
    "expand": ("cards", "expand"),
    "synthesize": ("synthesis", "synthesize"),
    "continue": ("synthesis", "continue_dialogues"),
    "compare": ("consistency", "compare"),
    "strategies": ("strategies", "strategies"),
    "stats": ("dialogue_statistics", "stats"),
    "report": ("report", "report"),
    "run": ("run", "run"),
}

# Commands that begin with what to do.
ACTIONS = {
    "human-eval": ("export", "score"),
    "traits": tuple(TRAITS),
    "bench": ("generate", "train", "annotate", "metrics", "llm"),
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="pal",
        description="Persona-augmented emotional support dialogue.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pal {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (call, text) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(call=call)
        if name in ACTIONS:
            command.add_argument("action", choices=ACTIONS[name])
        if name == "convert-authors":
            command.add_argument("state_dict", metavar="STATE_DICT")
        else:
            command.add_argument("--config", metavar="FILE_OR_NAME")
        command.add_argument("overrides", nargs="*", metavar="key=value")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    given.sort(key=lambda item: "=" in item and not item.startswith("-"))  # overrides come last
    parser = build_parser()
    # After an action and an option argparse leaves overrides over, though they have a place.
    parsed, left = parser.parse_known_args(given)
    wrong = [item for item in left if "=" not in item or item.startswith("-")]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    parsed.overrides = [*parsed.overrides, *left]
    _set_up()
    try:
        parsed.call(parsed)
    except PalError as error:
        return _fail(str(error))
    except PlannedStop as stop:
        print(stop)
    except KeyboardInterrupt:
        _say("interrupted; finished work is kept, run the same command again to go on")
        return 130
    except OSError as error:
        if error.errno != 28:  # ENOSPC
            raise
        return _fail(f"the disk is full ({error.filename or 'writing'}); free space and run again")
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
        return _fail(
            "out of memory; lower batch_tokens (annotate, generate, eval) or "
            "training.per_device_train_batch_size, and run the same command again"
        )
    return 0


def _set_up() -> None:
    """Quiet the libraries' chatter and let the project's own messages through, on one process."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Matrix products on a CPU then give the same bits whatever the number of threads, so that a
    # job on two processes equals the same job on one.
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    logger = logging.getLogger("pal")
    for handler in [h for h in logger.handlers if type(h) is logging.StreamHandler]:
        logger.removeHandler(handler)  # it holds the stream of an earlier call
    logger.addHandler(logging.StreamHandler())
    logger.propagate = False
    logger.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)


def _say(text: str) -> None:
    print(f"\npal: {text}", file=sys.stderr)


def _fail(text: str) -> int:
    print(f"pal: error: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
