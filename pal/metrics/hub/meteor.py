"""The family "meteor" for Hugging Face ``evaluate``."""

from pal.metrics.hub import build_module

Module = build_module("meteor")
