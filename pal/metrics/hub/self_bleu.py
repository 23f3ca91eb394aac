"""The family "self_bleu" for Hugging Face ``evaluate``."""

from pal.metrics.hub import build_module

Module = build_module("self_bleu")
