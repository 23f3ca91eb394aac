"""``pal tune-alpha``: choose the contrast weight α of each strategy on validation dialogues.

The command writes all trials, the Pareto front and the choice as JSON, and beside it a YAML of the
chosen decoding that ``pal generate --config`` takes.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pal.benchmark.settings import AlphaSearchSettings
from pal.commands.common import DialogueSettings, ResponseModelSettings, WriterSettings, beside
from pal.core.errors import ConfigError
from pal.core.job import COMPUTING, SCORING, Job, interruptible, refuse_several_processes
from pal.core.runtime import configure_runtime
from pal.core.settings import Seed
from pal.decoding.settings import DecodingSettings
from pal.metrics.settings import ScoreSettings

logger = logging.getLogger(__name__)

SEARCH = ("tune_alpha", "metrics")  # settings that do not affect any response


class TuneAlphaSettings(ResponseModelSettings, DialogueSettings, WriterSettings):
    """Choose α of each strategy on validation dialogues.

    Attributes:
        seed: random seed of token sampling and of the search.
        output: JSON file of all trials and the choice; a YAML for ``pal generate`` is written
            beside it.
    """

    examples = (
        "pal tune-alpha model=runs/pal input=runs/pesconv split=validation output=runs/alpha.json",
        "pal tune-alpha model=runs/pal input=val.jsonl output=a.json tune_alpha.trials=50",
    )

    seed: Seed = 42
    decoding: DecodingSettings = DecodingSettings()
    metrics: ScoreSettings = ScoreSettings()
    tune_alpha: AlphaSearchSettings = AlphaSearchSettings()


def tune_alpha(settings: TuneAlphaSettings) -> str:
    """Search α for every strategy on ``input`` and return the outcome as Markdown.

    After an interruption, the same command continues. A command that searches in another way also
    uses the responses made before.

    Raises:
        PalError: inputs, checkpoint, settings or output cannot be used.
    """
    settings = TuneAlphaSettings.of(settings)
    configure_runtime()
    source, given, target = settings.require("model", "input", "output")
    if Path(target).suffix != ".json":
        raise ConfigError(f"output={target}: give a .json name; the YAML goes beside it")
    refuse_several_processes("tune-alpha")
    import torch

    from pal.benchmark.alpha import AlphaGrid, alpha_table, objective_directions, search_alpha
    from pal.benchmark.notices import notices_of
    from pal.core.files import read_json, write_json, write_text
    from pal.core.registry import trust
    from pal.data.cards import cards_note
    from pal.data.samples import load_stamped_samples
    from pal.data.strategies import STRATEGIES
    from pal.decoding.plan import can_contrast, check_decoding
    from pal.metrics import find_metric, metric_versions
    from pal.modeling.responder import load_model_and_tokenizer, make_responder

    check_decoding(settings.decoding)
    options = settings.tune_alpha
    directions = objective_directions(options.objectives)
    job = Job(
        "tune-alpha", settings, target, versions=(*COMPUTING, *SCORING, "optuna"),
        facts={"metrics": metric_versions(options.objectives)},
    )  # fmt: skip
    chosen_decoding = beside(job, ".yaml")
    if job.is_finished() and chosen_decoding.exists():
        return alpha_table(read_json(job.output))
    samples, stamp = load_stamped_samples(
        given, settings.split, settings.data, rule=settings.decoding.samples, limit=settings.limit
    )
    trust(*settings.trusted_code)
    model, tokenizer = load_model_and_tokenizer(source, settings.dtype)
    if not can_contrast(model.config):
        raise ConfigError(
            f"model={source}: persona_mode {model.config.persona_mode!r} has nothing to contrast, "
            "so no α; give a model trained with persona_mode=fusion (decoder-only: prompt)"
        )
    responder = make_responder(model, tokenizer, settings.decoding, settings.seed)
    vectors = job.output.with_name(job.output.name + ".vectors.sqlite")
    with job.claimed() as state, torch.inference_mode():
        personas = any(sample.persona for sample in samples)
        embedder, directions = _load_embedder(settings, directions, vectors, personas)
        model.to(state.device)
        # Responses do not depend on how α is searched, so another search can use them.
        journal = job.journal(without=SEARCH)
        grid = AlphaGrid(
            responder, samples, journal, job.open_journal(journal),
            batch_tokens=settings.batch_tokens, batch_rows=settings.batch_rows,
        )  # fmt: skip
        with interruptible(job.output, journal.places):
            grid.predict_strategies()
            found = search_alpha(
                grid, directions, sampler=options.sampler, trials=options.trials,
                highest=options.highest, step=options.step, seed=settings.seed, embedder=embedder,
                variant=settings.metrics.variant, tokenizer=settings.metrics.tokenizer,
            )  # fmt: skip
        journal.close()
        document = {
            "kind": "alpha",
            "format": 1,
            "model": source,
            "input": given,
            "samples": len(samples),
            "protocol": stamp,
            "notices": notices_of(
                [given],
                [Path(source)],
                protocol=stamp,
                parameters=sum(p.numel() for p in model.parameters()),
            ),
            "sampler": options.sampler,
            "objectives": [
                {"key": key, "direction": direction, "unit": find_metric(key).unit}
                for key, direction in directions.items()
            ],
            **found,
            "strategies": list(STRATEGIES),
            "run": job.describe(samples=len(samples), **cards_note(settings.data.cards)),
        }

        def write(path: Path) -> None:
            write_text(chosen_decoding, _decoding_yaml(settings, document, path))
            write_json(path, document)

        job.publish(write, samples=len(samples), **cards_note(settings.data.cards))
        vectors.unlink(missing_ok=True)
    logger.info("written: %s, and the choice as %s", job.output, chosen_decoding)
    return alpha_table(document)


def _load_embedder(
    settings: TuneAlphaSettings, directions: Mapping[str, str], vectors: Path, personas: bool
) -> tuple[Any, dict[str, str]]:
    """Return the sentence encoder if an objective needs it, and the objectives that remain.

    Args:
        settings: settings that name the encoder and, unless they are the default, the objectives.
        directions: the objectives, each with the direction that is better.
        vectors: file that stores sentence vectors.
        personas: whether a sample has a persona to compare with.

    Raises:
        PalError: an objective that the user names needs an encoder or personas, and there are none.
    """
    from pal.metrics import find_metric
    from pal.metrics.similarity import load_if_possible
    from pal.metrics.vectors import StoredEmbedder

    name = settings.metrics.embedder
    needing = [key for key in directions if "embedder" in find_metric(key).needs]
    if not needing:
        return None, dict(directions)
    named = "objectives" in settings.tune_alpha.model_fields_set
    embedder = None
    if name is None or not personas:
        why = "metrics.embedder is null" if name is None else "no sample has a persona"
        message = f"tune_alpha.objectives: {', '.join(needing)} has no value: {why}"
        if named:
            raise ConfigError(f"{message}; leave it out of the objectives")
        logger.warning("%s; it is left out", message)
    else:
        chosen = named or "embedder" in settings.metrics.model_fields_set
        embedder, _ = load_if_possible(
            lambda: StoredEmbedder(name, vectors).load(), name, chosen=chosen
        )
    if embedder is None:
        directions = {key: way for key, way in directions.items() if key not in needing}
    return embedder, dict(directions)


def _decoding_yaml(settings: TuneAlphaSettings, document: Mapping[str, Any], path: Path) -> str:
    import yaml

    decoding = settings.decoding.model_dump()
    decoding["alpha"] = document["chosen"]["alpha"]
    tree = {
        **settings.model_dump(include={"model", "dtype", "batch_tokens", "batch_rows"}),
        "decoding": decoding,
    }
    head = (
        f"# α chosen on {document['samples']} samples; trials and front: {path}\n"
        f"#   pal generate --config {path.with_suffix('.yaml')} input=… output=…\n"
    )
    return head + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
