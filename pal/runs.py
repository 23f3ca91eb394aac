"""Records of runs: what made an output, and the hash that tells whether it is made already."""

import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from pal.records import fingerprint, write_json
from pal.settings import Settings

SECRET = ("token", "key", "password", "secret")
PACKAGES = (
    "pal-esc", "torch", "transformers", "tokenizers", "datasets", "accelerate",
    "sentence-transformers", "evaluate", "nltk", "numpy", "scipy", "optuna", "rapidfuzz",
    "openai",
)  # fmt: skip


def describe_run(settings: Settings, command: str, identity: str, **facts: Any) -> dict[str, Any]:
    """Return what made an output: resolved settings, versions, git commit, machine, seed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    resolved = redact(settings.model_dump())
    return {
        "identity": identity,
        "command": command,
        "seed": settings.seed,
        "settings": resolved,
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **facts,
    }


def redact(tree: Any) -> Any:
    """Return nested settings with None for whatever a key calls a token, key or password."""
    if isinstance(tree, dict):
        return {
            key: None if str(key).endswith(SECRET) and isinstance(value, str) else redact(value)
            for key, value in tree.items()
        }
    return [redact(value) for value in tree] if isinstance(tree, list) else tree


def write_run(path: str | Path, settings: Settings, command: str, identity: str, **facts: Any):
    """Write the record of a run beside its output (see :func:`describe_run`)."""
    write_json(path, describe_run(settings, command, identity, **facts))


def identity_of(settings: Settings, *names: str, **more: Any) -> str:
    """Hash the named settings and further facts (input and weight hashes)."""
    return fingerprint([{name: settings.model_dump()[name] for name in names}, more])


def _git_commit() -> str | None:
    """The commit of the source tree the package runs from; None for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
