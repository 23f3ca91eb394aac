"""``pal generate``: a strategy and a response for every sample of a file.

A record is a function of weights, sample, settings and seed. The batch plan is made from the input
alone, one large window of samples after the other, so a resumed or sharded run writes the same
bytes as a plain one. On a CPU in float32
``batch_rows`` and ``batch_tokens`` change no byte either (of a decoder-only model, at most the
sixth decimal of a probability). In bfloat16 and float16 two tokens can
come so close that the batch decides between them (5 of 2,295 responses of a small model); the
record of the run says so.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pal.cluster.settings import ClusterResources
from pal.commands.common import DialogueSettings, ResponseModelSettings, WriterSettings
from pal.core.job import Job, counted
from pal.core.runtime import configure_runtime
from pal.core.settings import INERT, Count, Section, Seed
from pal.decoding.settings import DecodingSettings

if TYPE_CHECKING:
    from pal.data.samples import Sample

logger = logging.getLogger(__name__)

# The note in a run's record for number formats with coarse rounding.
BATCHES = (
    "in this number format batch_rows and batch_tokens can change a few responses; in float32 they "
    "change none"
)

WINDOW = 1 << 15  # samples that are planned, and in memory, at once
REFILLS = 4  # size of a batch, in multiples of the rows decoded at once


class BatchExecutorSettings(Section):
    """Where the batches of samples are answered.

    Attributes:
        executor: local (this process, or those of torchrun) or ray (processes of the Ray cluster
            that RAY_ADDRESS names, or of this machine).
        workers: number of processes with ray, each with a model of its own. Null starts as many as
            the cluster has room for.
        resources: what each of these processes requests from the cluster. By default one core and,
            where there are GPUs, one of them.
    """

    executor: Annotated[Literal["local", "ray"], INERT] = "local"
    workers: Annotated[Count | None, INERT] = None
    resources: ClusterResources = ClusterResources()


class GenerateSettings(ResponseModelSettings, DialogueSettings, WriterSettings):
    """Answer every sample of a file.

    Attributes:
        seed: random seed of token sampling.
    """

    examples = (
        "pal generate model=runs/pal input=runs/pesconv split=test output=runs/pal_test.jsonl",
        "pal generate model=runs/pal input=mine.jsonl output=out.jsonl decoding.strategy=Question",
    )

    seed: Seed = 42
    decoding: DecodingSettings = DecodingSettings()
    generate: BatchExecutorSettings = BatchExecutorSettings()


@dataclass(frozen=True)
class ResponseWork:
    """What a process of a cluster does: it answers batches of samples as this process would.

    Attributes:
        settings: those of the command.
        weights: hash of the model as the driver sees it.
    """

    settings: GenerateSettings
    weights: str

    def load(self) -> Callable[[list["Sample"]], tuple[list[dict[str, Any]], str]]:
        """Load the model and return what answers a batch: records, and the device.

        Raises:
            ConfigError: the model is another one here.
            PalError: it cannot be loaded.
        """
        import torch

        from pal.cluster.nodes import check_source
        from pal.core.job import process_state
        from pal.modeling.responder import load_model_and_tokenizer, make_responder

        chosen, (source,) = self.settings, self.settings.require("model")
        check_source("model", source, self.weights)
        model, tokenizer = load_model_and_tokenizer(source, chosen.dtype)
        responder = make_responder(model, tokenizer, chosen.decoding, chosen.seed)
        device = process_state().device
        model.to(device)

        def answer(samples: list["Sample"]) -> tuple[list[dict[str, Any]], str]:
            with torch.inference_mode():
                records = responder.answer(
                    samples, responder.encode(samples),
                    rows=chosen.batch_rows, tokens=chosen.batch_tokens,
                )  # fmt: skip
            return records, str(device)

        return answer


def generate(settings: GenerateSettings) -> Path:
    """Answer every sample of ``input`` and write one JSONL record each to ``output``.

    After an interruption, the same command continues; several processes share the batches.

    Raises:
        PalError: inputs, checkpoint, settings or output cannot be used.
    """
    settings = GenerateSettings.of(settings)
    configure_runtime()
    source, given, target = settings.require("model", "input", "output")
    from pal.benchmark.notices import notices_of
    from pal.cluster.actors import ActorPool
    from pal.cluster.joining import require_ray
    from pal.cluster.nodes import NodeContext
    from pal.core.files import write_jsonl
    from pal.core.job import refuse_several_processes
    from pal.core.registry import trust
    from pal.core.windows import Window
    from pal.data.cards import cards_note
    from pal.data.samples import Sample, open_samples, warn_of_unanswered
    from pal.decoding.plan import check_decoding

    check_decoding(settings.decoding)
    chosen = settings.generate
    if chosen.executor == "ray":
        require_ray("generate.executor=ray")
        refuse_several_processes("pal generate with generate.executor=ray")
    trust(*settings.trusted_code)
    samples, stamp = open_samples(
        given, settings.split, settings.data, rule=settings.decoding.samples, limit=settings.limit
    )
    warn_of_unanswered(samples, given, settings.split)
    job = Job("generate", settings, target)
    if job.is_finished():
        return job.output

    logger.info("loading %s", source)
    import torch  # after what can be refused without it

    from pal.guard.batches import count_levels, warn_of_crises
    from pal.modeling.responder import check_knowledge, load_model_and_tokenizer, make_responder

    model, tokenizer = load_model_and_tokenizer(source, settings.dtype)
    responder = make_responder(model, tokenizer, settings.decoding, settings.seed)
    check_knowledge(model, samples, settings.data.knowledge)
    if model.config.persona_mode != "none" and not any(sample.persona for sample in samples):
        logger.warning(
            "no sample of %s has a persona, so the model responds without any; pal annotate "
            "infers them",
            given,
        )
    # Samples of similar length share a batch. A batch is several times larger than the number of
    # rows decoded at once: within it, a sample that ends makes room for the next.
    refills = REFILLS if settings.decoding.num_beams == 1 else 1

    devices: set[str] = set()
    levels: Counter[int] = Counter()

    def plan(part: list[Sample]) -> Window:
        levels.update(count_levels(sample.context for sample in part))
        encoded = responder.encode(part)
        batches = responder.plan_batches(
            part, encoded, tokens=settings.batch_tokens * refills,
            rows=settings.batch_rows * refills,
        )  # fmt: skip

        def by_pool(places: Sequence[int]) -> Iterator[tuple[int, list[Any]]]:
            assert pool is not None
            tasks = {str(place): [part[i] for i in batches[place]] for place in places}
            for place, (records, device) in pool.run(work, tasks, NodeContext.of_driver()):
                devices.add(device)
                yield int(place), records

        return Window(
            batches,
            lambda batch: responder.answer(
                [part[i] for i in batch], [encoded[i] for i in batch],
                rows=settings.batch_rows, tokens=settings.batch_tokens, watch=job.show_tokens,
            ),
            by_pool if pool else None,
        )  # fmt: skip

    pool: ActorPool | None = None
    if chosen.executor == "ray":
        pool = ActorPool("generate.executor=ray", "generate", chosen.workers, chosen.resources)
        work = ResponseWork(settings, job.made_of["model"])

    with job.claimed() as state, torch.inference_mode():
        if pool is None:
            model.to(state.device)
        results = job.run_windows(
            map(plan, samples.parts(WINDOW)), items=len(samples), state=state,
            description="generate", unit="response",
        )  # fmt: skip
        if results is not None:
            job.publish(
                lambda path: write_jsonl(path, results),
                samples=len(samples), device=", ".join(sorted(devices)) or str(state.device),
                processes=state.num_processes,
                depends_on_batches=BATCHES if settings.dtype != "float32" else None,
                protocol=stamp,
                notices=notices_of(
                    [given], [Path(source)], protocol=stamp,
                    parameters=sum(p.numel() for p in model.parameters()),
                ),
                **cards_note(settings.data.cards),
            )  # fmt: skip
            logger.info("%s written to %s", counted(len(samples), "response"), job.output)
            warn_of_crises(levels, job.output)
    return job.output
