"""Sources of dialogues: files, folders of splits, the hub, or memory."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from pal.core.errors import CheckpointError, DataError, first_line, suggest
from pal.core.files import COMPRESSED, kind_of, near_path, no_such
from pal.core.hub import go_offline_without_network, is_out_of_reach
from pal.core.job import STARTED
from pal.data.corpora import ENDINGS, CorpusFile, find_reader
from pal.data.corpora.tables import USUAL_COLUMNS, TableReader, group_turns, is_turn_table
from pal.data.records import fail_at

logger = logging.getLogger(__name__)

# Names of splits, and the possible beginnings of their file names.
SPLIT_STEMS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
SPLITS = tuple(SPLIT_STEMS)

# (place, default id, record) of every dialogue.
Entries = Iterator[tuple[str, str, Any]]

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_ENDING = rf"({'|'.join(map(re.escape, ENDINGS))})({'|'.join(map(re.escape, COMPRESSED))})?"
_SPLIT_FILE = re.compile(rf"([a-z]+)(?:-(\d{{5}})-of-(\d{{5}}))?{_ENDING}")


def has_splits(source: Any) -> bool:
    """Return whether a source has splits: it is a folder, a hub id or a ``DatasetDict``."""
    if isinstance(source, Mapping):
        return True
    if not isinstance(source, str | PurePath):
        return False
    if kind_of(source) == "folder":
        return not _is_saved(Path(source), "state.json")
    return kind_of(source) == "nothing" and is_hub_id(source)


def has_split(source: Any, split: str) -> bool:
    """Return whether a source has this split; of all but folders of files, reading tells."""
    if kind_of(source) != "folder" or _is_saved(Path(source), "dataset_dict.json"):
        return True
    return split in _split_files(Path(source), None)


def split_of_name(source: Any) -> str | None:
    """Return the split that a file name means, such as ``train.jsonl`` or a part as on the hub."""
    if not isinstance(source, str | PurePath) or kind_of(source) != "file":
        return None
    match = _SPLIT_FILE.fullmatch(PurePath(source).name)
    stem = match[1] if match else ""
    return next((split for split, stems in SPLIT_STEMS.items() if stem in stems), None)


def is_hub_id(source: str | PurePath) -> bool:
    """Return whether the hub may have a name at which nothing lies: it is of the form owner/name.

    Where a folder ``owner`` lies, a slip of what is in it is no name of the hub.

    Example:
        >>> is_hub_id("runs/tinny"), is_hub_id("facebook/bart-base")  # where runs/tiny lies
        (False, True)
    """
    if not _may_be_on_hub(source):
        return False
    return not Path(source).parent.is_dir() or near_path(source) is None


def _may_be_on_hub(source: str | PurePath) -> bool:
    name = str(source)
    return bool(_HUB_ID.fullmatch(name)) and not name.endswith((*ENDINGS, *COMPRESSED))


def is_missing(source: str | PurePath) -> bool:
    """Return whether nothing is there, and no hub could have it."""
    return kind_of(source) == "nothing" and not is_hub_id(source)


def no_such_source(
    source: str | PurePath, what: str = "file", remedy: str = "check the path"
) -> str:
    """Return what to say of a source that :func:`is_missing`, as :func:`pal.core.files.no_such`.

    Of a name that the hub could have, it says why the hub is not asked.

    Example:
        >>> no_such_source("runs/tinny", "folder")  # where runs/tiny lies
        "no such folder; did you mean 'runs/tiny'? (For one of the hub, run where no runs/ lies.)"
    """
    told = no_such(source, what, remedy)
    if not _may_be_on_hub(source):
        return told
    return f"{told} (For one of the hub, run where no {PurePath(source).parent}/ lies.)"


def check_model_place(
    source: str | PurePath, where: str, remedy: str, *, own: bool = False
) -> None:
    """Refuse the path of a model at which there is nothing; what the hub may have is left to it.

    Args:
        source: folder or hub id.
        where: the setting that named it, for messages.
        remedy: what to give instead.
        own: whether training here writes such models. The hub has none of them without an owner;
            of others it has, as ``gpt2``.

    Raises:
        CheckpointError: nothing is there, and no hub could have it.

    Example:
        >>> check_model_place("runs/tinny/model", "model=runs/tinny/model", "give another folder")
        CheckpointError: model=runs/tinny/model: no such folder; did you mean 'runs/tiny/model'?
    """
    if (own or "/" in str(source)) and is_missing(source):
        raise CheckpointError(f"{where}: {no_such_source(source, 'folder', remedy)}")


def check_model_folder(
    source: str | PurePath,
    where: str,
    remedy: str,
    *,
    files: Sequence[str] = ("config.json", "pal_config.json"),
) -> None:
    """Refuse a file, and a folder that holds no model; what else is wrong with it, loading tells.

    Args:
        source: folder or hub id; where nothing lies there, nothing is said.
        where: the setting that named it, for messages.
        remedy: what to give instead.
        files: one of these is in every folder of such a model. The second default is the
            configuration of trained adapters.

    Raises:
        CheckpointError: there is no model; of a folder of models, the message names them.

    Example:
        >>> check_model_folder("runs/q", "model=runs/q", "give another folder")
        CheckpointError: model=runs/q: no model itself, a folder of others; give runs/q/model
    """
    kind, folder = kind_of(source), Path(source)
    if kind == "nothing":
        return
    if kind != "folder":
        raise CheckpointError(f"{where}: no model there (a {kind}, not a folder); {remedy}")
    if (folder / STARTED).is_file() and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{where}: its training has not ended; run the same `pal train` or `pal quickstart` "
            "again, or give one of its checkpoints"
        )
    if any((folder / name).is_file() for name in files):
        return
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.gguf")]
    inside = [] if any(map(Path.is_file, weights)) else sorted(folder.glob("*/config.json"))
    if inside:
        meant = " or ".join(str(path.parent) for path in inside[:3])
        raise CheckpointError(f"{where}: no model itself, a folder of others; give {meant}")
    raise CheckpointError(f"{where}: no model there (it holds no {files[0]}); {remedy}")


def check_downloaded(source: str | PurePath, where: str, remedy: str) -> None:
    """Refuse a model of the hub that HF_HUB_OFFLINE keeps from being fetched, asking no network.

    Args:
        source: folder or hub id.
        where: the setting that named it, for messages.
        remedy: what to give instead.

    Raises:
        CheckpointError: it is neither a folder nor was anything of it downloaded before.
    """
    if kind_of(source) == "nothing" and is_out_of_reach(str(source)):
        raise CheckpointError(
            f"{where}: no such folder, and not downloaded before, with HF_HUB_OFFLINE set; {remedy}"
        )


def read_entries(
    source: Any,
    split: str | None = None,
    *,
    reader: str | None = None,
    columns: Mapping[str, str | None] | None = None,
) -> Entries:
    """Yield the records of a source.

    Args:
        source: a file, folder or hub id; a list of files; a list of dialogues; or a ``Dataset``.
        split: one of ``SPLITS``, for a source with splits; None joins all of them in that order.
        reader: see :func:`pal.data.corpora.find_reader`; None recognises each file.
        columns: column of every role in a table with one row per turn.

    Raises:
        DataError: the source is missing or cannot be read.
    """
    if split is not None and split not in SPLITS:
        raise DataError(
            f"unknown split {split!r}{suggest(split, SPLITS)} (allowed: {', '.join(SPLITS)})"
        )
    columns = columns or {}
    for role in columns:
        if role not in USUAL_COLUMNS:
            raise DataError(
                f"columns: unknown part {role!r}{suggest(role, USUAL_COLUMNS)} "
                f"(allowed: {', '.join(USUAL_COLUMNS)})"
            )
    if isinstance(source, str | PurePath):
        yield from _read_named(source, split, reader, columns)
        return
    if isinstance(source, Mapping) and all(hasattr(part, "column_names") for part in
                                           source.values()):  # fmt: skip
        yield from _read_splits(source, split, "the data set", "dialogues", columns)
        return
    if split is not None:
        fail_at("dialogues in memory", f"they have no split {split!r}; give them without one")
    if hasattr(source, "column_names") and hasattr(source, "to_list"):
        named = ((f"dialogue {index}", record) for index, record in enumerate(source))
        yield from _name_entries(named, "dialogues", "dialogues", columns)
        return
    if not isinstance(source, list | tuple):
        raise DataError(
            f"dialogues cannot be read from {type(source).__name__}; give a file, a folder, a "
            "hub id, a list of files, a list of dialogues (mappings), or a datasets.Dataset"
        )
    kinds = {isinstance(item, str | PurePath) for item in source}
    if kinds == {True}:
        yield from _read_several(source, reader, columns)
    elif kinds == {False}:
        named = ((f"dialogue {index}", record) for index, record in enumerate(source))
        yield from _name_entries(named, "dialogues", "dialogues", columns)
    elif kinds:
        raise DataError("a list of dialogues holds names of files too; give one kind at a time")


def _read_named(
    source: str | PurePath, split: str | None, reader: str | None, columns: Mapping[str, Any]
) -> Entries:
    kind = kind_of(source)
    path = Path(source)
    if kind == "folder":
        if _is_saved(path, "dataset_dict.json") or _is_saved(path, "state.json"):
            yield from _read_saved(path, split, columns)
            return
        for name, files in _split_files(path, split).items():
            yield from _read_files(files, files[0].name.split(".")[0].split("-")[0] or name,
                                   reader, columns)  # fmt: skip
    elif kind != "nothing":
        if split is not None:
            fail_at(str(source), f"a file has no split {split!r}; give a folder, or no split")
        yield from _read_files([path], default_name(path), reader, columns)
    elif is_hub_id(source):
        yield from _read_hub(str(source), split, columns)
    else:
        shown = ascii(str(source))[:120] if "\0" in str(source) else str(source)[-300:]
        fail_at(shown, no_such_source(source))


def default_name(path: Path) -> str:
    """Return the prefix of default ids for a file: its name without endings.

    The name of a pipe is not used, since it may differ between runs.
    """
    if kind_of(path) == "pipe":
        return "pipe"
    name = path.name
    for endings in (COMPRESSED, ENDINGS):
        name = next((name.removesuffix(e) for e in endings if name.lower().endswith(e)), name)
    return name if name != path.name else path.stem


def _read_several(
    paths: Sequence[str | PurePath], reader: str | None, columns: Mapping[str, Any]
) -> Entries:
    seen: dict[str, int] = {}
    for item in paths:
        path = Path(item)
        stem = default_name(path)
        seen[stem] = seen.get(stem, 0) + 1
        if kind_of(path) in ("nothing", "folder"):
            fail_at(str(item), no_such(path, remedy="give a list of files, or one folder"))
        name = stem if seen[stem] == 1 else f"{stem}_{seen[stem]}"
        yield from _read_files([path], name, reader, columns)


def _read_files(
    paths: Sequence[Path], stem: str, reader: str | None, columns: Mapping[str, Any]
) -> Entries:
    """Read the parts of one split, or one file."""
    count = 0
    for path in paths:
        ending = path.name.lower()
        for compressed in COMPRESSED:
            ending = ending.removesuffix(compressed)
        file = CorpusFile(str(path), PurePath(ending).suffix)
        chosen = find_reader(file, reader)
        turns = True if isinstance(chosen, TableReader) else None
        for entry in _name_entries(chosen.read(file), str(path), stem, columns, count, turns):
            count += 1
            yield entry


def _name_entries(
    records: Iterator[tuple[str, Any]],
    name: str,
    stem: str,
    columns: Mapping[str, Any],
    start: int = 0,
    turns: bool | None = None,
) -> Entries:
    """Group single turns, and give every dialogue its full place and default id."""
    first = next(records, None)
    if first is None:
        return
    if is_turn_table(first[1], columns) if turns is None else turns:
        records, first = group_turns(_chain(first, records), columns, name), None
    if first is not None:
        records = _chain(first, records)
    for index, (where, record) in enumerate(records, start=start):
        yield f"{name}, {where}", f"{stem}-{index:05d}", record


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


# Folders.


def _split_files(folder: Path, split: str | None) -> dict[str, list[Path]]:
    """Return the files of every split: ``train.jsonl``, or parts as on the hub."""
    found = _files_of(folder)
    if not found and (folder / "data").is_dir():  # a clone of a hub repository
        found = _files_of(folder / "data")
    if not found or (split is not None and split not in found):
        have = ", ".join(file.name for files in found.values() for file in files) or "no split"
        fail_at(
            str(folder),
            f"expected {split or 'train, validation or test'}.jsonl or .json (or .txt, .parquet, "
            f".csv …) in the folder, got {have[:300]}; add the file, or name one",
        )
    return found if split is None else {split: found[split]}


def _files_of(folder: Path) -> dict[str, list[Path]]:
    by_stem: dict[str, list[tuple[int, str, Path]]] = {}
    parts: dict[str, str | None] = {}
    try:
        names = sorted(folder.iterdir())
    except OSError as error:
        fail_at(str(folder), f"cannot be read ({error.strerror})")
    for path in names:
        match = _SPLIT_FILE.fullmatch(path.name)
        if match and path.is_file():
            stem, number, total, ending, packed = match.groups()
            kind = f"{ending}{packed or ''}"
            by_stem.setdefault(stem, []).append((ENDINGS.index(ending), kind, path))
            parts[str(path)] = total if number is not None else None
    found: dict[str, list[Path]] = {}
    for split, stems in SPLIT_STEMS.items():
        candidates = [c for stem in stems for c in sorted(by_stem.get(stem, []))]
        if not candidates:
            continue
        _, kind, first = candidates[0]
        stem = first.name.split(".")[0].split("-")[0]
        total = parts[str(first)]
        files = [
            path for _, other, path in candidates
            if total is not None and other == kind and parts[str(path)] == total
            and path.name.startswith(f"{stem}-")
        ] or [first]  # fmt: skip
        if total is not None and len(files) != int(total):
            fail_at(
                str(folder),
                f"{len(files)} of the {int(total)} parts of {split} are there; fetch the others",
            )
        others = [path.name for _, _, path in candidates if path not in files]
        if others:
            logger.warning(
                "%s: %s is read from %s, not from %s", folder, split, files[0].name,
                ", ".join(others),
            )  # fmt: skip
        found[split] = files
    return found


def _is_saved(folder: Path, mark: str) -> bool:
    """Return whether ``save_to_disk`` wrote a folder, from a ``Dataset`` or a ``DatasetDict``."""
    return (folder / mark).is_file()


def _read_saved(folder: Path, split: str | None, columns: Mapping[str, Any]) -> Entries:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
        if not isinstance(saved, Mapping):
            if split is not None:
                fail_at(str(folder), f"a single data set has no split {split!r}; give no split")
            rows = enumerate(saved)
            named = ((f"dialogue {index}", record) for index, record in rows)
            yield from _name_entries(named, str(folder), folder.name, columns)
            return
    except DataError:
        raise
    except Exception as error:  # a damaged file can raise any error in the library
        fail_at(str(folder), f"a saved data set that cannot be loaded ({first_line(error)[:200]}); "
                "save it again")  # fmt: skip
    yield from _read_splits(saved, split, str(folder), "", columns)


# Data sets.


def _read_hub(hub_id: str, split: str | None, columns: Mapping[str, Any]) -> Entries:
    import datasets

    go_offline_without_network(hub_id)
    try:
        found = datasets.load_dataset(hub_id)
    except Exception as error:  # offline, unknown, private or malformed: the remedy is the same
        fail_at(
            hub_id,
            f"neither a local path nor an available data set of the hub ({first_line(error)}); "
            "give a local file or folder",
        )
    yield from _read_splits(found, split, hub_id, hub_id.split("/")[-1], columns)


def _read_splits(
    found: Mapping[str, Any], split: str | None, name: str, stem: str, columns: Mapping[str, Any]
) -> Entries:
    names = [part for part in SPLITS if part in found] if split is None else [split]
    if not names or names[0] not in found:
        shown = ", ".join(map(str, found))
        fail_at(name, f"no {split or 'train, validation or test'} split; it has {shown}")
    for part in names:
        default = f"{stem}-{part}" if stem else part
        rows = enumerate(found[part])
        records = ((f"dialogue {index}", record) for index, record in rows)
        yield from _name_entries(records, f"{name} ({part})", default, columns)
