"""A model's token losses on gold responses, from which perplexity is computed."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from pal.core.errors import DataError
from pal.core.job import process_state
from pal.data.batches import plan_batches
from pal.data.samples import Sample
from pal.modeling.language import language_task
from pal.modeling.language_responder import language_losses
from pal.modeling.packed import packed_model


@torch.inference_mode()
def token_losses(
    model: Any,
    tokenizer: Any,
    samples: Sequence[Sample],
    *,
    batch_tokens: int = 12288,
    batch_rows: int = 64,
) -> dict[str, Any]:
    """Return the model's losses on the samples' gold responses, one value a sample.

    Targets are cut only at the model's last position; not at all where positions are relative.

    Args:
        model: a response model; it is moved to the best device there is.
        tokenizer: the one saved with it.
        samples: N of them, each with a gold response.
        batch_tokens: positions of inputs and targets that a batch holds at most.
        batch_rows: rows that a batch holds at most.

    Returns:
        ``token_nll`` (nats, strategy token included, [N]), ``token_count`` [N], ``strategy_nll``
        (the strategy token's share, nats, [N]) and the model's ``vocab_size``.

    Raises:
        DataError: a sample has no gold response.
    """
    from tqdm.auto import tqdm

    for sample in samples:
        if sample.response is None:
            raise DataError(
                f"{sample.id}: it has no gold response, which perplexity is measured on; leave "
                "requests out of the input, or leave out model=…"
            )
    model = model.to(process_state().device)
    if language_task(model.config):
        return language_losses(model, tokenizer, samples, batch_tokens=batch_tokens)
    model = packed_model(model)
    config = model.config
    encoder = model.make_encoder(tokenizer)
    encoder.max_target_tokens = getattr(config, "max_position_embeddings", sys.maxsize) - 1
    encoded = [encoder.encode(sample) for sample in samples]
    collate = model.make_collator()
    lengths = [len(row["input_ids"]) + len(row["labels"]) for row in encoded]
    batches = plan_batches(lengths, max_tokens=batch_tokens, max_rows=batch_rows)
    result = np.zeros((len(samples), 3))
    with tqdm(total=len(samples), desc="perplexity", unit="sample", dynamic_ncols=True) as bar:
        for indices in batches:
            batch = collate([encoded[index] for index in indices])
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            labels = batch["labels"]  # [B, T]
            nats = F.cross_entropy(
                model(**batch).logits.transpose(1, 2).float(), labels, reduction="none",
                ignore_index=-100,
            )  # fmt: skip
            rows = torch.stack([nats.sum(1), (labels != -100).sum(1), nats[:, 0]], dim=1)
            result[indices] = rows.cpu().double().numpy()
            bar.update(len(indices))
    nll, count, strategy = result.T
    return {
        "token_nll": nll,
        "token_count": count,
        "strategy_nll": strategy,
        "vocab_size": config.vocab_size,
    }
