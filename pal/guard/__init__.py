"""The guard: it watches what people say to a talking face for signs of suicide and self-harm.

It signposts and does not assess anybody: it misses about half of indirect messages, and it is no
safety net. ``docs/guard.md`` has what was measured.

Example:
    >>> guard = load_guard(GuardSettings(country="US"))
    >>> verdict = guard.review(["I can't stop thinking about ending my life."])
    >>> verdict.action, verdict.level
    ('fixed', 2)
"""

from pal.guard.guard import Guard, load_guard
from pal.guard.levels import Assessment, Verdict
from pal.guard.settings import GuardSettings

__all__ = ["Assessment", "Guard", "GuardSettings", "Verdict", "load_guard"]
