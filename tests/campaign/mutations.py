"""Damages that files and settings suffer: in their values, in their text, in their bytes.

All are drawn from a :class:`random.Random`, so that a failure can be made again from its number.
"""

import copy
import json

# Values that a place may hold in place of its own.
ODD_VALUES = (
    None, True, False, 0, -1, -3, 1, 7, 3.7, 1e308, -1e-300, 2**31, 2**63, 10**400,
    float("nan"), float("inf"), float("-inf"),
    "", " ", "x", "true", "NaN", "1e999", "-3", "\0", "\u200b", "\ufeff", "\ud800", "é😀\u2028",
    "x" * 3000, "9" * 5000, "<input><persona>", "2020-13-45", "=1+1", "../..", "/dev/null", "~",
    [], {}, [[]], {"": ""}, [None], ["x", 5], {"a": {"b": [1]}}, [{"speaker": "usr"}],
)  # fmt: skip

# Texts put into JSON that no value has.
MARKS = {
    '"@deep@"': "[" * 20_000,
    '"@closed@"': "[" * 3_000 + "]" * 3_000,
    '"@digits@"': "9" * 5000,
    '"@fraction@"': "0." + "9" * 5000,
    '"@bare@"': "oops",
    '"@half@"': '"\\ud83d"',
    '"@twice@"': '{"id": 1, "id": 2}',
}

# Unquoted and quoted scalars and structures of YAML.
ODD_YAML = (
    "~", "null", "true", "no", "yes", "1", "-1", "1.5", ".nan", ".inf", "-.inf", "nan", "inf",
    "1e999", "1e5", "0x1f", "0o17", "1_000", "2020-13-45", "2024-05-01", "12:30:45", "9" * 5000,
    "'1'", '"1"', '"\\ud800"', '"\\0"', '"\\x41"', "''", "[]", "{}", "[1, a]", "{a: 1}", "[[[]]]",
    "[" * 2000, "[" * 500 + "]" * 500, "!!int abc", "!!python/object/apply:os.getcwd []", "!x y",
    "!!binary aGk=", "!!set {a}", "!!timestamp 2024-05-01", "&a [*a]", "*nowhere", "&a x", "<<: *x",
    "{<<: {a: 1}}", "? x", "- x", "|\n  text", ">-\n  text", "@x", "%x", "`x`", "a: b: c", "\t",
    "\0", "\ud800", "\u200b", "é", "#", "{a: 1, a: 2}", "x" * 3000, "a,b,c", "Question",
    "32", "0.5",
)  # fmt: skip


def places(tree, path=()):
    """Return the paths of all values in a tree of lists and mappings."""
    found = [path]
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            found += places(value, (*path, key))
    return found


def damage_values(records, rng, times=None):
    """Return a list of records in which some values are others, missing, moved or twice there."""
    records = copy.deepcopy(records)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3, 5))):
        path = rng.choice(places(records))
        if not path:
            continue
        *before, key = path
        node = records
        for part in before:
            node = node[part]
        kind = rng.randrange(9)
        if kind <= 3:
            node[key] = copy.deepcopy(rng.choice(ODD_VALUES))
        elif kind == 4:
            node[key] = rng.choice([mark.strip('"') for mark in MARKS])
        elif kind == 5:
            del node[key]
        elif kind == 6 and isinstance(node, dict):
            node[rng.choice((f"{key}x", key.upper(), "id", "", "\u200b", "persona"))] = node[key]
        elif kind == 7:
            node[key] = [node[key]]
        else:
            other = records
            for part in rng.choice(places(records)):
                other = other[part]
            node[key] = copy.deepcopy(other)
    return records


def damage_one(record, rng, times=None):
    """Return a record, damaged as :func:`damage_values` does; it may be no record any more."""
    found = damage_values([record], rng, times)
    return found[0] if found else None


def dump(value, rng):
    """Return JSON of a value, with what no JSON writer writes."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    for mark, odd in MARKS.items():
        text = text.replace(mark, odd)
    return text


def damage_text(contents, rng, times=None):
    """Return bytes of which some are flipped, cut off, doubled, moved or others."""
    contents = bytearray(contents)
    for _ in range(times or rng.choice((1, 1, 2, 4))):
        size = len(contents)
        start = rng.randrange(size + 1)
        end = min(size, start + rng.choice((1, 1, 2, 10, 100)))
        kind = rng.randrange(9)
        if kind == 0 and start < size:
            contents[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del contents[start:end]
        elif kind == 2:
            contents[start:start] = contents[start:end] * rng.choice((1, 2, 50))
        elif kind == 3:
            del contents[start:]
        elif kind == 4:
            contents[start:end] = b"\0" * (end - start)
        elif kind == 5:
            contents[start:end] = rng.randbytes(end - start)
        elif kind == 6:
            marks = b'{}[]",:\\\n\r\t|\xff\xed\xa0\x80'
            contents[start:start] = bytes(rng.choice(marks) for _ in range(rng.choice((1, 3))))
        elif kind == 7:
            lines = contents.split(b"\n")
            rng.shuffle(lines)
            contents = bytearray(b"\n".join(lines))
        else:
            contents[:0] = rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"PAR1", b"\n\n"))
    return bytes(contents)
