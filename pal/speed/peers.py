"""The alternatives to the engine in the generation benchmark.

Both give the responses of the engine, to rounding, since they sample with the same noise.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig, LogitsProcessor
from transformers.modeling_outputs import BaseModelOutput

from pal.decoding.contrast import combine
from pal.modeling.pal import PalMixin
from pal.speed.workload import Workload

DOUBLED_ROWS, TWO_PASS_ROWS = 32, 8  # of a batch; what is fastest for each on two CPU cores


class ContrastHalves(LogitsProcessor):
    """Gives both halves of a batch the contrast of the first with the second."""

    def __init__(self, alpha: Tensor):
        self.alpha = alpha

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return contrasted scores [2B, V]."""
        first, second = scores.chunk(2)
        return combine(first[:, None], second[:, None], self.alpha)[:, 0].repeat(2, 1)


def run_doubled(workload: Workload, rows: int = DOUBLED_ROWS) -> list[list[int]]:
    """Answer with transformers' ``generate`` on batches that hold every row twice."""
    model, answers = workload.model, []
    # What is left open the model's own options would decide, so everything is said.
    greedy = GenerationConfig(
        do_sample=False, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0,
        min_length=0, min_new_tokens=0, max_new_tokens=workload.options.max_new_tokens, num_beams=1,
        eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id,
    )  # fmt: skip
    for chosen in workload.batches(rows):
        encoded = model.encode(**workload.collate(chosen))
        prompt, alpha = workload.prompt(chosen)
        length = max(encoded.mask.shape[1], encoded.dialogue_mask.shape[1])
        states, mask = [], []
        for side, kept in (
            (encoded.states, encoded.mask), (encoded.dialogue_states, encoded.dialogue_mask)
        ):  # fmt: skip
            states.append(F.pad(side, (0, 0, 0, length - side.shape[1])))
            mask.append(F.pad(kept, (0, length - kept.shape[1])))
        # All of them ours and the contrast first: −inf of both halves would give NaN after it.
        processors = workload.processors(workload.keys[list(chosen)].repeat(2))
        processors.insert(0, ContrastHalves(alpha))
        found = super(PalMixin, model).generate(
            decoder_input_ids=prompt.repeat(2, 1),
            encoder_outputs=BaseModelOutput(last_hidden_state=torch.cat(states)),
            attention_mask=torch.cat(mask),
            past_key_values=library_cache(model),
            generation_config=greedy,
            logits_processor=processors,
        )
        answers += found[: len(chosen), 2:].tolist()
    return [cut(row, model.config.eos_token_id) for row in answers]


def run_two_passes(workload: Workload, rows: int = TWO_PASS_ROWS) -> list[list[int]]:
    """Answer as the specification describes the authors' code.

    Persona and dialogue padded to one length; two decoder passes a step, for rows with α = 0 too;
    rows contrasted one by one; filters and softmax over the whole vocabulary; batches in file
    order, until the last row ends; attention written out, as their copy of the model has it.
    """
    model, options, answers = workload.model, workload.options, []
    config, end = model.config, model.config.eos_token_id
    attention = config._attn_implementation
    model.set_attn_implementation("eager")
    for chosen in workload.batches(rows):
        batch = workload.collate(chosen)
        names = [name for name in batch if name.endswith("input_ids")]
        length = max(batch[name].shape[1] for name in names)
        for name, tensor in batch.items():
            value = config.pad_token_id if name in names else 0
            batch[name] = F.pad(tensor, (0, length - tensor.shape[1]), value=value)
        encoded = model.encode(**batch)
        ids, alpha = workload.prompt(chosen)
        sides = [
            (states, mask, library_cache(model))
            for states, mask in ((encoded.states, encoded.mask),
                                 (encoded.dialogue_states, encoded.dialogue_mask))
        ]  # fmt: skip
        processors = workload.processors(workload.keys[list(chosen)])
        new, ended = ids, torch.zeros(len(chosen), dtype=torch.bool, device=ids.device)
        for _ in range(options.max_new_tokens):
            logits = [
                model(
                    decoder_input_ids=new, attention_mask=mask, past_key_values=cache,
                    encoder_outputs=(states,), use_cache=True,
                ).logits[:, -1:]
                for states, mask, cache in sides
            ]  # fmt: skip
            contrasted: Any = torch.cat([
                combine(logits[0][row : row + 1], logits[1][row : row + 1], alpha[row : row + 1])
                for row in range(len(chosen))
            ])  # fmt: skip
            scores = processors(cast(Any, ids), contrasted[:, 0].float())
            new = scores.softmax(-1).argmax(-1, keepdim=True)
            ids = torch.cat([ids, new], dim=1)
            ended |= new[:, 0] == end
            if ended.all():
                break
        answers += ids[:, 2:].tolist()
    model.set_attn_implementation(attention)
    return [cut(row, end) for row in answers]


def library_cache(model: Any) -> EncoderDecoderCache:
    """Return the library's cache, of as many layers as the decoder has."""
    config = model.get_decoder().config
    return EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))


def cut(row: list[int], end: int) -> list[int]:
    """Return a response up to its end token."""
    return row[: row.index(end) + 1] if end in row else row
