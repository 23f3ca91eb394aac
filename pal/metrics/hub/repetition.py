"""The family "repetition" for Hugging Face ``evaluate``."""

from pal.metrics.hub import build_module

Module = build_module("repetition")
