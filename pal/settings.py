"""The settings of all commands: one schema, its names, types, defaults and meanings."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pal.errors import ConfigError

TASKS = ("response", "persona_extractor")


class Section(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)


def bundled(*parts: str) -> Path:
    """Return a file or folder that travels with the package: ``configs`` or ``sample``."""
    root = Path(str(resources.files("pal")))
    if (root / "_bundled").is_dir():
        return root.joinpath("_bundled", *parts)
    source = {"configs": root.parent / "configs", "sample": root.parent / "data" / "sample"}
    return source[parts[0]].joinpath(*parts[1:])


def _resolve(source: str) -> str:
    """Turn ``bundled:esconv`` into the path of that part of the bundled corpus."""
    name = source.removeprefix("bundled:")
    return source if name == source else str(bundled("sample", *name.split("/")))


def _distinct(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError("should hold each value once")
    return values


def _range(values: tuple[int, int]) -> tuple[int, int]:
    if not 2 <= values[0] <= values[1]:
        raise ValueError("should be two numbers from 2 on, the smaller first")
    return values


# Of a system; it becomes part of file names.
Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]

# A file, a folder or a hub id; ``bundled:PART`` is a part of the corpus that travels along.
Source = Annotated[str, AfterValidator(_resolve)]


class DataSettings(Section):
    """Corpora: files, folders, hub ids, or ``bundled:esconv`` for the sample that travels along.

    Attributes:
        train: dialogues (task response) or persona conversations (task persona_extractor).
        validation: the same, for the validation loss; None takes the published split of ``train``
            or, for a single file, cuts it off by the split below.
        split: ``published`` takes the splits as they are; ``seeded`` joins all and splits 7:2:1 by
            dialogue with ``split_seed`` (the paper's way).
        split_seed: seed of the seeded split.
        cards: persona cards whose description takes the place of the seeker's persona in training
            and generation, matched by dialogue id.
        max_train_samples: use the first so many training samples only.
        max_validation_samples: likewise.
    """

    train: Source = "thu-coai/esconv"
    validation: Source | None = None
    split: Literal["published", "seeded"] = "published"
    split_seed: int = 13
    cards: str | None = None
    max_train_samples: int | None = Field(None, gt=0)
    max_validation_samples: int | None = Field(None, gt=0)


class ArchitectureSettings(Section):
    """What training starts from, and how text enters.

    Attributes:
        base: hub id or folder of the pretrained model to start from.
        tokenizer: hub id or folder; ``base`` by default; with ``from_scratch`` and no tokenizer one
            is trained on the training texts.
        vocab_size: entries of a tokenizer trained on the spot.
        from_scratch: sizes of a model with random weights (keys of its configuration); the
            pretrained weights of ``base`` when None.
        persona_mode: ``fusion`` (PAL), ``prompt`` (Hard Prompt) or ``none`` (Blenderbot-Joint).
        fusion: ``masked``, ``reference``, an ablation (``no_weights``, ``no_persona_stream``) or
            ``their_package.module:Class``.
        template: ``clean`` or ``authors``.
        max_context_tokens: encoder tokens of the dialogue, or of the extractor's input.
        max_persona_tokens: encoder tokens of the persona.
        max_target_tokens: target tokens.
    """

    base: str = "facebook/blenderbot_small-90M"
    tokenizer: str | None = None
    vocab_size: int = Field(8000, gt=300)
    from_scratch: dict[str, Any] | None = None
    persona_mode: Literal["fusion", "prompt", "none"] = "fusion"
    fusion: str = "masked"
    template: Literal["clean", "authors"] = "clean"
    max_context_tokens: int = Field(512, gt=8)
    max_persona_tokens: int = Field(160, gt=1)
    max_target_tokens: int = Field(128, gt=1)


class AnnotateSettings(Section):
    """Persona annotation.

    Attributes:
        extractor: ``bart`` (the trained one, ``model``) or ``llm`` (the one that ``llm`` names).
        start: first annotated seeker turn: ``third_utterance`` of the conversation (the paper's
            Table 1) or the seeker's own third turn, ``third_seeker_turn`` (the released data).
        layout: ``pesconv`` (persona known at every turn) or ``released`` (ESConv.json's form).
        num_beams: beam width (10 in the released code).
        max_new_tokens: longest output.
    """

    extractor: Literal["bart", "llm"] = "bart"
    start: Literal["third_utterance", "third_seeker_turn"] = "third_utterance"
    layout: Literal["pesconv", "released"] = "pesconv"
    num_beams: int = Field(10, gt=0)
    max_new_tokens: int = Field(128, gt=0)


class DecodingSettings(Section):
    """Response generation (PAL paper, section 3.4 and appendix D).

    Attributes:
        strategy: ``argmax``, ``sample``, ``gold`` or the name of one strategy for all.
        alpha: contrast weight for all strategies, or eight of them; the model's when None.
        strategy_alpha: contrast weight of the strategy step; the model's when None.
        samples: which supporter turns are answered: ``evaluation`` (those after a seeker turn) or
            ``training`` (all but a dialogue's first turn).
    """

    strategy: str = "argmax"
    alpha: float | list[float] | None = None
    strategy_alpha: float | None = None
    samples: Literal["evaluation", "training"] = "evaluation"
    do_sample: bool = True
    temperature: float = Field(0.5, gt=0)
    top_k: int = Field(10, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    repetition_penalty: float = Field(1.03, gt=0)
    num_beams: int = Field(1, gt=0)
    min_new_tokens: int = Field(10, ge=0)
    max_new_tokens: int = Field(50, gt=0)


class MetricSettings(Section):
    """Scores.

    Attributes:
        names: metric families to compute; all that the inputs allow when None.
        variant: ``correct``, or ``authors`` for what the released scripts compute.
        embedder: sentence encoder of cos_sim, a hub id or folder; None leaves cos_sim out.
    """

    names: list[str] | None = None
    variant: Literal["correct", "authors"] = "correct"
    embedder: str | None = "princeton-nlp/sup-simcse-bert-base-uncased"


class ReproduceSettings(Section):
    """The benchmark: every system with every seed: trained, run and scored into one table.

    Attributes:
        systems: names in the table of systems (pal.evaluation.systems).
        seeds: one training, generation and score of every system for each.
        checkpoint: which epoch answers: ``lowest_loss`` (the paper), ``last``, or its number.
        extractor: None when the dialogues hold personas; ``train`` trains the extractor of the
            YAML's ``persona_extractor`` block and annotates them; else a trained extractor.
        overrides: settings of single systems, nested as in the YAML: ``{prompt: {training: …}}``.
        outside: responses of systems from elsewhere, name → file (see :func:`read_outside`).
    """

    systems: list[Name] = ["joint", "prompt", "pal_alpha_0", "pal"]
    seeds: Annotated[list[int], AfterValidator(_distinct)] = Field([13, 42, 87], min_length=1)
    checkpoint: Literal["lowest_loss", "last"] | Annotated[int, Field(gt=0)] = "lowest_loss"
    extractor: str | None = None
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    outside: dict[Name, str] = Field(default_factory=dict)


class StatisticsSettings(Section):
    """Intervals and tests.

    Attributes:
        resamples: bootstrap resamples of an interval, and permutations of a test.
        confidence: of the intervals.
        seed: of both.
    """

    resamples: int = Field(9999, gt=99)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = 0


class BenchSettings(Section):
    """Speed measurements.

    Attributes:
        sides: what ``bench generate`` measures.
        endings: ``fixed``: every response has ``decoding.max_new_tokens`` tokens; ``natural``: they
            are about as long as ESConv's (the end token's bias is set so).
        rounds: how often each side runs; medians are compared.
    """

    sides: list[Literal["ours", "doubled", "two_passes"]] = ["ours", "doubled", "two_passes"]
    endings: Literal["fixed", "natural"] = "fixed"
    rounds: int = Field(3, gt=0)


class TuneAlphaSettings(Section):
    """Choice of the contrast weight α of each strategy.

    Attributes:
        sampler: ``tpe`` (all objectives at once) or ``cmaes`` (on their mean relative gain over
            α = 0).
        objectives: metric keys of responses, such as ``bleu_2``.
        trials: α vectors tried.
        highest: largest α.
        step: α is a multiple of it; a response is generated once for each, whatever the trials.
    """

    sampler: Literal["tpe", "cmaes"] = "tpe"
    objectives: list[str] = Field(["bleu_2", "distinct_2", "cos_sim"], min_length=1)
    trials: int = Field(200, gt=0)
    highest: float = Field(1.5, gt=0)
    step: float = Field(0.125, gt=0)


class AnalyzeSettings(Section):
    """Analysis of a corpus and of responses.

    Attributes:
        systems: responses to analyse, name → file.
        word_vectors: text file of word vectors (fastText's .vec form) for the paper's Figure 5, in
            place of ``metrics.embedder`` (in cos_sim by strategy too).
    """

    systems: dict[str, str] = Field(default_factory=dict)
    word_vectors: str | None = None


class ReportSettings(Section):
    """The HTML page.

    Attributes:
        include: outputs to show: results.json, analysis.json, alpha.json, human.json, cases.json
            (``traits report``: the trait commands' JSON documents and JSONL records).
        cases: case studies at most, spread evenly over the test samples (``traits report``: three
            at most); 0 leaves texts out.
    """

    include: list[str] = Field(default_factory=list)
    cases: int = Field(200, ge=0)


class HumanEvalSettings(Section):
    """Blinded comparison of two or more systems by people.

    Attributes:
        systems: responses to compare, name → file; whole dialogues where ``input`` is not given.
        pairs: which systems meet, as ``[a, b]`` pairs; the first against each other one when None.
        items: samples a pair.
        seed: of the choice of samples, of their order and of which side a system is on; keep it
            from raters.
        answers: filled-in sheets that ``score`` reads (files or folders).
    """

    systems: dict[str, str] = Field(default_factory=dict)
    pairs: list[tuple[str, str]] | None = None
    items: int = Field(50, gt=0)
    seed: int = 0
    answers: list[str] = Field(default_factory=list)


class CorpusSettings(Section):
    """One corpus of ``pal traits run``.

    Attributes:
        input: dialogues (file, folder, hub id, ``bundled:esconv``) or a file of posts.
        text_column: column of a post's text; None: the input holds dialogues.
    """

    input: Source
    text_column: str | None = None


class TraitsSettings(Section):
    """Personality and communication style of personas, as a language model sees them.

    Attributes:
        inventories: which to fill in, bundled names or paths of YAML files.
        form: ``full``, or ``short`` for the items marked so.
        dataset: label of the records; the name of the input when None.
        text_column: column (CSV) or key (JSONL) of a post's text; None: the input holds dialogues.
        use_traits: show ``measure`` a card's trait sentences beside its description, if it has any.
        conditions: which traits of the seeker ``continue`` tells the model.
        without_persona: ``synthesize`` as many dialogues as there are cards, but from no persona.
        days: between the dialogue and its continuation.
        turns: (fewest, most) turns of a written dialogue, which ends with the supporter.
        temperature: of written descriptions and dialogues; judgements are made at 0.
        cards: cards that go with the dialogues to continue, matched by id.
        measurements: measurements that go with them.
        before: measurements that ``compare`` sets beside those of ``input``.
        without: measurements of dialogues without persona, for ``compare``'s concentration.
        dialogues: dialogues or predictions that ``strategies`` and ``stats`` read instead of
            ``input``, condition → file.
        corpora: name → corpus of ``run``.
        personas: one-line personas of ``run``, text or JSONL.
    """

    inventories: list[str] = Field(["hexaco", "csi"], min_length=1)
    form: Literal["full", "short"] = "full"
    dataset: Name | None = None
    text_column: str | None = None
    use_traits: bool = True
    conditions: list[Literal["none", "hexaco", "csi", "both"]] = Field(
        ["none", "hexaco", "csi", "both"], min_length=1
    )
    without_persona: bool = False
    days: int = Field(3, gt=0)
    turns: Annotated[tuple[int, int], AfterValidator(_range)] = (6, 60)
    temperature: float = Field(0.7, ge=0)
    cards: str | None = None
    measurements: str | None = None
    before: str | None = None
    without: str | None = None
    dialogues: dict[Name, str] = Field(default_factory=dict)
    corpora: dict[Name, CorpusSettings] = Field(default_factory=dict)
    personas: str | None = None


class TrackingSettings(Section):
    """Experiment tracking of ``reproduce`` and ``eval``; training has ``training.report_to``.

    Attributes:
        wandb: log to Weights & Biases, offline when no key is set.
        project: its project.
        texts: log responses too; numbers and settings only otherwise.
    """

    wandb: bool = False
    project: str = "pal"
    texts: bool = False


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class LlmSettings(Section):
    """A language model: an OpenAI-compatible endpoint, or a local one.

    Attributes:
        backend: ``openai`` (any endpoint of its form: vLLM, llama.cpp, Ollama …) or
            ``transformers``.
        base_url: the endpoint, such as ``http://localhost:8000/v1``; texts go nowhere else.
        model: the endpoint's name of it; a hub id or folder for ``transformers``.
        api_key_env: environment variable that holds the key; this machine's servers need none.
        connections: requests under way at once.
        requests_per_minute: rate limit; none when None.
        timeout: seconds an answer may take.
        tries: of a request whose failure may pass.
        backoff: seconds the first wait between two tries lasts at most; it doubles each time.
        structured: how answers of a given form are asked for; ``auto`` probes the endpoint once.
        body: further fields of every request to an endpoint, such as ``{chat_template_kwargs:
            {enable_thinking: false}}``; null takes a field out, so ``{max_tokens: null,
            max_completion_tokens: 4000}`` suits models that want it so.
        cache: SQLite file of all answers.
        batch_export: write the requests the cache does not hold to this file, and stop.
        batch_import: read answers from these files of results first.
        estimate_only: tell what the requests would take, and stop.
        price_in: of a million prompt tokens, for the estimate.
        price_out: of a million answer tokens.
        batch_rows: rows a batch of a ``transformers`` model holds at most.
    """

    backend: Literal["openai", "transformers"] = "openai"
    base_url: str | None = None
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    connections: int = Field(32, gt=0)
    requests_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(120, gt=0)
    tries: int = Field(6, gt=0)
    backoff: float = Field(1, gt=0)
    structured: Literal[
        "auto",
        "json_schema",
        "json_object_schema",
        "json_object",
        "structured_outputs",
        "guided_json",
        "text",
    ] = "auto"
    body: dict[str, Any] = Field(default_factory=dict)
    cache: str = "runs/llm_cache.sqlite"
    batch_export: str | None = None
    batch_import: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list)
    estimate_only: bool = False
    price_in: float | None = Field(None, ge=0)
    price_out: float | None = Field(None, ge=0)
    batch_rows: int = Field(16, gt=0)


class Settings(Section):
    """All settings of all commands; each command reads those it needs.

    Attributes:
        task: what ``train`` trains.
        seed: seed of initial weights, data order and sampling.
        output_dir: folder that ``train``, ``quickstart``, ``reproduce`` and ``traits run`` write.
        overwrite: replace an existing output.
        model: folder or hub id of a trained model (annotate, generate, eval).
        input: dialogues to annotate, to answer, to analyse or to compute perplexity on
            (human-eval score: the folder that export wrote).
        split: which split of a folder or hub id ``input`` means.
        output: file (human-eval export: folder) that the command writes.
        predictions: responses that ``eval`` scores, and whose pairs ``bench`` measures.
        limit: stop after so many dialogues (annotate), samples (generate, eval), pairs (bench) or
            records (traits).
        batch_tokens: encoder positions a batch holds at most (annotate, generate, eval).
        batch_rows: rows a batch holds at most.
        dtype: number format of annotate, generate and eval.
        early_stopping_patience: evaluations without improvement before training stops.
        training: options of transformers' ``Seq2SeqTrainingArguments``, by their own names.
    """

    task: Literal["response", "persona_extractor"] = "response"
    seed: int = 42
    output_dir: str = "runs/pal"
    overwrite: bool = False
    model: str | None = None
    input: Source | None = None
    split: Literal["train", "validation", "test"] | None = None
    output: str | None = None
    predictions: str | None = None
    limit: int | None = Field(None, gt=0)
    batch_tokens: int = Field(12288, gt=0)
    batch_rows: int = Field(64, gt=0)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    early_stopping_patience: int | None = Field(None, gt=0)
    data: DataSettings = DataSettings()
    architecture: ArchitectureSettings = ArchitectureSettings()
    training: dict[str, Any] = Field(default_factory=dict)
    annotate: AnnotateSettings = AnnotateSettings()
    decoding: DecodingSettings = DecodingSettings()
    metrics: MetricSettings = MetricSettings()
    statistics: StatisticsSettings = StatisticsSettings()
    reproduce: ReproduceSettings = ReproduceSettings()
    tune_alpha: TuneAlphaSettings = TuneAlphaSettings()
    bench: BenchSettings = BenchSettings()
    analyze: AnalyzeSettings = AnalyzeSettings()
    report: ReportSettings = ReportSettings()
    human_eval: HumanEvalSettings = HumanEvalSettings()
    tracking: TrackingSettings = TrackingSettings()
    traits: TraitsSettings = TraitsSettings()
    llm: LlmSettings = LlmSettings()

    def require(self, *names: str) -> list[str]:
        """Return these top-level settings, which must be given.

        Raises:
            ConfigError: one or more are missing; all are named.
        """
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ConfigError(f"missing settings: give {' '.join(f'{m}=…' for m in missing)}")
        return [getattr(self, name) for name in names]
