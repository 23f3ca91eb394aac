"""What a Ctrl-C says while the program is still being imported.

Imported before all else, so it imports nothing that a starting interpreter does not have already.
"""

import os
import sys

INTERRUPTED = "interrupted; finished work is kept, run the same command again to continue"


def is_program() -> bool:
    """Whether this process is ``pal``, ``python -m pal`` or one of the checkout's scripts.

    A program of the user's that imports the package is none of these; its interrupts stay its own.
    """
    started = list(getattr(sys, "orig_argv", ()))
    if sys.argv[:1] == ["-m"]:  # the module is still being looked for
        after = started[started.index("-m") + 1 :] if "-m" in started else []
        return after[:1] == ["pal"] or after[:1] == ["pal.cli"]
    script = os.path.realpath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    return os.path.basename(script) in ("pal", "pal.exe") or os.path.dirname(script) == checkout


def tell_in_one_line() -> None:
    """Let an interrupt that nothing catches end in one line and exit code 130."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: object) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            before(kind, error, trace)  # type: ignore[arg-type]
            return
        print(f"\npal: {INTERRUPTED}", file=sys.stderr, flush=True)
        os._exit(130)

    sys.excepthook = hook
