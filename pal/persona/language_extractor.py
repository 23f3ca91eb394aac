"""The persona extractor as a decoder-only model: utterances in, persona sentences out.

The utterances are one user turn in the chat format of the model; persona sentences are the lines of
its answer. The turns of a dialogue ask with beginnings of one sequence, which is read once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pal.data.chat import ChatEncoder, ChatFormat
from pal.modeling.language import LanguageEntries, check_room, pad_id
from pal.persona.cleaning import support

LEAST_SUPPORT = 0.6  # of a sentence that the answer in training holds

QUESTION = "What do these messages tell of the person who wrote them?"


def utterance_source(encoder: ChatEncoder, utterances: Sequence[str], room: int) -> list[int]:
    """Return the ids of one speaker's utterances, oldest dropped first; the answer is to follow.

    Args:
        encoder: of the model.
        utterances: oldest first.
        room: tokens, at most.
    """
    head = [*encoder.marks(encoder.form.head), *encoder.marks(encoder.form.user)]
    head += encoder.text(QUESTION)
    lines = [encoder.text(f"\n- {text}") for text in utterances]
    room -= len(head) + len(answer_marks(encoder))
    size, first = 0, len(lines)
    while first and size + len(lines[first - 1]) <= room:
        first -= 1
        size += len(lines[first])
    kept = [token for line in lines[first:] for token in line]
    if not kept and lines:  # one utterance longer than the model reads
        kept = lines[-1][-max(room, 1) :]
    return [*head, *kept, *answer_marks(encoder)]


def answer_marks(encoder: ChatEncoder) -> list[int]:
    """Return the ids of what stands between utterances and answer."""
    return [*encoder.marks(encoder.form.user_end), *encoder.marks(encoder.form.assistant)]


def encode_conversation(encoder: ChatEncoder, row: Mapping[str, Any]) -> list[dict[str, list[int]]]:
    """Return a conversation of PersonaChat as training sequences, ``input_ids`` and ``labels``.

    Two of them: all of a speaker's utterances, and the first half. The answer holds the persona
    sentences that these utterances support, so that the model learns to say nothing of what nobody
    mentioned; a small model invents much otherwise.
    """
    found = []
    said = list(row["utterances"])
    for count in dict.fromkeys((len(said), (len(said) + 1) // 2)):
        part = said[:count]
        known = [one for one in row["persona"] if support(one, part) >= LEAST_SUPPORT]
        answer = [*encoder.text("\n".join(known)), encoder.end][: encoder.max_target_tokens]
        source = utterance_source(encoder, part, encoder.max_context_tokens)
        found.append({"input_ids": [*source, *answer], "labels": [-100] * len(source) + answer})
    return found


def persona_lines(text: str) -> list[str]:
    """Return the persona sentences of an answer, each once, without a final period."""
    lines = (line.strip(" -\t.") for line in text.split("\n"))
    return list(dict.fromkeys(line for line in lines if line))


class LanguageExtractor:
    """Runs a decoder-only extractor; it has the methods of a ``BeamExtractor``.

    Args:
        model: from :func:`pal.persona.extractor.load_extractor`.
        tokenizer: the one saved with it.
        num_beams: beam width.
        max_new: longest answer, tokens.
        rows: utterance lists answered at once, at most.
    """

    def __init__(self, model: Any, tokenizer: Any, *, num_beams: int, max_new: int, rows: int):
        entries = LanguageEntries.of(model.config, "config.json")
        check_room(model.config, entries.max_context_tokens, "annotate.max_new_tokens", max_new)
        self.model, self.tokenizer = model, tokenizer
        self.num_beams, self.max_new, self.rows = num_beams, max_new, rows
        self.encoder = ChatEncoder(
            tokenizer, ChatFormat(**entries.chat_format), persona=False,
            max_context_tokens=entries.max_context_tokens,
            max_target_tokens=entries.max_target_tokens,
        )  # fmt: skip

    def encode_source(self, utterances: Sequence[str]) -> list[int]:
        """Return the prompt of one speaker's utterances."""
        return utterance_source(self.encoder, utterances, self.encoder.max_context_tokens)

    def plan(self, sources: Sequence[Sequence[int]], *, tokens: int, rows: int) -> list[list[int]]:
        """Group prompts in their order, in which those of a dialogue stand together.

        Args:
            sources: N prompts.
            tokens: positions that a batch holds at most, where nothing is shared.
            rows: prompts that a batch holds at most.
        """
        from pal.data.batches import consecutive_batches

        return consecutive_batches(
            [len(source) * self.num_beams for source in sources], max_tokens=tokens, max_rows=rows
        )

    def __call__(self, sources: Sequence[Sequence[int]]) -> list[list[str]]:
        """Return the sentences inferred from each prompt."""
        answers = self._search(sources) if self.num_beams > 1 else self._take_best(sources)
        return [persona_lines(self.encoder.decode(answer)) for answer in answers]

    def _take_best(self, sources: Sequence[Sequence[int]]) -> list[list[int]]:
        import torch

        from pal.decoding.language import LanguageEngine, LanguageRequest
        from pal.decoding.plan import DecodingPlan
        from pal.decoding.settings import SamplingOptions

        plan = DecodingPlan(
            SamplingOptions(
                do_sample=False, repetition_penalty=1.0, min_new_tokens=0,
                max_new_tokens=self.max_new,
            ),
            alpha=(0.0,), strategy_alpha=0.0,
        )  # fmt: skip
        marks = answer_marks(self.encoder)  # in the place of a strategy: they follow every prompt
        requests = []
        for source in sources:
            asked = list(source)[: -len(marks)]
            requests.append(LanguageRequest(0, asked, asked, 0))
        engine = LanguageEngine(
            self.model, plan, strategies=[marks], end=self.encoder.end,
            suppressed=self.encoder.special, rows=self.rows, positions=16384,
        )  # fmt: skip
        with torch.inference_mode():
            return [answer.tokens for answer in engine(requests)]

    def _search(self, sources: Sequence[Sequence[int]]) -> list[list[int]]:
        """Search with beams, as the library does."""
        import torch

        longest, fill = max(map(len, sources)), pad_id(self.tokenizer)
        ids = torch.tensor([[fill] * (longest - len(s)) + list(s) for s in sources])
        mask = torch.tensor([[0] * (longest - len(s)) + [1] * len(s) for s in sources])
        with torch.inference_mode():
            found = self.model.generate(
                input_ids=ids.to(self.model.device), attention_mask=mask.to(self.model.device),
                num_beams=self.num_beams, max_new_tokens=self.max_new, do_sample=False,
                early_stopping=True, eos_token_id=self.encoder.end, pad_token_id=fill,
            )  # fmt: skip
        tokens: list[list[int]] = found[:, longest:].tolist()
        return tokens
