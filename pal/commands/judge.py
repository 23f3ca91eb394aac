"""``pal judge``: language models compare systems, or rate them, by a fixed rubric.

``pairs`` shows every pair in both orders; ``ratings`` asks for numbers. Both state how far the
judges can be trusted: position bias, consistency, agreement between judges. What they write is of
kinds of their own, which nothing mixes with the answers of people.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pal.commands.common import DialogueSettings, WriterSettings, beside, origin_of_responses
from pal.core.errors import ConfigError
from pal.decoding.settings import SampleSettings
from pal.judging.settings import JudgingSettings, PairJudgingSettings, RatingSettings
from pal.llm.settings import LlmSettings
from pal.stats.settings import StatisticsSettings

logger = logging.getLogger(__name__)


class JudgeSettings(DialogueSettings, WriterSettings):
    """A command that asks language models to judge.

    Attributes:
        input: dialogues that the responses belong to. Without it the systems' files contain whole
            dialogues, which are judged card by card.
        output: JSON file to write; the tables go beside it as .md.
        dtype: number format of local models' weights.
        decoding: which turns are samples.
        llm: the judge, or what all judges share.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    decoding: SampleSettings = SampleSettings()
    judging: JudgingSettings = JudgingSettings()
    llm: LlmSettings = LlmSettings()
    statistics: StatisticsSettings = StatisticsSettings()


class JudgePairsSettings(JudgeSettings):
    """Have language models compare two systems at a time, in both orders.

    Attributes:
        judging: systems, judges and questions.
    """

    examples = (
        "pal judge pairs input=pesconv.jsonl output=runs/judged.json llm.model=qwen "
        "judging.systems='{pal: a.jsonl, joint: b.jsonl}' llm.base_url=http://localhost:8000/v1",
        "pal judge pairs output=runs/judged.json judging.judges='{one: {model: a}, two: "
        "{model: b}}' judging.systems='{pal: dialogues.jsonl, gpt: others.jsonl}' "
        "llm.base_url=http://localhost:8000/v1",
    )

    judging: PairJudgingSettings = PairJudgingSettings()


class JudgeRatingsSettings(JudgeSettings):
    """Have language models rate systems, dimension by dimension.

    Attributes:
        judging: systems, judges and questions.
    """

    examples = (
        "pal judge ratings input=pesconv.jsonl output=runs/rated.json llm.model=qwen "
        "judging.systems='{pal: a.jsonl, joint: b.jsonl}' llm.base_url=http://localhost:8000/v1",
        "pal judge ratings output=runs/rated.json judging.systems='{pal: dialogues.jsonl}' "
        "judging.rubric=mine.yaml llm.model=…",
    )

    judging: RatingSettings = RatingSettings()


def judge_pairs(settings: JudgePairsSettings) -> str:
    """Compare ``judging.systems`` two at a time, in both orders, and return the tables.

    Raises:
        PalError: systems, dialogues, judges, rubric or output cannot be used.
    """
    settings = JudgePairsSettings.of(settings)
    chosen = settings.judging
    from pal.human_eval.choice import choose_pairs, draw_comparisons
    from pal.judging.pairs import ORDERS, compare_requests, compare_results
    from pal.judging.rubric import load_rubric
    from pal.judging.tables import pairs_tables

    pairs = choose_pairs(list(chosen.systems), chosen.pairs, "judging")
    rubric = load_rubric(chosen.rubric, "pairs")
    samples, responses, kind, origin = _read_judged(settings)

    def judge(job: Any) -> dict[str, Any]:
        comparisons, facts = draw_comparisons(
            pairs, samples, responses, items=chosen.items, seed=chosen.seed
        )
        requests = compare_requests(comparisons, rubric, kind, chosen.max_tokens)
        answers, found = _ask(settings, requests)
        dialogues = {sample.id: sample.dialogue_id for sample in samples}
        results = compare_results(
            comparisons, facts, answers, dialogues, list(rubric.questions), settings.statistics
        )
        given = [
            {"a": one.systems[0], "b": one.systems[1], "sample": one.sample, "judge": name,
             "order": order, "answers": by[f"{number}/{order}"]}
            for name, by in answers.items()
            for number, one in enumerate(comparisons)
            for order in ORDERS
            if f"{number}/{order}" in by
        ]  # fmt: skip
        return {"kind": "judge-pairs", **origin, **found, **results, "answers": given}

    return _run("judge pairs", settings, "pairs", judge, pairs_tables)


def judge_ratings(settings: JudgeRatingsSettings) -> str:
    """Rate ``judging.systems`` by every question of the rubric, and return the tables.

    Raises:
        PalError: systems, dialogues, judges, rubric or output cannot be used.
    """
    settings = JudgeRatingsSettings.of(settings)
    chosen = settings.judging
    from pal.judging.ratings import draw_rated, rating_requests, rating_results
    from pal.judging.rubric import load_rubric
    from pal.judging.tables import rating_tables

    if not chosen.systems:
        raise ConfigError("missing settings: give judging.systems={name: file}")
    rubric = load_rubric(chosen.rubric, "ratings")
    samples, responses, kind, origin = _read_judged(settings)

    def judge(job: Any) -> dict[str, Any]:
        answered = [one for one in samples if all(one.id in by for by in responses.values())]
        drawn = draw_rated(answered, chosen.items, chosen.seed)
        requests = rating_requests(drawn, responses, rubric, kind, chosen.max_tokens)
        answers, found = _ask(settings, requests)
        names = list(responses)
        results = rating_results(drawn, names, answers, rubric, settings.statistics)
        given = [
            {"system": system, "sample": sample.id, "judge": name, "ratings": by[f"{s}/{n}"]}
            for name, by in answers.items()
            for s, system in enumerate(names)
            for n, sample in enumerate(drawn)
            if f"{s}/{n}" in by
        ]
        scale = [rubric.lowest, rubric.highest]
        return {
            "kind": "judge-ratings", **origin, **found, "scale": scale, **results, "answers": given,
        }  # fmt: skip

    return _run("judge ratings", settings, "ratings", judge, rating_tables)


def _read_judged(
    settings: JudgeSettings,
) -> tuple[Sequence[Any], Any, Literal["response", "dialogue"], dict[str, Any]]:
    """Return samples, {system: {sample id: text}}, what the texts are, and their origin."""
    from pal.human_eval import choice

    systems = settings.judging.systems
    if settings.input is None:
        texts = choice.read_transcripts(systems)
        origin = origin_of_responses(systems)
        return choice.samples_of_transcripts(texts), texts, "dialogue", origin
    from pal.data.samples import load_stamped_samples

    samples, stamp = load_stamped_samples(
        settings.input, settings.split, settings.data, rule=settings.decoding.samples,
        limit=settings.limit,
    )  # fmt: skip
    origin = origin_of_responses(systems, settings.input, stamp)
    responses = choice.read_responses(
        systems, samples, settings.input, limited=settings.limit is not None
    )
    return samples, responses, "response", origin


def _judges(settings: JudgeSettings) -> dict[str, LlmSettings]:
    from pal.judging.judges import judges_of

    return judges_of(settings.llm, settings.judging.judges)


def _ask(settings: JudgeSettings, requests: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Ask all judges; return their answers, and what the results say about judges and failures."""
    from pal.judging.judges import ask_judges

    answers, failures, facts = ask_judges(_judges(settings), requests, settings.dtype)
    unanswered = {name: dict(Counter(reasons.values())) for name, reasons in failures.items()}
    return answers, {"judged_by": facts, "unanswered": unanswered}


def _run(command: str, settings: JudgeSettings, kind: str, judge: Any, tables: Any) -> str:
    """Judge once, write results and tables, and return the tables."""
    (target,) = settings.require("output")
    from pal.core.files import sweep_temporary, write_json, write_text
    from pal.judging.judges import load_judge_prompt
    from pal.judging.rubric import load_rubric
    from pal.llm.facts import asking_job

    if Path(target).suffix == ".md":
        raise ConfigError(f"output={target}: give a .json name; the tables go beside it as .md")
    prompt, rubric = load_judge_prompt(kind), load_rubric(settings.judging.rubric, kind)  # type: ignore[attr-defined]
    job = asking_job(
        command, settings, target, models=[*_judges(settings).values()], prompts=[prompt],
        versions=("numpy", "scipy"),
    )  # fmt: skip
    summary = beside(job, ".md")
    if job.is_finished() and summary.exists():
        return summary.read_text(encoding="utf-8").rstrip()
    with job.claimed(processes=False):
        results: Mapping[str, Any] = judge(job)
        document = {
            "format": 1, "rubric": rubric.describe(), "confidence": settings.statistics.confidence,
            **results, "run": job.describe(),
        }  # fmt: skip
        text = tables(document)

        def write(path: Path) -> None:
            sweep_temporary(summary)
            write_text(summary, text + "\n", private=True)
            write_json(path, document, private=True)

        job.publish(write, llm=results["judged_by"], prompts={prompt.name: prompt.version})
    logger.info("written to %s", job.output)
    return str(text)
