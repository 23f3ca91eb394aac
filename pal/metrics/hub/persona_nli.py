"""The family "persona_nli" for Hugging Face ``evaluate``."""

from pal.metrics.hub import build_module

Module = build_module("persona_nli")
