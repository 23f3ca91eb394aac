"""The family "persona_words" for Hugging Face ``evaluate``."""

from pal.metrics.hub import build_module

Module = build_module("persona_words")
