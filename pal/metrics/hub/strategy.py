"""The family "strategy" for Hugging Face ``evaluate``."""

from pal.metrics.hub import build_module

Module = build_module("strategy")
