"""The words of labels that stand on more than one page: one word for one thing.

Templates read them as ``word``: ``{{ word.p_holm }}``.
"""

WORDS = {
    "care": "These are texts about people’s distress: share this file with care.",
    "cases": "Case studies",
    "difference": "Difference",
    "model": "Model",
    "n": "n",
    "p": "p",
    "p_holm": "p, Holm",
    "printed": "printed in the paper",
    "seeker": "Seeker",
    "speaker": "Speaker",
    "strategy": "Strategy",
    "supporter": "Supporter",
    "system": "System",
    "undefined": "undefined",
    "with_persona": "with persona",
    "without_persona": "without persona",
}
