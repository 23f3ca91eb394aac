"""Human evaluation: blinded A/B sheets of responses out, wins, ties and losses back in.

``pal human-eval export`` reads ``human_eval.systems`` and the dialogues of ``input`` (none: the
systems' files hold whole dialogues, compared card by card), and writes the folder ``output``:
``for_raters/`` is handed out, ``key.json`` beside it is not. ``pal human-eval score`` reads that
folder as ``input`` and the filled-in sheets of ``human_eval.answers``, and writes ``output``
(human.json) with Markdown tables beside it.

Departure from the PAL paper (section 4.5, appendix F): its workers talked with both systems about a
situation; here raters compare two responses to one real context, which can be repeated exactly.
Responses of the same text are left out and counted apart: nobody has to be asked about them.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from pal.core.errors import ConfigError, DataError, OutputError, suggest
from pal.core.files import file_fingerprint, output_lock, read_jsonl, write_json, write_text
from pal.core.job import is_finished, record_path
from pal.core.runs import describe_run, identity_of, write_run
from pal.core.schema import HumanEvalSettings, Settings
from pal.data.predictions import read_predictions
from pal.data.samples import Sample, build_samples
from pal.human_eval.results import compare, results_tables, same_text
from pal.human_eval.sheets import (
    FOLDER,
    KEY,
    Comparison,
    Question,
    answer_files,
    read_answers,
    read_key,
    write_sheets,
)

logger = logging.getLogger(__name__)

# PAL paper, appendix F, Figure 7, worded for single responses.
PAL_QUESTIONS = (
    Question(
        "Coherence",
        "Which response makes more sense in itself and has more to do with what was said before?",
    ),
    Question(
        "Identification",
        "Which response explores your situation in more depth and helps more to find out what the "
        "problem is?",
    ),
    Question("Comforting", "Which response is more skilful at comforting you?"),
    Question("Suggestion", "Which response gives you more helpful suggestions for your problem?"),
    Question("Information", "Which response is more specific and contains more information?"),
    Question("Overall", "All in all, whose emotional support do you prefer?"),
)

# The trait paper, section 6.2 and Table 9, worded for two whole conversations.
DIALOGUE_QUESTIONS = (
    Question("Suggestion", "Which supporter gives more helpful advice?"),
    Question(
        "Consistency",
        "In which conversation do both keep to their roles more consistently and behave more "
        "coherently?",
    ),
    Question("Comforting", "Which supporter gives more emotional support?"),
    Question(
        "Identification",
        "Which supporter goes deeper into the seeker's situation and finds out better what the "
        "problem is?",
    ),
    Question("Overall", "All in all, which conversation is the better emotional support?"),
)


def export(settings: Settings) -> str:
    """Write blinded sheets of ``human_eval.systems`` into the folder ``output``.

    Returns:
        What was written, and what to hand out.

    Raises:
        PalError: settings, responses, dialogues or output cannot be used.
    """
    (target,) = settings.require("output")
    chosen = settings.human_eval
    pairs = _pairs(chosen)
    if settings.input is None:
        questions: Sequence[Question] = DIALOGUE_QUESTIONS
        responses = _dialogues(chosen.systems)
        samples = [Sample(id, id, 0, (), (), None, None) for id in responses[pairs[0][0]]]
    else:
        questions = PAL_QUESTIONS
        samples = _load_samples(settings)
        responses = _responses(chosen.systems, samples, settings.input)
    identity = identity_of(
        settings,
        chosen=chosen.model_dump(exclude={"answers"}),
        questions=[(question.name, question.text) for question in questions],
        files={name: file_fingerprint(Path(path)) for name, path in chosen.systems.items()},
        samples=[(sample.id, [turn["text"] for turn in sample.context]) for sample in samples],
    )
    folder = Path(target)
    record = folder / "run.json"
    if folder.is_file() or (folder.is_dir() and not record.exists() and any(folder.iterdir())):
        raise OutputError(f"{folder} exists and is no export; give the name of a new folder")
    done = record.exists() and is_finished(folder, identity, overwrite=settings.overwrite)
    if done and (folder / KEY).exists():
        logger.info("%s is finished already; overwrite=true would make it anew", folder)
        return _describe_export(folder, read_key(folder), chosen.items)
    comparisons, facts = _choose(pairs, samples, responses, chosen)
    with output_lock(folder / KEY):
        (folder / KEY).unlink(missing_ok=True)  # written last: without it an export is unfinished
        write_run(record, settings, "human-eval export", identity)
        key = write_sheets(folder, comparisons, questions, seed=chosen.seed, facts={"pairs": facts})
    return _describe_export(folder, key, chosen.items)


def _load_samples(settings: Settings) -> list[Sample]:
    from pal.data.splits import load_split

    (source,) = settings.require("input")
    dialogues = load_split(
        source, settings.split, mode=settings.data.split, seed=settings.data.split_seed,
        requests=True,
    )  # fmt: skip
    return build_samples(dialogues, settings.decoding.samples)


def _pairs(chosen: HumanEvalSettings) -> list[tuple[str, str]]:
    """Return the pairs of systems to compare.

    Raises:
        ConfigError: fewer than two systems, a name that is unknown or an answer, or a pair twice.
    """
    names = list(chosen.systems)
    if len(names) < 2:
        raise ConfigError(
            f"human_eval.systems: expected two or more, name → file, got {len(names)}"
        )
    if "Tie" in names:
        raise ConfigError("human_eval.systems: 'Tie' is an answer; give that system another name")
    if chosen.pairs is None:
        return [(names[0], name) for name in names[1:]]
    for pair in chosen.pairs:
        for name in pair:
            if name not in names:
                raise ConfigError(
                    f"human_eval.pairs: unknown system {name!r}{suggest(name, names)} "
                    f"(human_eval.systems has {', '.join(names)})"
                )
    distinct = {frozenset(pair) for pair in chosen.pairs}
    if not chosen.pairs or len(distinct) < len(chosen.pairs) or min(map(len, distinct)) < 2:
        raise ConfigError("human_eval.pairs: expected pairs of different systems, each pair once")
    return chosen.pairs


def _responses(
    systems: Mapping[str, str], samples: Sequence[Sample], source: str
) -> dict[str, dict[str, str]]:
    """Return {system: {sample id: response}}.

    Raises:
        DataError: systems answered different samples, or samples that ``input`` does not have.
    """
    known = {sample.id for sample in samples}
    responses: dict[str, dict[str, str]] = {}
    for name, path in systems.items():
        found = {record["id"]: record["response"] for record in read_predictions(path)}
        unknown = [sample for sample in found if sample not in known]
        if unknown:
            raise DataError(
                f"{path}: {len(unknown)} ids are no samples of {source}, the first "
                f"{unknown[0]!r}; give the input the responses were made from"
            )
        responses[name] = found
    for one, other in combinations(systems, 2):
        apart = sorted(responses[one].keys() ^ responses[other].keys())
        if apart:
            raise DataError(
                f"{systems[one]} and {systems[other]}: {len(apart)} samples are answered in one "
                f"only, the first {apart[0]!r}; give responses to the same samples"
            )
    return responses


def _dialogues(systems: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return {system: {card: transcript}} of the cards that every system has a dialogue of.

    Raises:
        DataError: there is no such card (see :func:`_transcripts` for others).
    """
    found = {name: _transcripts(name, path) for name, path in systems.items()}
    shared = set.intersection(*map(set, found.values()))
    left = {card for texts in found.values() for card in texts} - shared
    if not shared:
        raise DataError(
            f"{', '.join(systems.values())}: no card has a dialogue in each; give files made from "
            "the same cards"
        )
    if left:
        logger.info("%d cards lack a dialogue of one system or more and are left out", len(left))
    return {
        name: {card: text for card, text in texts.items() if card in shared}
        for name, texts in found.items()
    }


def _transcripts(name: str, path: str) -> dict[str, str]:
    """Return {card or id: transcript} of a file of dialogues.

    Where the file holds several conditions, the system's name tells which.

    Raises:
        DataError: a line is no dialogue with an id, no dialogue is of that condition, or a card is
            met twice.
    """
    rows = list(read_jsonl(path))
    conditions = {row.get("condition") for _, row in rows if isinstance(row, dict)}
    if len(conditions) > 1 and name not in conditions:
        known = ", ".join(sorted(map(str, conditions)))
        raise DataError(
            f"{path}: no dialogue of condition {name!r} (it has {known}); "
            "name the system after its condition"
        )
    found: dict[str, str] = {}
    for number, record in rows:
        try:
            if len(conditions) > 1 and record.get("condition") != name:
                continue
            card = str(record.get("card") or record["id"])
            turns = [f"{turn['speaker'].capitalize()}: {turn['text']}" for turn in record["dialog"]]
        except (AttributeError, KeyError, TypeError):
            raise DataError(
                f"{path}, line {number}: expected a dialogue with id (or card) and dialog; to "
                "compare responses give input=, the dialogues they answer"
            ) from None
        if card in found:
            raise DataError(
                f"{path}, line {number}: {card!r} comes twice; give one dialogue a card"
            )
        found[card] = "\n".join(turns)
    return found


def _choose(
    pairs: Sequence[tuple[str, str]],
    samples: Sequence[Sample],
    responses: Mapping[str, Mapping[str, str]],
    chosen: HumanEvalSettings,
) -> tuple[list[Comparison], list[dict[str, Any]]]:
    """Draw each pair's samples, other ones than the pairs before it while there are any.

    A response met in two items would tell that it is of the system the pairs share.
    """
    comparisons, facts = [], []
    used: Counter[str] = Counter()

    def rank(sample: Sample) -> tuple[int, str]:
        drawn = hashlib.blake2b(f"{chosen.seed}\0{sample.id}".encode()).hexdigest()
        return used[sample.id], drawn

    for a, b in pairs:
        common = [sample for sample in samples if sample.id in responses[a]]
        differing = [
            sample
            for sample in common
            if responses[a][sample.id].split() != responses[b][sample.id].split()
        ]
        if not differing:
            raise DataError(
                f"{chosen.systems[a]} and {chosen.systems[b]}: all {len(common)} responses are "
                "the same texts; there is nothing to compare"
            )
        drawn = sorted(differing, key=rank)[: chosen.items]
        used.update(sample.id for sample in drawn)
        for sample in drawn:
            context = [(turn["speaker"].capitalize(), turn["text"]) for turn in sample.context]
            texts = responses[a][sample.id], responses[b][sample.id]
            comparisons.append(Comparison((a, b), sample.id, context, texts))
        same = len(common) - len(differing)
        facts.append({"a": a, "b": b, "items": len(drawn), "samples": len(common), "same": same})
    return comparisons, facts


def _describe_export(folder: Path, key: Mapping[str, Any], asked: int) -> str:
    lines = [f"{len(key['items'])} items written to {folder / FOLDER}"]
    for pair in key["pairs"]:
        line = f"- {pair['a']} vs. {pair['b']}: {pair['items']} items"
        if pair["items"] < asked:
            line += f" ({asked} were asked for)"
        lines.append(f"{line}; {same_text(pair['same'], pair['samples'])}")
    lines += [
        f"Hand out {folder / FOLDER} (form.html or sheet.csv, with guidelines.md) to each rater.",
        f"Keep {folder / KEY} and {folder / 'run.json'} from them: they tell which side is which.",
        f"Then: pal human-eval score input={folder} human_eval.answers=[…] output=human.json",
    ]
    return "\n".join(lines)


def score(settings: Settings) -> str:
    """Score the filled-in sheets ``human_eval.answers`` of the export in the folder ``input``.

    With ``output`` set, the result is written there as JSON and the tables beside it as Markdown.

    Returns:
        The tables, and the first of the problems.

    Raises:
        PalError: settings, key, answers or output cannot be used.
    """
    (source,) = settings.require("input")
    if not settings.human_eval.answers:
        raise ConfigError("missing settings: give human_eval.answers=[…], the filled-in sheets")
    key = read_key(source)
    files = answer_files(settings.human_eval.answers)
    identity = identity_of(
        settings, key=key, files=[(str(file), file_fingerprint(file)) for file in files]
    )
    output = Path(settings.output) if settings.output else None
    if output and output.suffix == ".md":
        raise ConfigError(f"output={output}: give a .json name; the tables go beside it as .md")
    done = output and is_finished(output, identity, overwrite=settings.overwrite)
    if output and done and output.with_suffix(".md").exists():
        logger.info("%s is finished already; overwrite=true would make it anew", output)
        return output.with_suffix(".md").read_text(encoding="utf-8").rstrip()
    votes = read_answers(files, key)
    results = compare(key, votes)
    tables = results_tables(results, votes.problems)
    if output:
        run = describe_run(settings, "human-eval score", identity)
        with output_lock(output):
            output.unlink(missing_ok=True)  # the record first: a kill between the two is harmless
            write_json(record_path(output), run)
            write_text(output.with_suffix(".md"), tables + "\n")
            write_json(
                output,
                {"kind": "human", "format": 1, "pairs": results, "problems": votes.problems,
                 "run": run},
            )  # fmt: skip
        logger.info("written to %s", output)
    return tables
