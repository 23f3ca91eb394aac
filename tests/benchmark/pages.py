"""Parts of a report as the commands write them: of all five kinds, small or as large as real ones.

Dialogues are the bundled corpus's; numbers are drawn, with sizes and spreads like real ones.
"""

import json
import math
import random

from pal.benchmark.systems import TABLE_3, printed_row
from pal.data.strategies import PAPER_ALPHA, STRATEGIES
from tests.jobs import ESCONV

SYSTEMS = {
    "joint": "Blenderbot-Joint",
    "prompt": "Hard Prompt",
    "pal_alpha_0": "PAL (α = 0)",
    "pal": "PAL",
}
NOTES = {
    "joint": "Blenderbot-small fine-tuned on dialogues alone; no persona.",
    "prompt": "The persona as text before the dialogue.",
    "pal_alpha_0": "Co-attention over the persona, plain decoding.",
    "pal": "The same models, with strategy-conditioned contrastive decoding.",
}
OTHERS = ("top_1", "top_3", "macro_f1", "ppl_without_strategy", "bleu_1", "distinct_3", "f1",
          "length", "preference_bias", "meteor", "repetition_4", "persona_words")  # fmt: skip
FAMILIES = {
    **dict.fromkeys(("accuracy", "top_1", "top_3", "macro_f1", "preference_bias"), "strategy"),
    **{"ppl": "perplexity", "ppl_without_strategy": "perplexity", "ead_1": "distinct",
       "ead_2": "distinct", "cos_sim": "similarity", "persona_words": "persona_words"},
}  # fmt: skip
MEANS = dict(
    zip(
        (*TABLE_3, *OTHERS),
        (31.0, 17.2, 6.9, 2.1, 4.9, 28.0, 5.6, 33.0, 17.4, 0.231, 31.0, 62.0, 24.1, 19.4, 18.6,
         52.0, 20.3, 18.1, 0.71, 14.2, 0.31, 6.4),
        strict=True,
    )
)  # fmt: skip
UNITS = {"ppl": "perplexity", "ppl_without_strategy": "perplexity", "cos_sim": "cosine",
         "length": "tokens", "preference_bias": "preference"}  # fmt: skip
RUN = {
    "identity": "0f3c", "command": "reproduce", "seed": 42, "python": "3.11.9",
    "platform": "Linux-6.8-x86_64", "git_commit": "7124b67c0ffee0123456789", "finished":
    "2025-11-21T13:09:00+0000", "settings": {"seed": 42, "reproduce": {"seeds": [13, 42, 87]}},
    "versions": {"pal-esc": "0.1.0", "torch": "2.13.0", "wandb": None},
}  # fmt: skip


def results(seeds=(13, 42, 87)):
    draw = random.Random(1)
    keys = (*TABLE_3, *OTHERS)
    metrics = {
        key: {
            "family": FAMILIES.get(key, key.partition("_")[0]),
            "direction": "lower" if key.startswith(("ppl", "preference", "repetition")) else
            "none" if key == "length" else "higher",
            "unit": UNITS.get(key, "percent"), "version": "1.0", "n": 2295,
        }
        for key in keys
    }  # fmt: skip
    systems = {}
    for rank, (name, label) in enumerate(SYSTEMS.items()):
        summary, missing = {}, {}
        for key in keys:
            if name == "joint" and key == "cos_sim":
                missing[key] = "needs personas"
                continue
            mean = MEANS[key] * (1 + 0.06 * rank * draw.uniform(-0.3, 1))
            width = mean * draw.uniform(0.02, 0.06)
            summary[key] = {
                "mean": mean, "sd": width / 3 if len(seeds) > 1 else None,
                "low": mean - width, "high": mean + width,
            }  # fmt: skip
        shared = "pal" if name.startswith("pal") else name
        systems[name] = {
            "label": label, "note": NOTES[name], "printed": printed_row(name), "summary": summary,
            "authors": {k: summary[k]["mean"] * 1.04 for k in ("ppl", "distinct_1", "ead_1")},
            "missing": missing,
            "runs": [
                {
                    "seed": seed, "checkpoint": "checkpoint-9204", "epoch": 3.0,
                    "validation_nll": curve(shared, seed)[-1]["validation_nll"] - 0.02,
                    "values": {k: s["mean"] + draw.gauss(0, s["sd"] or 0)
                               for k, s in summary.items()},
                    "model": f"runs/{shared}/seed-{seed}",
                    "predictions": f"runs/{name}/seed-{seed}.jsonl",
                    "curve": curve(shared, seed),
                }
                for seed in seeds
            ],
        }  # fmt: skip
        for run in systems[name]["runs"]:
            run["validation_nll"] = next(
                p["validation_nll"] for p in run["curve"] if p["epoch"] == 3.0
                and "validation_nll" in p
            )  # fmt: skip
    return {
        "kind": "results", "format": 1, "title": "PAL on ESConv", "samples": 2295,
        "dialogues": 195, "confidence": 0.95, "metrics": metrics, "systems": systems,
        "tests": tests(systems, keys), "run": RUN,
        "notes": ["Word tokens: punkt.", "cos_sim uses a MiniLM sentence encoder, not SimCSE."],
    }  # fmt: skip


def curve(name, seed):
    draw = random.Random(f"{name}{seed}")
    floor = draw.uniform(2.75, 2.9)
    points = []
    for step in range(1, 61):
        epoch = step / 10
        points.append({"epoch": epoch, "train_loss": floor - 0.3 + 2.4 * math.exp(-epoch / 1.1)
                       - 0.09 * epoch + draw.gauss(0, 0.03)})  # fmt: skip
        if step % 10 == 0:
            points.append({"epoch": float(step // 10), "validation_nll": floor
                           + 0.9 * math.exp(-epoch / 0.9) + 0.02 * epoch**1.4})  # fmt: skip
    return points


def tests(systems, keys):
    draw = random.Random(2)
    names = list(systems)
    found = []
    for key in keys:
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                if key not in systems[a]["summary"] or key not in systems[b]["summary"]:
                    continue
                gap = systems[a]["summary"][key]["mean"] - systems[b]["summary"][key]["mean"]
                width = MEANS[key] * draw.uniform(0.02, 0.08)
                p = max(0.0001, math.exp(-4 * abs(gap) / width))
                found.append({"metric": key, "a": a, "b": b, "difference": gap,
                              "low": gap - width, "high": gap + width, "p": p,
                              "p_holm": min(1.0, 6 * p)})  # fmt: skip
    return found


def analysis(points=60):
    draw = random.Random(3)
    scores = {}
    for name, values in (("empathy", (1, 2, 3, 4, 5)), ("relevance", (1, 2, 3, 4, 5)),
                         ("intensity_decrease", (-1, 0, 1, 2, 3, 4))):  # fmt: skip
        found = [
            (score, draw.gauss(0.2 + 0.015 * score, 0.06))
            for score in draw.choices(values, [1, 1, 3, 6, 8, 2][: len(values)], k=points)
        ]
        levels = []
        for score in values:
            at = [y for x, y in found if x == score]
            if at:
                mean, half = sum(at) / len(at), 0.12 / math.sqrt(len(at))
                levels.append({"score": score, "n": len(at), "mean": mean, "low": mean - half,
                               "high": mean + half})  # fmt: skip
        scores[name] = {"points": found, "levels": levels, "slope": 0.015, "intercept": 0.2,
                        "r2": 0.041, "r2_levels": 0.87, "rho": 0.19, "p": 0.00004,
                        "n": points}  # fmt: skip
    systems = {}
    for rank, (name, label) in enumerate(SYSTEMS.items()):
        counts = [
            [draw.randint(0, 30) + (60 + 12 * rank if g == p else 0) for p in range(8)]
            for g in range(8)
        ]
        systems[name] = {
            "label": label, "n": 2295, "confusion": counts,
            "top": [28 + 2 * rank + (100 - 28 - 2 * rank) * (1 - (1 - n / 7) ** 1.7)
                    for n in range(8)],
            "distribution": {s: sum(row[i] for row in counts) for i, s in enumerate(STRATEGIES)},
            "per_strategy": [
                {"strategy": s, "n_gold": sum(counts[i]), "n_predicted": draw.randint(100, 400),
                 "precision": draw.uniform(20, 50), "recall": draw.uniform(20, 50),
                 "f1": draw.uniform(20, 50), "bleu_2": draw.uniform(4, 9),
                 "rouge_l": draw.uniform(12, 20), "distinct_2": draw.uniform(20, 50),
                 "length": draw.uniform(12, 25), "cos_sim": None}
                for i, s in enumerate(STRATEGIES)
            ],
        }  # fmt: skip
    sentences = [[n, round(200 * math.exp(-((n - 12) ** 2) / 40))] for n in range(1, 31)]
    return {
        "kind": "analysis", "format": 1, "title": "ESConv test", "run": RUN,
        "similarity": {"embedder": "princeton-nlp/sup-simcse-bert-base-uncased",
                       "dialogues": points, "without_survey": 150, "without_persona": 3,
                       "note": "", "scores": scores},
        "strategies": {"gold": dict(zip(STRATEGIES, (420, 150, 190, 260, 380, 400, 170, 325),
                                        strict=True)), "systems": systems},
        "personas": {
            "dialogues": 1300, "with_persona": 1297,
            "sentences": {"mean": 12.3, "sd": 4.2, "median": 12, "max": 30,
                          "histogram": sentences},
            "first_turn": {"mean": 3.6, "median": 3,
                           "histogram": [[3, 900], [4, 210], [5, 120], [6, 40], [7, 27]]},
            "coverage": {"turns": 2295, "with_persona": 2100,
                         "by_turn": [[t, 1 - math.exp(-t / 3)] for t in range(2, 40)]},
        },
    }  # fmt: skip


def alpha(trials=40):
    draw = random.Random(4)
    found = []
    for number in range(trials):
        vector = [draw.randint(0, 12) / 8 for _ in STRATEGIES]
        mean = sum(vector) / 8
        found.append(
            {
                "number": number,
                "alpha": vector,
                "front": False,
                "values": {
                    "bleu_2": 8.6 - 2.2 * mean + draw.gauss(0, 0.3),
                    "distinct_2": 30 + 6 * mean + draw.gauss(0, 1),
                    "cos_sim": 0.24 + 0.03 * mean + draw.gauss(0, 0.006),
                },
            }
        )
    for one in found:
        one["front"] = not any(
            all(other["values"][k] > v for k, v in one["values"].items()) for other in found
        )
    return {
        "kind": "alpha", "format": 1, "model": "runs/pal", "input": "runs/pesconv",
        "samples": 2156, "sampler": "tpe", "strategies": list(STRATEGIES), "run": RUN,
        "objectives": [{"key": "bleu_2", "direction": "higher", "unit": "percent"},
                       {"key": "distinct_2", "direction": "higher", "unit": "percent"},
                       {"key": "cos_sim", "direction": "higher", "unit": "cosine"}],
        "baselines": [
            {"name": "α = 0", "alpha": [0.0] * 8,
             "values": {"bleu_2": 8.7, "distinct_2": 30.1, "cos_sim": 0.242}},
            {"name": "paper", "alpha": list(PAPER_ALPHA),
             "values": {"bleu_2": 7.4, "distinct_2": 33.0, "cos_sim": 0.257}},
        ],
        "trials": found,
        "chosen": {"alpha": next(t for t in found if t["front"])["alpha"],
                   "values": next(t for t in found if t["front"])["values"],
                   "rule": "largest mean relative gain over α = 0"},
    }  # fmt: skip


def human():
    rows = [
        ("Coherence", 68, 6, 26, 0.0001),
        ("Comforting", 50, 8, 42, 0.47),
        ("Suggestion", 45, 7, 48, 0.84),
        ("Overall", 71, 6, 23, 0.00002),
    ]
    questions = [
        {"question": name, "a_wins": won, "ties": tied, "b_wins": lost, "n_sheets": 100,
         "items": {"a_wins": won // 2, "ties": tied, "b_wins": lost // 2},
         "p": p, "p_holm": min(1.0, 4 * p)}
        for name, won, tied, lost, p in rows
    ]  # fmt: skip
    kappa = {"Coherence": 0.41, "Comforting": 0.35, "Suggestion": -0.02, "Overall": None}
    return {
        "kind": "human", "format": 1, "run": RUN,
        "pairs": [{"a": "pal", "b": "joint", "raters": 3, "items": 50, "samples": 50,
                   "same_text": 2, "questions": questions, "kappa": kappa,
                   "kappa_missing": {"Overall": "all answers are the same"}}],
        "problems": [{"file": "sheet_2.csv", "row": 14, "item": "test-00003/5",
                      "question": "Overall", "problem": "answer 'C'; expected A, B or tie"}],
    }  # fmt: skip


def corpus():
    """The bundled test dialogues, as ``cases.json`` holds dialogues."""
    names = {"usr": "seeker", "sys": "supporter"}
    lines = (ESCONV / "test.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line)["dialog"] for line in lines]
    return {
        f"test-{number:05d}": [
            {"speaker": names[turn["speaker"]], "text": turn["text"],
             **({"strategy": turn["strategy"]} if "strategy" in turn else {})}
            for turn in dialogue
        ]
        for number, dialogue in enumerate(found)
    }  # fmt: skip


def cases(most=1000):
    dialogues = corpus()
    found = []
    for name, turns in dialogues.items():
        replies = [t["text"] for t in turns if t["speaker"] == "supporter"]
        for index, turn in enumerate(turns):
            if index and turn["speaker"] == "supporter" and turns[index - 1]["speaker"] == "seeker":
                found.append({
                    "id": f"{name}/{index}", "dialogue": name, "turn": index,
                    "persona": [f"i said: {t['text'][:40].lower()}" for t in turns[:index:4]],
                    "strategy": turn["strategy"], "reference": turn["text"],
                    "responses": {
                        system: {"strategy": STRATEGIES[(index + rank) % 8],
                                 "response": replies[(index + rank) % len(replies)],
                                 "alpha": None if system == "joint" else 0.375}
                        for rank, system in enumerate(SYSTEMS)
                    },
                })  # fmt: skip
    return {
        "kind": "cases", "format": 1, "dialogues": dialogues, "cases": found[:most],
        "systems": [{"name": name, "label": label} for name, label in SYSTEMS.items()],
    }  # fmt: skip


def all_parts():
    return [cases(), human(), alpha(), analysis(), results()]
