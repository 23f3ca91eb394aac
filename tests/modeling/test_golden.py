"""Numbers of the authors' own code, reproduced in fusion mode ``reference``."""

import pytest
import torch

from pal.decoding.contrast import combine
from pal.training.losses import token_loss
from tests.modeling.golden import INPUTS, load_case, load_model

CASES = ["case_equal", "case_padded"]


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory):
    return load_model(golden / "model", tmp_path_factory.mktemp("converted"))


def inputs_of(tensors, prefix=""):
    return {name: tensors[prefix + name] for name in INPUTS}


def close(ours, theirs, tolerance=1e-5):
    scale = theirs.abs().max().clamp_min(1.0)
    assert ((ours - theirs).abs().max() / scale) <= tolerance


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_states_and_logits(model, golden, case):
    theirs, _ = load_case(golden / "model", case)
    encoded = model.encode(**inputs_of(theirs))
    close(encoded.dialogue_states, theirs["enc_dialogue"])
    close(encoded.states, theirs["fused"])
    lambdas = model.fusion.weights.softmax(0)
    close(lambdas, theirs["fusion_weights"][[2, 1, 0]])

    kept = theirs["labels"] != -100
    fused = model(**inputs_of(theirs), labels=theirs["labels"])
    plain = model(theirs["input_ids"], theirs["attention_mask"], labels=theirs["labels"])
    close(fused.logits[kept], theirs["logits_with_persona"][kept])
    close(plain.logits[kept], theirs["logits_without_persona"][kept])
    for alpha in (0, 0.075, 0.375, 0.75):
        ours = combine(fused.logits, plain.logits, torch.full((4,), float(alpha)))
        close(ours[kept], theirs[f"logits_contrastive_alpha_{alpha}"][kept])
    alphas = torch.tensor([0, 0.75, 0, 0, 0.75, 0.75, 0.75, 0.375])[theirs["strat_id"]]
    ours = combine(fused.logits, plain.logits, alphas)
    close(ours[kept], theirs["logits_contrastive_paper_table"][kept])


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients(model, golden, case):
    theirs, meta = load_case(golden / "model", case)
    model.zero_grad()
    output = model(**inputs_of(theirs), labels=theirs["labels"])
    close(output.loss, theirs["masked_lm_loss"])
    close(token_loss(output, theirs["labels"]), theirs["masked_lm_loss"])
    halves = model(
        **inputs_of(theirs), labels=theirs["labels"],
        num_items_in_batch=2 * (theirs["labels"] != -100).sum(),
    )  # fmt: skip
    close(2 * halves.loss, theirs["masked_lm_loss"])
    token_losses = torch.nn.functional.cross_entropy(
        output.logits.transpose(1, 2), theirs["labels"], reduction="none", ignore_index=-100
    )
    close(token_losses, theirs["token_loss"])
    output.loss.backward()
    close(model.fusion.weights.grad, theirs["grad.persona_context_w"].flatten()[[2, 1, 0]], 1e-4)
    close(model.fusion.persona_norm.weight.grad, theirs["grad.persona_norm.weight"], 1e-4)
    close(model.fusion.dialogue_norm.bias.grad, theirs["grad.context_norm.bias"], 1e-4)
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    for name, norm in meta["grad_norms_l2"].items():
        if name in norms and norm is not None:
            assert norms[name] == pytest.approx(norm, rel=1e-3, abs=1e-5), name


RUNS = ["free", "fixed_alpha_mix", "fixed_alpha_mix_rp", "all_zero", "released_half"]


@pytest.mark.parametrize("run", RUNS)
def test_strategy_step_and_greedy_continuations(model, golden, run):
    theirs, meta = load_case(golden / "model", "generate")
    settings = meta["runs"][run]
    output = model.generate(
        **inputs_of(theirs, "in."),
        alpha=settings["alpha_table"],
        strategy_ids=settings["strat_id_given"],
        repetition_penalty=settings["repetition_penalty"],
        do_sample=False,
        min_new_tokens=8,  # theirs counts the two start tokens in its minimum of 10
        max_new_tokens=24,
        return_strategies=True,
    )
    assert output.sequences[:, 2:].tolist() == theirs[f"{run}.generated"].tolist()
    assert output.strategy_ids.tolist() == theirs[f"{run}.pred_strat_id"].tolist()
    close(output.strategy_probs, theirs[f"{run}.pred_strat_id_dist"])
    assert output.alpha.tolist() == pytest.approx(settings["alpha_used_per_row"])


def adamw_step(parameters, state, lr, step, eps=1e-6):
    """transformers 4.9.2's AdamW: its epsilon is not bias-corrected, its decay comes last."""
    for name, parameter in parameters:
        mean, square = state.setdefault(name, [torch.zeros_like(parameter) for _ in range(2)])
        mean.mul_(0.9).add_(parameter.grad, alpha=0.1)
        square.mul_(0.999).addcmul_(parameter.grad, parameter.grad, value=0.001)
        size = lr * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        parameter.data.addcdiv_(mean, square.sqrt().add_(eps), value=-size)
        if not any(part in name for part in ("bias", "ln", "LayerNorm.weight")):
            parameter.data.mul_(1 - lr * 0.01)


def test_five_optimiser_steps(golden, tmp_path):
    """The authors' recipe: AdamW, warm-up 2 of 6 steps, decay 0.01, clipping at 1."""
    folder = golden / "model"
    model = load_model(folder, tmp_path / "model").train()
    theirs, meta = load_case(folder, "train5")
    batch, _ = load_case(folder, "case_padded")
    state = {}
    for number, step in enumerate(meta["steps"], start=1):
        model.zero_grad()
        loss = model(**inputs_of(batch), labels=batch["labels"]).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert loss.item() == pytest.approx(step["loss"], abs=1e-4)
        assert norm.item() == pytest.approx(step["grad_norm_before_clip"], rel=1e-4)
        adamw_step(list(model.named_parameters()), state, step["lr"], number)
    weights = model.fusion.weights.detach()
    close(weights, theirs["after.persona_context_w"].flatten()[[2, 1, 0]], 1e-4)
    close(model.fusion.persona_norm.weight.detach(), theirs["after.persona_norm.weight"], 1e-4)
    ours = dict(model.named_parameters())
    for name, norm in meta["param_l2_after"].items():
        if name in ours:
            assert ours[name].norm().item() == pytest.approx(norm, rel=1e-4), name
