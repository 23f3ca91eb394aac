"""Numbers of MISC's released code, reproduced in mode ``released``."""

import pytest
import torch
from safetensors.torch import load_file

from tests.modeling.misc_golden import HOUSE, inputs_of, labels_of, load_misc, load_misc_case


@pytest.fixture
def model(golden, tmp_path):
    return load_misc(golden, tmp_path)


def close(ours, theirs, tolerance=1e-5):
    scale = theirs.abs().max().clamp_min(1.0)
    assert ((ours - theirs).abs().max() / scale) <= tolerance


@torch.no_grad()
def test_states_and_logits(model, golden):
    theirs, meta = load_misc_case(golden)
    inputs = inputs_of(theirs)
    for stream, name in (("utterance", "comet_ids"), ("situation", "comet_st_ids")):
        blocks = model.encode_blocks(theirs[f"in.{name}"])
        close(blocks.states, theirs[f"block.{stream}"])
        assert torch.equal(blocks.mask, theirs[f"in.{name[:-4]}_mask"])
    encoded = model.encode(**inputs)
    close(encoded.states, theirs["enc.context"])
    for stream in ("utterance", "situation"):
        close(encoded.streams[stream].states, theirs[f"enc.{stream}"])
    close(encoded.strategy, theirs["strategy.linear"])

    gold = model(**inputs, labels=labels_of(model, theirs))
    close(gold.logits[:, 1:], theirs["eval.gold.lm_logits"])
    close(gold.strategy_logits[:, HOUSE], theirs["eval.gold.strategy_logits"])
    assert gold.loss.item() == pytest.approx(meta["losses"]["eval.gold"]["loss"], abs=1e-5)
    assert gold.strategy_loss.item() == pytest.approx(
        meta["losses"]["eval.gold"]["strategy_loss"], abs=1e-5
    )
    mixed = model(**inputs, decoder_input_ids=theirs["in.decoder_shifted"])
    close(mixed.logits, theirs["eval.mix.lm_logits"])
    close(mixed.strategy_logits[:, HOUSE], theirs["eval.mix.strategy_logits"])
    assert (
        HOUSE.argsort()[mixed.strategy_logits.argmax(-1)].tolist()
        == (meta["argmax"]["batchnorm_twice_eval"])
    )


def test_training_forward_and_gradients(model, golden):
    theirs, meta = load_misc_case(golden)
    wanted = load_file(golden / "misc/model/grads.safetensors")
    model.train()
    output = model(**inputs_of(theirs), labels=labels_of(model, theirs))
    assert output.loss.item() == pytest.approx(meta["losses"]["train.gold"]["loss"], abs=1e-5)
    # normalised over three rows, which are alike: their rounding is magnified
    close(output.strategy_logits[:, HOUSE], theirs["train.gold.strategy_logits"], 5e-5)
    norm = model.model.encoder.batchNorm_strategy
    close(norm.running_mean, theirs["train.gold.running_mean_after"])
    close(norm.running_var, theirs["train.gold.running_var_after"])
    output.loss.backward()
    zero = set(meta["gradients"]["mathematically_zero"])
    compared = 0
    for name, parameter in model.named_parameters():
        if name in zero or name not in wanted:
            continue
        error = (parameter.grad - wanted[name]).abs().max()
        assert error <= 5e-5 * max(1.0, float(wanted[name].norm())), name
        compared += 1
    assert compared > 90
    skipped = model(**inputs_of(theirs), labels=labels_of(model, theirs), skip_logits=True)
    assert skipped.logits is None
    assert torch.allclose(skipped.loss, output.loss)


def test_five_optimiser_steps(model, golden):
    """The released recipe: AdamW whose epsilon is not bias-corrected, warm-up, clipping at 1."""
    batch, _ = load_misc_case(golden)
    theirs, meta = load_misc_case(golden, "train5")
    model.train()
    labels, inputs = labels_of(model, batch), inputs_of(batch)
    state = {}
    for number, step in enumerate(meta["steps"], start=1):
        order = step["row_order"]
        model.zero_grad()
        loss = model(**{name: t[order] for name, t in inputs.items()}, labels=labels[order]).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert loss.item() == pytest.approx(step["loss"], abs=1e-4)
        assert norm.item() == pytest.approx(step["grad_norm_before_clip"], rel=1e-4)
        for name, parameter in model.named_parameters():
            mean, square = state.setdefault(name, [torch.zeros_like(parameter) for _ in range(2)])
            mean.mul_(0.9).add_(parameter.grad, alpha=0.1)
            square.mul_(0.999).addcmul_(parameter.grad, parameter.grad, value=0.001)
            size = step["lr"] * (1 - 0.999**number) ** 0.5 / (1 - 0.9**number)
            parameter.data.addcdiv_(mean, square.sqrt().add_(1e-8), value=-size)
    weights = model.state_dict()
    skipped = set(map(str, meta["do_not_compare"]))
    compared = 0
    for name, tensor in theirs.items():
        if (own := name.removeprefix("final.")) in weights and own not in skipped:
            assert (weights[own] - tensor).abs().max() <= 5e-4, name
            compared += 1
    assert compared >= 8
    with torch.no_grad():
        gold = model.eval()(**inputs, labels=labels)
    close(gold.logits[:, 1:], theirs["final.eval.gold.lm_logits"], 5e-4)


RUNS = ["release_greedy", "penalty_1.5_greedy", "plain_greedy", "min_length_30_greedy",
        "ngram_1_greedy"]  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_greedy_responses(model, golden, run):
    batch, _ = load_misc_case(golden)
    tensors, meta = load_misc_case(golden, "generate")
    settings = meta["runs"][run]["settings"]
    options = {name: settings[name] for name in ("repetition_penalty", "no_repeat_ngram_size")}
    options |= {"do_sample": False, "min_new_tokens": 0, "min_length": settings["min_length"],
                "max_new_tokens": settings["max_length"] - 1}  # fmt: skip
    together = model.generate(**inputs_of(batch), **options)
    for index, row in enumerate(meta["runs"][run]["rows"]):
        blocks = {
            name: tensor[index : index + 1]
            for name, tensor in inputs_of(batch).items() if "blocks" in name
        }  # fmt: skip
        output = model.generate(
            tensors[f"row{index}.input_ids"], **blocks, **options, return_strategies=True
        )
        start, strategy, *words = output.sequences[0].tolist()
        assert [start, *words] == row["ids"]
        assert HOUSE.argsort()[output.strategy_ids].tolist() == [row["strategy_argmax"]]
        close(
            output.strategy_probs[0, HOUSE], torch.tensor(row["strategy_logits"]).softmax(-1), 5e-5
        )
        assert together[index].tolist()[: len(words) + 2] == [start, strategy, *words]


def test_what_sampling_draws_from(model, golden):
    """The first tokens that can be drawn under the released settings, and their probabilities."""
    batch, _ = load_misc_case(golden)
    tensors, meta = load_misc_case(golden, "generate")
    for case in meta["first_step_release_sampling"]:
        index, kept = case["row"], case["kept_ids"]
        blocks = {
            name: tensor[index : index + 1].expand(1000, -1, -1)
            for name, tensor in inputs_of(batch).items() if "blocks" in name
        }  # fmt: skip
        ids = tensors[f"row{index}.input_ids"].expand(1000, -1)
        drawn = model.generate(
            ids, **blocks, do_sample=True, temperature=0.7, top_k=30, top_p=case["top_p"],
            repetition_penalty=1.03, min_new_tokens=0, max_new_tokens=1, seed=index,
        )[:, 2]  # fmt: skip
        counts = torch.bincount(drawn, minlength=300)
        assert set(counts.nonzero().flatten().tolist()) <= set(kept)
        shares = counts[kept] / 1000
        assert (shares - torch.tensor(case["probs"])).abs().max() < 0.06
