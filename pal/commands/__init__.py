"""The table of commands: each is a settings class and one function of its name.

This module and those it names import nothing heavy until a command runs, so that help appears at
once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import create_model

from pal.core.reader import Reader
from pal.core.registry import load_entry
from pal.core.settings import CommandSettings, section_of

# Names of blocks in a YAML; the one that ``task`` names is laid over the other settings.
TASKS = ("response", "persona_extractor")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: what the command does, in one line.
        module: module of its settings class and its function.
        function: name of its function.
        settings: name of its settings class.
    """

    summary: str
    module: str
    function: str
    settings: str

    def load_settings_class(self) -> type[CommandSettings]:
        """Import and return the settings class."""
        return self._load(self.settings)

    def load_function(self) -> Any:
        """Import and return the function."""
        return self._load(self.function)

    def _load(self, attribute: str) -> Any:
        return load_entry("command", self.function, f"{self.module}:{attribute}")


COMMANDS: dict[str, Command] = {
    "quickstart": Command(
        "run the whole pipeline on the bundled corpus",
        "pal.commands.quickstart", "quickstart", "QuickstartSettings",
    ),
    "train": Command(
        "train PAL, a baseline, or the persona extractor (task=persona_extractor)",
        "pal.commands.train", "train", "TrainSettings",
    ),
    "annotate": Command(
        "infer the seeker's persona in dialogues, and write them with it",
        "pal.commands.annotate", "annotate", "AnnotateSettings",
    ),
    "generate": Command(
        "generate a response for every sample of a file",
        "pal.commands.generate", "generate", "GenerateSettings",
    ),
    "answer": Command(
        "have any language model respond to every sample of a file",
        "pal.commands.answer", "answer", "AnswerSettings",
    ),
    "chat": Command(
        "chat with a model in the terminal, or through a pipe",
        "pal.commands.chat", "chat", "ChatSettings",
    ),
    "serve": Command(
        "serve a model over OpenAI's chat API, with a web page to chat with it",
        "pal.commands.serve", "serve", "ServeSettings",
    ),
    "export": Command(
        "write a trained model as a plain folder, with LoRA adapters merged",
        "pal.commands.export", "export", "ExportSettings",
    ),
    "eval": Command(
        "score predictions, a model's perplexity, or both",
        "pal.commands.evaluate", "evaluate", "EvaluateSettings",
    ),
    "export-task": Command(
        "write a split as a task for lm-evaluation-harness and inspect_ai",
        "pal.commands.export_task", "export_task", "ExportTaskSettings",
    ),
    "audit": Command(
        "find duplicates between and within the splits of a corpus",
        "pal.commands.audit", "audit", "AuditSettings",
    ),
    "reproduce": Command(
        "train, run and score every system with every seed, as in the paper's Table 3",
        "pal.commands.reproduce", "reproduce", "ReproduceSettings",
    ),
    "tune-alpha": Command(
        "search for the best α of each strategy on validation dialogues",
        "pal.commands.tune_alpha", "tune_alpha", "TuneAlphaSettings",
    ),
    "analyze": Command(
        "analyse similarity, strategies and personas in dialogues and responses",
        "pal.commands.analyze", "analyze", "AnalyzeSettings",
    ),
    "report": Command(
        "write an HTML page of results",
        "pal.commands.report", "report", "ReportSettings",
    ),
    "human-eval export": Command(
        "write blinded sheets and a separate key",
        "pal.commands.human_eval", "export_sheets", "ExportSheetsSettings",
    ),
    "human-eval personas": Command(
        "write sheets on which people judge inferred personas",
        "pal.commands.human_eval", "export_personas", "ExportPersonasSettings",
    ),
    "human-eval score": Command(
        "score filled-in sheets: win, tie, loss, sign test, Fleiss' κ",
        "pal.commands.human_eval", "score_sheets", "ScoreSheetsSettings",
    ),
    "study create": Command(
        "create a study with people: blinded chats with two systems, or judgements of personas",
        "pal.commands.study", "create_study", "CreateStudySettings",
    ),
    "study serve": Command(
        "serve the pages of a study",
        "pal.commands.study", "serve_study", "ServeStudySettings",
    ),
    "study export": Command(
        "write the answers, conversations and results of a study",
        "pal.commands.study", "export_study", "ExportStudySettings",
    ),
    "study withdraw": Command(
        "delete everything that a rater wrote in a study",
        "pal.commands.study", "withdraw_rater", "WithdrawSettings",
    ),
    "simulate": Command(
        "write whole dialogues between simulated seekers and a trained or language model",
        "pal.commands.simulate", "simulate", "SimulateSettings",
    ),
    "judge pairs": Command(
        "have language models compare two systems at a time, in both orders",
        "pal.commands.judge", "judge_pairs", "JudgePairsSettings",
    ),
    "judge ratings": Command(
        "have language models rate systems, dimension by dimension",
        "pal.commands.judge", "judge_ratings", "JudgeRatingsSettings",
    ),
    **{
        f"traits {action}": Command(summary, f"pal.traits.{module}", function, settings)
        for action, (summary, module, function, settings) in {
            "cards": ("describe the seeker of each dialogue or post as a card",
                      "cards", "cards", "CardsSettings"),
            "filter": ("keep the cards that contain enough",
                       "cards", "filter_cards", "FilterSettings"),
            "describe": ("write a sentence for each of twelve dimensions",
                         "cards", "describe_traits", "DescribeSettings"),
            "measure": ("have a model fill in inventories for every card",
                        "measure", "measure", "MeasureSettings"),
            "correlate": ("correlate personality with communication style (Tables 2 to 4)",
                          "correlations", "correlate", "CorrelateSettings"),
            "expand": ("expand one-line personas into cards", "cards", "expand", "ExpandSettings"),
            "synthesize": ("write dialogues from cards", "synthesis", "synthesize",
                           "SynthesizeSettings"),
            "continue": ("continue dialogues some days later", "synthesis", "continue_dialogues",
                         "ContinueSettings"),
            "compare": ("compare measurements before and after",
                        "consistency", "compare_measurements",
                        "CompareSettings"),
            "strategies": ("compare strategies between conditions (Tables 5 to 8)",
                           "strategies", "strategies", "StrategiesSettings"),
            "stats": ("count words and turns (Table 16) and the contents of cards (Table 1)",
                      "dialogue_statistics", "stats", "StatsSettings"),
            "report": ("write an HTML page of the results",
                       "report", "report_traits", "TraitReportSettings"),
            "run": ("run the paper's three experiments, all stages",
                    "run", "run_traits", "RunTraitsSettings"),
        }.items()
    },
    **{
        f"bench {what}": Command(summary, "pal.commands.bench", f"bench_{what}", settings)
        for what, (summary, settings) in {
            "generate": ("decoding, compared with transformers and the authors' method",
                         "BenchGenerateSettings"),
            "train": ("training, compared with transformers and the authors' padding",
                      "BenchTrainSettings"),
            "annotate": ("annotation, compared with generate in file order",
                         "BenchAnnotateSettings"),
            "metrics": ("scores, compared with plain Python", "BenchMetricsSettings"),
            "llm": ("the language model client, compared with the openai package's",
                    "BenchLlmSettings"),
            "serve": ("the server, with many concurrent clients compared with one",
                      "BenchServeSettings"),
            "scale": ("memory and time of every stage on a corpus of any size",
                      "BenchScaleSettings"),
        }.items()
    },
    "guard train": Command(
        "train a second detector for the guard on labelled messages",
        "pal.commands.guard", "train_guard", "TrainGuardSettings",
    ),
    "guard eval": Command(
        "measure what the guard finds in labelled messages, or in dialogues",
        "pal.commands.guard", "evaluate_guard", "EvaluateGuardSettings",
    ),
    "convert-authors": Command(
        "convert a checkpoint of the authors' code into a PAL model",
        "pal.commands.convert_authors", "convert_authors", "ConvertAuthorsSettings",
    ),
    "settings": Command(
        "explain all settings as Markdown, or those that start with a prefix",
        "pal.commands.settings", "show_settings", "ShowSettings",
    ),
}  # fmt: skip


@cache
def all_settings() -> dict[str, type[CommandSettings]]:
    """Return the settings class of every command, by its name."""
    return {name: command.load_settings_class() for name, command in COMMANDS.items()}


def load_settings(
    command: str,
    config: str | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    fixed: Mapping[str, Any] | None = None,
) -> Any:
    """Read the settings of a command; see :meth:`pal.core.reader.Reader.read`.

    Args:
        command: name of the command, such as ``generate`` or ``traits cards``.
        config: a YAML file, a bundled name, or a tree; it may hold other commands' keys.
        overrides: ``dotted.key=value`` items of this command.
        fixed: nested values that override both.

    Raises:
        ConfigError: file or overrides hold mistakes; one line names them all.

    Example:
        >>> load_settings("generate", "small", ["model=runs/pal"]).decoding.top_k
        10
    """
    classes = all_settings()
    reader = Reader(classes[command], command, classes, TASKS)
    return reader.read(config, overrides, fixed)


@cache
def whole_settings() -> type[CommandSettings]:
    """Return a settings class with the keys of all commands; see :mod:`pal.config`."""
    joined = _joined("WholeSettings", tuple(all_settings().values()))
    joined.takes_blocks = True
    return joined


def _joined(name: str, classes: Sequence[Any]) -> Any:
    """Return a class with the fields of several; sections of the same name are joined too."""
    fields: dict[str, list[Any]] = {}
    for cls in classes:
        for key, field in cls.model_fields.items():
            fields.setdefault(key, []).append(field)
    made: dict[str, Any] = {}
    for key, found in fields.items():
        sections = [section_of(field.annotation) for field in found]
        if sections[0] is not None:
            distinct = list(dict.fromkeys(sections))
            joined: Any = distinct[0] if len(distinct) == 1 else _joined(key, distinct)
            made[key] = (joined, joined())
        else:
            made[key] = (found[0].annotation, found[0])
    base = CommandSettings if issubclass(classes[0], CommandSettings) else classes[0].__bases__[0]
    return create_model(name, __base__=base, **made)
