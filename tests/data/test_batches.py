import random

import torch

from pal.data.batches import Collator, lengths_mask, pad, plan_batches


def test_plan_covers_everything_once_within_the_budget():
    lengths = [random.Random(3).randrange(1, 300) for _ in range(500)]
    batches = plan_batches(lengths, max_tokens=2000, max_rows=32)
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert longest == lengths[batch[0]]
        assert len(batch) * longest <= 2000
        assert len(batch) <= 32
    real = sum(lengths)
    padded = sum(len(batch) * lengths[batch[0]] for batch in batches)
    assert real / padded > 0.9


def test_an_item_over_the_budget_is_a_batch_of_its_own():
    assert plan_batches([5, 50, 5], max_tokens=10) == [[1], [0, 2]]
    assert plan_batches([], max_tokens=10) == []


def test_collator_pads_right_and_shifts_labels():
    collate = Collator(pad_token_id=0, decoder_start_token_id=1)
    batch = collate(
        [
            {"input_ids": [5, 6, 7], "persona_input_ids": [9], "labels": [40, 8, 2]},
            {"input_ids": [5], "persona_input_ids": [9, 9], "labels": [41, 2]},
        ]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["persona_input_ids"].tolist() == [[9, 0], [9, 9]]
    assert batch["persona_attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert batch["labels"].tolist() == [[40, 8, 2], [41, 2, -100]]
    assert batch["decoder_input_ids"].tolist() == [[1, 40, 8], [1, 41, 0]]


def test_mask_and_padding_agree():
    rows = [[1, 2], [3, 4, 5], [6]]
    assert torch.equal(pad(rows, 0).bool().long(), lengths_mask(rows))


def test_rows_without_targets_are_rows_that_a_model_takes():
    collate = Collator(pad_token_id=0, decoder_start_token_id=1)
    batch = collate([{"input_ids": [5, 6], "labels": [-100, -100, -100]}])
    assert batch["labels"].tolist() == [[-100, -100, -100]]
    assert batch["decoder_input_ids"].tolist() == [[1, 0, 0]]
