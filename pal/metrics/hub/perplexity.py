"""The family "perplexity" for Hugging Face ``evaluate``."""

from pal.metrics.hub import build_module

Module = build_module("perplexity")
