"""``pal chat``: talk with a trained model in the terminal, or line by line over a pipe.

Nothing that is said is stored or logged, unless ``/save`` writes it.
"""

import logging
import sys
from typing import Any

from pal.conversation.settings import TalkSettings
from pal.core.errors import ConfigError
from pal.core.runtime import configure_runtime

logger = logging.getLogger(__name__)


class ChatSettings(TalkSettings):
    """Talk with a model in the terminal.

    Attributes:
        persona: sentences about the person who chats, used instead of inferred ones.
        compare: show a reply with α = 0 after each reply; --compare for short.
    """

    examples = (
        "pal chat model=runs/pal extractor=runs/extractor guard.country=US",
        "pal chat runs/pal 'persona=[i have two kids]' --compare",
    )
    positional = "model"

    persona: list[str] = []
    compare: bool = False


def chat(settings: ChatSettings) -> None:
    """Answer what is typed, or what comes over a pipe, until the input ends.

    Raises:
        PalError: model or guard cannot be used; over a pipe also a line that cannot be answered.
        KeyboardInterrupt: Ctrl-C at the prompt, or over a pipe.
    """
    settings = ChatSettings.of(settings)
    configure_runtime()
    (source,) = settings.require("model")
    if sys.stdin is None or sys.stdout is None:
        raise ConfigError("pal chat reads standard input and writes standard output; open both")
    logger.info("loading %s", source)
    from pal.conversation.session import open_session
    from pal.terminal.conversation import Conversation
    from pal.terminal.face import ENDED, Terminal, answer_lines, line_editing
    from pal.terminal.screen import Screen, encodable

    session = open_session(settings, rows=1)
    conversation = Conversation(session, persona=settings.persona, compare=settings.compare)
    given: Any = sys.stdin
    if hasattr(given, "reconfigure"):  # bytes of another encoding do not end the chat
        given.reconfigure(errors="surrogateescape")
    try:
        if given.isatty():
            prompts = sys.stdout if sys.stdout.isatty() else sys.stderr
            with line_editing(conversation, prompts) as read:
                Terminal(conversation, Screen(sys.stdout), read).run()
        else:
            answer_lines(
                conversation, given, sys.stdout,
                lambda text: print(encodable(text, sys.stderr), file=sys.stderr, flush=True),
            )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt(ENDED) from None
