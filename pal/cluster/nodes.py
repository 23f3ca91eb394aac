"""What a process on another node needs, to compute the same as the process that asks it."""

import os
import pickle
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pal.core.errors import ConfigError, OutputError, PalError
from pal.core.files import source_fingerprint
from pal.core.job import COMPUTING, version_of

# Variables that decide where libraries look for files and what they send; a node gets the driver's.
FORWARDED = ("ACCELERATE_", "FSDP_", "HF_", "TRANSFORMERS_", "VLLM_", "WANDB_", "XDG_CACHE_HOME")


Failure = TypeVar("Failure", bound=BaseException)


@dataclass(frozen=True, kw_only=True)
class NodeContext:
    """What work on a node needs of the process that asks for it.

    Attributes:
        directory: the working directory, which relative paths start from.
        environment: variables of the environment.
        modules: folders that modules of the user's are imported from.
        versions: versions that decide results.
        trusted: classes from outside the package that the user named.
    """

    directory: Path
    environment: Mapping[str, str]
    modules: Sequence[str]
    versions: Mapping[str, str | None]
    trusted: Sequence[str] = ()

    @classmethod
    def of_driver(cls, packages: Sequence[str] = COMPUTING) -> "NodeContext":
        """Return that of this process.

        Args:
            packages: packages, besides this one, whose versions decide results.
        """
        return NodeContext(**describe_process((), packages))

    def enter(self) -> None:
        """Make this process one that computes the same as the one that asks.

        Raises:
            ConfigError: it cannot: another folder, or other versions.
        """
        from pal.core.registry import trust
        from pal.core.runtime import configure_runtime, show_messages

        here = socket.gethostname()
        if not self.directory.is_dir():
            raise not_shared(here, self.directory)
        others = [
            f"{name} {version_of(name)}, not {version}"
            for name, version in self.versions.items()
            if version_of(name) != version
        ]
        if others:
            raise ConfigError(
                f"{here} has {others[0]} as the driver has; results depend on it, so install the "
                "same versions on all nodes"
            )
        os.chdir(self.directory)
        for name, value in self.environment.items():
            os.environ.setdefault(name, value)
        sys.path += [path for path in self.modules if path not in sys.path]
        trust(*self.trusted)
        configure_runtime()
        show_messages()


def describe_process(
    variables: Sequence[str] | None, packages: Sequence[str] = COMPUTING
) -> dict[str, Any]:
    """Return what a :class:`NodeContext` says of this process.

    Args:
        variables: variables to hand over besides the libraries'; None where the other process has
            this one's environment anyway, so that no key is written anywhere.
        packages: packages, besides this one, whose versions decide results.
    """
    from pal.core.registry import trusted_names

    return {
        "directory": Path.cwd(),
        "environment": {} if variables is None else {
            name: value for name, value in os.environ.items()
            if name.startswith(FORWARDED) or name in variables
        },
        "modules": [os.path.abspath(path) for path in sys.path],
        "versions": {name: version_of(name) for name in ("pal-esc", *packages)},
        "trusted": trusted_names(),
    }  # fmt: skip


def check_source(key: str, source: str, fingerprint: str) -> None:
    """Make sure that a model is the same on this node as on the driver.

    Args:
        key: the setting that names it.
        source: folder or hub id.
        fingerprint: its :func:`pal.core.files.source_fingerprint` on the driver.

    Raises:
        ConfigError: it is another one, or not there.
    """
    if source_fingerprint(source) != fingerprint:
        raise ConfigError(
            f"{key}={source} is not the same on {socket.gethostname()} as on the driver; give a "
            "folder on storage that all nodes share, or a hub id"
        )


def not_shared(host: str, path: Path) -> ConfigError:
    """Return the error of a node that does not see a folder as the driver does."""
    return ConfigError(
        f"{host} does not see {path} as the driver does; output_dir, the data and the working "
        "directory must be on storage that all nodes share, under the same paths"
    )


def portable_error(error: Failure) -> Failure | OutputError | RuntimeError:
    """Return an error that can travel to another process: itself, or one with its message."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        plain = OutputError if isinstance(error, PalError) else RuntimeError
        return plain(f"{type(error).__name__}: {error}")
