"""What a study shows to whom: situations or persona samples, dealt to raters, with secret sides."""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pal.core.errors import DataError
from pal.core.files import read_text
from pal.data.settings import SourceSettings
from pal.study.store import NewTask

Items = dict[str, dict[str, Any]]


def read_situations(
    source: str, split: str | None, how: SourceSettings, limit: int | None
) -> list[str]:
    """Return the different situations of a file, in order.

    Args:
        source: a .txt file with a situation a line, or dialogues that have situations.
        split: split of dialogues.
        how: how dialogues are read.
        limit: dialogues or lines that are read, at most.

    Raises:
        DataError: it cannot be read or holds no situation.
    """
    if source.endswith(".txt") and Path(source).is_file():
        found: list[str] = read_text(source).splitlines()[:limit]
    else:
        from pal.data.splits import load_split

        dialogues = load_split(source, split, how=how, requests=True, by_name=True)
        rows = list(dialogues)[:limit]
        found = [row["situation"] or "" for row in rows]
    situations = list(dict.fromkeys(text for one in found if (text := " ".join(one.split()))))
    if not situations:
        raise DataError(
            f"{source}: no situations; give a .txt file with one per line, or dialogues with the "
            "key situation"
        )
    return situations


def read_persona_samples(
    source: str, split: str | None, how: SourceSettings, limit: int | None
) -> list[dict[str, Any]]:
    """Return what raters of personas are shown: conversations and what was inferred from them.

    Raises:
        DataError: it cannot be read, or no turn has a persona.
    """
    from pal.data.samples import load_samples

    samples = load_samples(source, split, how, limit=limit)
    found = [
        {
            "sample": sample.id,
            "context": [[turn["speaker"].capitalize(), turn["text"]] for turn in sample.context],
            "persona": list(sample.persona),
        }
        for sample in samples if sample.persona
    ]  # fmt: skip
    if not found:
        raise DataError(
            f"{source}: no turn has a persona; `pal annotate` infers them; train its "
            "extractor for longer if it has found none"
        )
    return found


def draw_items(shown: Sequence[Mapping[str, Any]], count: int, seed: int) -> Items:
    """Draw items, from as many different dialogues as there are, with ids that say nothing.

    Args:
        shown: all there is; ``sample`` is an id, ``{dialogue}/{turn}`` for persona samples.
        count: items to draw, at most.
        seed: seed of the draw.
    """
    rng = random.Random(f"items {seed}")
    order = list(shown)
    rng.shuffle(order)
    used: Counter[str] = Counter()
    ranked = []
    for one in order:
        dialogue = re.sub(r"/\d+$", "", one["sample"])
        ranked.append((used[dialogue], one))
        used[dialogue] += 1
    ranked.sort(key=lambda pair: pair[0])
    return {_item_name(seed, one["sample"]): dict(one) for _, one in ranked[:count]}


def deal(
    items: Sequence[str], *, raters: int, each: int, systems: tuple[str, str] | None, seed: int
) -> list[list[NewTask]]:
    """Deal items to raters so that each item is seen about equally often, by different raters.

    Which system is A is drawn for every task; over the tasks of an item, and over all, each system
    is A equally often, up to one.

    Args:
        items: ids.
        raters: number of raters.
        each: items a rater gets, at most.
        systems: names of the two systems of a chat study.
        seed: seed of order and sides.
    """
    rng = random.Random(f"deal {seed}")
    each = min(each, len(items))
    dealt = []
    for rater in range(raters):
        mine = [items[(rater * each + step) % len(items)] for step in range(each)]
        rng.shuffle(mine)
        dealt.append(mine)
    if systems is None:
        return [[NewTask(item) for item in mine] for mine in dealt]
    sides = _sides(Counter(item for mine in dealt for item in mine), rng)
    return [
        [NewTask(item, systems if sides[item].pop() else systems[::-1]) for item in mine]
        for mine in dealt
    ]


def _sides(counts: Mapping[str, int], rng: random.Random) -> dict[str, list[bool]]:
    """Return for each task of an item whether the first system is A: half of each, shuffled."""
    odd = [item for item, count in counts.items() if count % 2]
    first = rng.random() < 0.5
    more = [(place % 2 == 0) == first for place in range(len(odd))]
    rng.shuffle(more)
    extra = dict(zip(odd, more, strict=True))
    found = {}
    for item, count in counts.items():
        sides = [place % 2 == 0 for place in range(count - count % 2)]
        sides += [extra[item]] if item in extra else []
        rng.shuffle(sides)
        found[item] = sides
    return found


def _item_name(seed: int, sample: str) -> str:
    return hashlib.blake2b(sample.encode(), key=str(seed).encode()[:64], digest_size=6).hexdigest()
