"""The systems of the benchmark: what each is, and what the paper prints for it.

A new system is one line here. In a YAML, ``reproduce.overrides`` changes the settings of one of
these, or makes another from one: ``{pal_tuned: {base: pal, decoding: {alpha: […]}}}``. A language
model from outside is made from ``llm`` in the same form, so that one rule says what a system is:
``{gpt: {base: llm, llm: {model: …}, supporter: {persona: true, strategy_first: true}}}``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pal.benchmark.settings import BenchmarkSettings
from pal.core.errors import ConfigError, suggest

# Columns of the paper's Table 3, by our names.
TABLE_3 = ("accuracy", "ppl", "bleu_2", "bleu_4", "distinct_1", "distinct_2", "ead_1", "ead_2",
           "rouge_l", "cos_sim")  # fmt: skip

# Of the other scores those that say most, for the second table of table.md.
FURTHER_SCORES = ("weighted_f1", "matthews", "preference_bias", "nats_per_word", "meteor",
                  "bertscore_f1", "self_bleu_4", "repetition_4", "repeated_responses",
                  "persona_words", "persona_entailment")  # fmt: skip

# PAL paper, Table 3. Percent, perplexity, and cosine in the last column.
PRINTED: dict[str, tuple[float, ...]] = {
    "joint": (27.72, 18.11, 5.57, 1.93, 3.74, 20.66, 4.23, 20.28, 16.36, 0.184),
    "misc": (31.34, 16.28, 6.60, 1.99, 4.53, 19.75, 5.69, 30.76, 17.21, 0.187),
    "prompt": (34.24, 17.06, 7.57, 2.53, 5.15, 25.47, 6.02, 31.64, 18.12, 0.199),
    "pal_alpha_0": (34.25, 15.92, 9.28, 2.90, 4.72, 25.56, 5.87, 33.05, 18.27, 0.229),
    "pal": (34.51, 15.92, 8.75, 2.66, 5.00, 30.27, 6.73, 41.82, 18.06, 0.244),
}


# Sections that may differ between systems; data, metrics and seeds are the benchmark's. A system
# that is asked and not trained has others.
OWN = ("architecture", "training", "decoding", "early_stopping_patience")
ASKED = ("llm", "supporter")


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        label: as shown.
        note: what it is, in a sentence.
        settings: what differs from the benchmark's settings, nested as in a YAML.
        decoder_only: whether it is a decoder-only language model; otherwise an encoder-decoder.
        asked: whether it is a language model that is asked as it is, and never trained.
        knowledge: whether it reads ``data.knowledge``; the others are run without.
    """

    label: str
    note: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    decoder_only: bool = False
    asked: bool = False
    knowledge: bool = False

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections of its own settings."""
        return ASKED if self.asked else OWN

    @classmethod
    def misc(cls, label: str, note: str, mode: str, *, knowledge: bool = True) -> "System":
        """MISC in one of its modes, decoded as its authors do."""
        return cls(
            label,
            note,
            {
                "architecture": {"backbone": "misc", "persona_mode": "none", "misc_mode": mode},
                "decoding": {**MISC_SAMPLING, "alpha": None, "strategy_alpha": None},
            },
            knowledge=knowledge,
        )

    @classmethod
    def without_fusion(cls, label: str, note: str, persona_mode: str) -> "System":
        """A system whose model has nothing to contrast."""
        no_contrast = {"alpha": None, "strategy_alpha": None}
        return cls(
            label, note, {"architecture": {"persona_mode": persona_mode}, "decoding": no_contrast}
        )

    @classmethod
    def with_fusion(cls, label: str, note: str, fusion: str) -> "System":
        """A PAL model with that fusion."""
        return cls(label, note, {"architecture": {"persona_mode": "fusion", "fusion": fusion}})


# How MISC's authors sample, by the paper and the code.
MISC_SAMPLING = {"temperature": 0.7, "top_k": 30, "top_p": 0.3, "repetition_penalty": 1.03}

SYSTEMS: dict[str, System] = {
    "joint": System.without_fusion("Blenderbot-Joint", "sees no persona", "none"),
    "prompt": System.without_fusion("Hard Prompt", "persona as text before the dialogue", "prompt"),
    "pal_alpha_0": System(
        "PAL (α = 0)",
        "the model of PAL, decoded without contrast",
        {
            "architecture": {"persona_mode": "fusion"},
            "decoding": {"alpha": 0.0, "strategy_alpha": 0.0},
        },
    ),
    "pal": System(
        "PAL",
        "persona fused, contrast by strategy",
        {"architecture": {"persona_mode": "fusion"}},
    ),
    "misc": System.misc(
        "MISC", "knowledge on the last turn and the situation, mixture of strategies", "paper"
    ),
    "misc_released": System.misc(
        "MISC, released code", "MISC as its released code computes it", "released"
    ),
    "misc_no_knowledge": System.misc(
        "MISC, no knowledge", "ablation: MISC without knowledge", "paper", knowledge=False
    ),
    "lm_joint": System(
        "LM-Joint",
        "decoder-only model that sees no persona",
        {
            "architecture": {"persona_mode": "none"},
            "decoding": {"alpha": None, "strategy_alpha": None},
        },
        decoder_only=True,
    ),
    "lm_prompt": System(
        "LM-Prompt",
        "decoder-only model with notes on the seeker in its text, decoded without contrast",
        {
            "architecture": {"persona_mode": "prompt"},
            "decoding": {"alpha": 0.0, "strategy_alpha": 0.0},
        },
        decoder_only=True,
    ),
    "lm_pal": System(
        "LM-PAL",
        "the model of LM-Prompt, decoded with the contrast by strategy",
        {"architecture": {"persona_mode": "prompt"}},
        decoder_only=True,
    ),
    "llm": System(
        "Language model",
        "a chat model as it is, asked for the next turn",
        asked=True,
    ),
    "llm_persona": System(
        "Language model, persona",
        "a chat model as it is, told what is known of the seeker",
        {"supporter": {"persona": True}},
        asked=True,
    ),
    "llm_strategy": System(
        "Language model, strategy",
        "a chat model as it is, which chooses a strategy and then responds",
        {"supporter": {"strategy_first": True}},
        asked=True,
    ),
    "llm_persona_strategy": System(
        "Language model, persona and strategy",
        "a chat model as it is, told what is known of the seeker, which chooses a strategy and "
        "then responds",
        {"supporter": {"persona": True, "strategy_first": True}},
        asked=True,
    ),
    "no_weights": System.with_fusion(
        "PAL, no fusion weights", "ablation: λ stays at one third each", "no_weights"
    ),
    "no_persona_stream": System.with_fusion(
        "PAL, no Ĥ_P", "ablation: H_final without Ĥ_P", "no_persona_stream"
    ),
    "reference_fusion": System.with_fusion(
        "PAL, reference fusion",
        "ablation: the released code's fusion, padding and all",
        "reference",
    ),
}


def printed_row(name: str) -> dict[str, float] | None:
    """Return what the paper's Table 3 prints for a system, by metric key; None where nothing."""
    row = PRINTED.get(name.lower())
    return dict(zip(TABLE_3, row, strict=True)) if row else None


def choose_systems(chosen: BenchmarkSettings, *, knowledge: str | None = None) -> dict[str, System]:
    """Return the systems asked for, by name, with their own overrides laid over the table's.

    Without knowledge a system that would read it is an ablation, and its label says so.

    Args:
        chosen: the benchmark's settings.
        knowledge: the setting ``data.knowledge``.

    Raises:
        ConfigError: a name that is neither in the table nor made by an override, a name twice.
    """
    from pal.core.yaml_files import merge

    mistakes: list[str] = []
    found: dict[str, System] = {}
    if not chosen.systems and not chosen.outside:
        mistakes.append("reproduce.systems is empty, and reproduce.outside too")
    unused = set(chosen.overrides) - set(chosen.systems)
    if unused:
        mistakes.append(f"reproduce.overrides: {sorted(unused)[0]!r} is not in reproduce.systems")
    for name in chosen.systems:
        changes = dict(chosen.overrides.get(name, {}))
        base = str(changes.pop("base", name))
        label = changes.pop("label", None)
        own = SYSTEMS[base].sections if base in SYSTEMS else (*OWN, *ASKED)
        mistakes += [
            f"reproduce.overrides.{name}: {key!r} cannot be set for one system"
            f"{suggest(key, own)} (allowed: base, label, {', '.join(own)})"
            for key in changes
            if key not in own
        ]
        if base not in SYSTEMS:
            mistakes.append(
                f"reproduce.systems: unknown system {base!r}{suggest(base, SYSTEMS)} "
                f"(allowed: {', '.join(SYSTEMS)}, or a name of your own with a base in "
                "reproduce.overrides)"
            )
        elif name in found or name in chosen.outside:
            mistakes.append(f"reproduce: system {name!r} is named twice")
        else:
            row = SYSTEMS[base]
            usual = name if name not in SYSTEMS else row.label
            if row.knowledge and knowledge is None:
                usual = f"{usual}, no knowledge"
                row = replace(row, note=f"{row.note}; here without any knowledge, as an ablation")
            found[name] = replace(
                row, label=str(label or usual), settings=merge(row.settings, changes)
            )
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    return found
