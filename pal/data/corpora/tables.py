"""Reader of CSV and TSV with one row per turn, and grouping of turns into dialogues."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pal.core.errors import DataError, suggest
from pal.data.corpora import SEPARATOR_LINE, CorpusFile, CorpusReader

# Names of columns that are recognised, in lower case; the first one found is used.
USUAL_COLUMNS: dict[str, tuple[str, ...]] = {
    "dialogue": (
        "dialogue",
        "dialog",
        "dialogue_id",
        "dialog_id",
        "conversation",
        "conversation_id",
        "conv_id",
    ),
    "speaker": ("speaker", "role"),
    "text": ("text", "utterance", "content", "message"),
    "strategy": ("strategy",),
    "persona": ("persona",),
}
# Columns that describe a dialogue.
DESCRIPTION = ("experience_type", "emotion_type", "problem_type", "situation")
NEEDED = ("dialogue", "speaker", "text")
ROWS_TO_GUESS = 100  # by which columns of other names are guessed
# Columns that number turns; nothing is read from them, but they tell rows that are out of order.
NUMBERS = ("turn", "turn_id", "turn_index", "turn_number", "utterance_id", "utterance_index",
           "index", "idx", "nr", "no", "number", "order", "position", "step", "seq")  # fmt: skip


class TableReader(CorpusReader):
    """Reads CSV or TSV with a header; rows are turns, see :func:`group_turns`."""

    def recognises(self, file: CorpusFile) -> bool:
        """Return whether the name is of CSV or TSV, or the header has the usual columns."""
        if file.ending in (".csv", ".tsv"):
            return True
        if file.first_line.startswith(("{", "[")):
            return False
        names = {name.lower() for name in header_names(file.beginning)}
        return all(names & set(USUAL_COLUMNS[role]) for role in NEEDED)

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Yield every row as a mapping; an empty cell is None."""
        for line, row in table_rows(file.text, file.name):
            yield f"line {line}", {column: cell or None for column, cell in row.items()}


def find_separator(text: str) -> tuple[str, str, str]:
    r"""Return what separates a table's cells, the table, and what is wrong with its first line.

    A first line ``sep=;``, as Excel reads it, names the separator, and is blank in the table, whose
    lines keep their numbers. Without it, the separator is the most frequent of TAB, comma and
    semicolon outside the quotes of the header. The third text is empty if nothing is wrong.

    Args:
        text: contents of the file.

    Example:
        >>> find_separator('sep=|\nid|text\n')[:2], find_separator('id;"a, b, or c"\n')[0]
        (('|', '\nid|text\n'), ';')
    """
    told = SEPARATOR_LINE.match(text)
    if told:
        text = "\n" * told[0].count("\n") + text[told.end() :]
    header = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    usual = max("\t,;", key=header.count)
    if told is None:
        return usual, text, ""
    if told[1] in header or usual not in header:
        return told[1], text, ""
    wrong = f"the first line names {told[1]!r} as the separator, and the header has {usual!r}"
    return usual, text, f"{wrong}; correct or delete the first line"


def header_names(text: str) -> set[str]:
    """Return the names of a table's columns, to recognise what the table is.

    A separator within quotes is taken for one, and a quotation mark may be missing.

    Args:
        text: contents of the file, or their beginning.

    Example:
        >>> sorted(header_names('id;"text"'))
        ['id', 'text']
    """
    separator, table, _ = find_separator(text)
    header = table.strip().partition("\n")[0]
    return {cell.strip(' "') for cell in header.split(separator)}


def table_rows(text: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    r"""Yield (line, cells by column) of every row of a CSV that is not blank.

    The line is the first of the row, counted from 1; a row may go over several. A column without a
    name, such as pandas' index, is called after its place. :func:`find_separator` tells the cells
    apart.

    Args:
        text: contents of the file.
        name: the file, for messages.

    Raises:
        DataError: a row is not CSV, or has more or fewer cells than the header, or two columns have
            one name, or the first line names another separator than the header has.

    Example:
        >>> list(table_rows("id,text,\n\n1,Hi,x\n", "a.csv"))
        [(3, {'id': '1', 'text': 'Hi', 'column 3': 'x'})]
    """
    separator, table, wrong = find_separator(text)
    if wrong:
        raise DataError(f"{name}: {wrong}")
    other = "" if table == text else ", or correct the first line, which names the separator"
    rows = csv.reader(io.StringIO(table, newline=""), delimiter=separator, strict=True)
    line = 1
    header: list[str] = []
    try:
        for row in rows:
            if any(row) and not header:
                header = [cell.strip() or f"column {n}" for n, cell in enumerate(row, start=1)]
                _refuse_repeated(header, f"{name}, line {line}")
            elif any(row):
                if len(row) != len(header):
                    raise DataError(
                        f"{name}, line {line}: expected {len(header)} cells, as the header has, "
                        f"got {len(row)}; complete the row, or put cells that hold {separator!r} "
                        f"into double quotes{other}"
                    )
                yield line, dict(zip(header, row, strict=True))
            line = rows.line_num + 1
    except csv.Error as error:
        problem = f"not valid CSV ({error}); correct that row, such as quotes that are not closed"
        if "field limit" in str(error):
            problem = (
                f"a cell of more than {csv.field_size_limit():,} characters; close its quotes if "
                "they are open, or shorten it"
            )
        raise DataError(f"{name}, line {line}: {problem}") from None


def _refuse_repeated(header: list[str], where: str) -> None:
    """Refuse a header of which two columns have one name, in whatever letter case."""
    names = [name.lower() for name in header]
    twice = next((name for name in header if names.count(name.lower()) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: the column {twice!r} occurs twice in the header; rename one")


class TableTurn(dict[str, Any]):
    """A turn that was a row of a table.

    Attributes:
        where: the row, for messages.
        columns: column of every role.
    """

    __slots__ = ("columns", "where")

    def __init__(self, values: dict[str, Any], where: str, columns: Mapping[str, str]) -> None:
        """Remember where the values were."""
        super().__init__(values)
        self.where = where
        self.columns = columns


def find_columns(
    names: Iterable[str], given: Mapping[str, str | None], where: str
) -> dict[str, str] | None:
    """Return the column of every role in a table, or None if the usual columns are missing.

    Args:
        names: the table's columns.
        given: role → column, from the user's settings; None for the usual names.
        where: the file, for messages.

    Raises:
        DataError: a given column is missing.
    """
    names = [str(name) for name in names]
    by_lower_name = {name.lower(): name for name in reversed(names)}
    found = {}
    for role, usual in USUAL_COLUMNS.items():
        wanted = given.get(role)
        if wanted is not None and wanted not in names:
            raise DataError(
                f"{where}: no column {wanted!r}, which data.columns.{role} names"
                f"{suggest(wanted, names)} (columns: {', '.join(names)[:300]})"
            )
        column = wanted or next((by_lower_name[n] for n in usual if n in by_lower_name), None)
        if column is not None:
            found[role] = column
    return found if all(role in found for role in NEEDED) else None


def _guess_columns(rows: list[Any]) -> str:
    """Return what may be given as ``data.columns``, for the user to complete and correct.

    The speaker's column holds nothing but names of speakers, the text's is three times as long as
    any other, and the dialogue's is only known by its usual name.
    """
    from pal.data.records import SPEAKERS  # which imports this module

    cells = {
        name: [str(row.get(name) or "").strip() for row in rows if isinstance(row, dict)]
        for name in map(str, rows[0])
    }
    found = {
        role: name for role in NEEDED for name in cells
        if re.sub(r"\W+", "_", name.lower()) in USUAL_COLUMNS[role]  # as "Dialogue ID"
    }  # fmt: skip
    speakers = [name for name, its in cells.items() if {one.lower() for one in its} <= {*SPEAKERS}]
    lengths = sorted((sum(map(len, its)), name) for name, its in cells.items())
    if len(speakers) == 1:
        found.setdefault("speaker", speakers[0])
    longest = len(lengths) > 1 and lengths[-1][0] > 3 * lengths[-2][0] and lengths[-1][1]
    if longest and longest not in found.values():
        found.setdefault("text", longest)
    plain = re.compile(r"(?!(null|true|false|yes|no|on|off|y|n)$)[^\W\d][\w .-]*", re.IGNORECASE)
    found = {role: name for role, name in found.items() if plain.fullmatch(name)}
    return ", ".join(f"{role}: {found.get(role, '…')}" for role in NEEDED)


def is_turn_table(record: Any, columns: Mapping[str, str | None]) -> bool:
    """Return whether the first record of a file is a turn and not a dialogue."""
    if not isinstance(record, dict) or "dialog" in record:
        return False
    names = {str(key) for key in record}
    if names & {name for name in columns.values() if name is not None}:
        return True
    return bool({name.lower() for name in names} & set(USUAL_COLUMNS["speaker"]))


def group_turns(
    rows: Iterable[tuple[str, Any]], columns: Mapping[str, str | None], name: str
) -> Iterator[tuple[str, Any]]:
    """Yield (place of the first turn, dialogue) from turns that are sorted by dialogue and turn.

    The first turn of a dialogue gives the dialogue's own values, in columns of :data:`DESCRIPTION`.
    Any of its turns may make it a request, in a column ``request``.

    A turn is a :class:`TableTurn`, so that later messages can name its row.

    Raises:
        DataError: columns are missing, or the turns of a dialogue are not consecutive, or not in
            the order of the column that numbers them.
    """
    dialogues: dict[str, tuple[str, dict[str, Any]]] = {}
    roles: dict[str, str] | None = None
    last = None
    counter: str | None = None
    before: int | None = None
    for place, row in rows:
        # A reader of files with a dialogue per record counted the rows as dialogues.
        where = re.sub(r" \(dialogue \d+\)$", "", place).replace("dialogue", "row")
        if not isinstance(row, dict):
            raise DataError(f"{name}, {where}: expected an object, got {type(row).__name__}")
        if roles is None:
            roles = find_columns(row, columns, name)
            if roles is None:
                first = [row, *(other for _, other in islice(rows, ROWS_TO_GUESS))]
                known = {str(column).lower() for column in row}
                unknown = [
                    role for role in NEEDED
                    if not columns.get(role) and not known & set(USUAL_COLUMNS[role])
                ]  # fmt: skip
                raise DataError(
                    f"{name}: no column has a usual name for the {' and the '.join(unknown)} "
                    f"(columns: {', '.join(map(str, row))[:300]}); say which it is: "
                    f"data.columns='{{{_guess_columns(first)}}}'"
                )
            others = [str(column) for column in row if column not in roles.values()]
            counter = next((column for column in others if column.lower() in NUMBERS), None)
        values = TableTurn(
            {role: row.get(column) for role, column in roles.items()}, f"{name}, {where}", roles
        )
        key = values.pop("dialogue")
        if key is None or isinstance(key, float | bool | list | dict):
            raise DataError(
                f"{name}, {where}: the dialogue's id in column {roles['dialogue']!r} must be text "
                f"or a whole number, got {key!r:.60}"
            )
        ident = str(key)
        if ident not in dialogues:
            head = {key: told for key in DESCRIPTION if (told := _cell(row, key)) is not None}
            dialogues[ident] = where, {**head, "id": ident, "dialog": []}
        elif ident != last:
            raise DataError(
                f"{name}, {where}: turns of dialogue {ident!r} are not consecutive: their order is "
                "unknown; sort the file by dialogue and turn"
            )
        number = _whole_number(row.get(counter)) if counter else None
        if ident == last and number is not None and before is not None and number < before:
            raise DataError(
                f"{name}, {where}: column {counter!r} goes from {before} down to {number} within "
                f"dialogue {ident!r}; sort the file by dialogue and turn, or rename that column if "
                "it does not number the turns"
            )
        last, before = ident, number
        record = dialogues[ident][1]
        record["dialog"].append(values)
        told = _cell(row, "request")
        if told is not None:
            truth = {"true": True, "false": False}.get(str(told).strip().lower(), told)
            record["request"] = record.get("request") or truth
    for index, (where, record) in enumerate(dialogues.values()):
        yield f"{where} (dialogue {index})", record


def _cell(row: Mapping[Any, Any], name: str) -> Any:
    """Return what a row says in the column of a name, in whatever letter case; None if nothing."""
    return next((row[column] for column in row if str(column).lower() == name), None)


def _whole_number(value: Any) -> int | None:
    """Return the whole number that a cell holds, if it does; pandas writes ``1.0`` beside a gap."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(\.0+)?\s*", value):
        return int(value.partition(".")[0])
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
