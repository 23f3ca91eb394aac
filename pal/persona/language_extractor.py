"""The persona extractor as a decoder-only model: utterances in, persona sentences out.

The utterances are one user turn in the chat format of the model; persona sentences are the lines of
its answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pal.data.chat import ChatEncoder

QUESTION = "What do these messages tell of the person who wrote them?"


def utterance_source(encoder: ChatEncoder, utterances: Sequence[str], room: int) -> list[int]:
    """Return the ids of one speaker's utterances, oldest dropped first, up to the answer."""
    head = [*encoder.marks(encoder.form.head), *encoder.marks(encoder.form.user)]
    head += encoder.text(QUESTION)
    lines = [encoder.text(f"\n- {text}") for text in utterances]
    tail = [*encoder.marks(encoder.form.user_end), *encoder.marks(encoder.form.assistant)]
    size, first = len(head) + len(tail), len(lines)
    while first and size + len(lines[first - 1]) <= room:
        first -= 1
        size += len(lines[first])
    kept = [token for line in lines[first:] for token in line]
    if not kept and lines:  # one utterance longer than the model reads
        kept = lines[-1][-max(room - len(head) - len(tail), 1) :]
    return [*head, *kept, *tail]


def encode_conversation(encoder: ChatEncoder, row: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return a conversation of PersonaChat as a training sequence, ``input_ids`` and ``labels``."""
    answer = [*encoder.text("\n".join(row["persona"])), encoder.end]
    answer = answer[: encoder.max_target_tokens]
    source = utterance_source(encoder, row["utterances"], encoder.max_context_tokens)
    return {
        "input_ids": [*source, *answer],
        "labels": [-100] * len(source) + answer,
    }


def persona_lines(text: str) -> list[str]:
    """Return the persona sentences of an answer, each once."""
    lines = (line.strip(" -\t") for line in text.split("\n"))
    return list(dict.fromkeys(line for line in lines if line))
