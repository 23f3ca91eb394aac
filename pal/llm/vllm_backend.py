"""A model that vLLM runs in processes of a Ray cluster, many requests at once, without a server.

Each process loads the model once for all requests of a call. An answer is in the cache as soon as
its task is done, so an interrupted run asks nothing twice.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pal.cluster.actors import ActorPool
from pal.cluster.nodes import NodeContext, check_source
from pal.core.errors import CheckpointError, ConfigError, first_line
from pal.core.files import source_fingerprint
from pal.llm.base import Check, EndpointFacts, Reply, Request
from pal.llm.completion import read_completion
from pal.llm.facts import versions_of_model
from pal.llm.settings import LlmSettings
from pal.llm.structured import body_of

ASKED = "llm.backend=vllm"
TOGETHER = 256  # requests of a task; the engine forms its own batches of them

# Ways to request structured answers that the engine knows, by the class of the library that asks
# for it: the newer of two names, or words in the prompt.
ENGINE_MODES = {
    "structured_outputs": "StructuredOutputsParams",
    "guided_json": "GuidedDecodingParams",
    "text": None,
}


class VllmBackend:
    """Answers through vLLM's offline engine, in processes that Ray Data starts.

    Args:
        settings: settings with the model (hub id or folder), the engine's options, the number of
            processes and what each asks the cluster for.
        dtype: number format of the weights.

    Raises:
        ConfigError: Ray or vLLM is not installed, or answers are to be requested in a way that an
            engine does not know.
    """

    def __init__(self, settings: LlmSettings, dtype: str):
        if settings.structured not in ("auto", *ENGINE_MODES):
            raise ConfigError(
                f"llm.structured={settings.structured} is for endpoints; with {ASKED} give auto, "
                f"{', '.join(ENGINE_MODES)}"
            )
        engine = settings.engine
        gpus = engine.get("tensor_parallel_size", 1) * engine.get("pipeline_parallel_size", 1)
        self._pool = ActorPool(ASKED, "llm", settings.workers, settings.resources, gpus=gpus)
        if find_spec("vllm") is None:
            raise ConfigError(f"{ASKED} needs the package vllm; pip install vllm")
        self.facts = EndpointFacts()
        self._settings, self._dtype = settings, dtype

    def answer(
        self,
        requests: dict[bytes, Request],
        check: Check | None,
        done: Callable[[bytes, Reply], None],
    ) -> None:
        """Answer every request once; each is sampled with its own seed, whatever comes with it.

        Raises:
            PalError: the cluster or the model cannot be used.
        """
        keys = list(requests)
        size = min(TOGETHER, -(-len(keys) // (self._settings.workers or 1)))
        tasks = {str(at): keys[at : at + size] for at in range(0, len(keys), size)}
        work = VllmWork(self._settings, self._dtype, source_fingerprint(str(self._settings.model)))
        context = NodeContext.of_driver(versions_of_model(self._settings))
        given = {at: [requests[key] for key in part] for at, part in tasks.items()}
        for at, found in self._pool.run(work, given, context):
            self.facts = EndpointFacts(found.output_mode, found.system_role)
            for key, completion in zip(tasks[at], found.completions, strict=True):
                reply = read_completion(
                    completion, requests[key], check, found.output_mode, found.seconds
                )
                done(key, reply)


@dataclass(frozen=True)
class EngineAnswers:
    """What an engine says to the requests of a task.

    Attributes:
        completions: one chat completion a request, as an endpoint gives it.
        output_mode: how structured answers were requested.
        system_role: whether the model takes a system message.
        seconds: time per request.
    """

    completions: list[dict[str, Any]]
    output_mode: str
    system_role: bool
    seconds: float


@dataclass(frozen=True)
class VllmWork:
    """What a process of the cluster does: it loads the engine and answers lists of requests.

    Attributes:
        settings: those of the model.
        dtype: number format of the weights.
        weights: hash of the model as the driver sees it.
    """

    settings: LlmSettings
    dtype: str
    weights: str

    def load(self) -> Callable[[list[Request]], EngineAnswers]:
        """Load the engine and return what answers.

        Raises:
            ConfigError: the model is another one here.
            CheckpointError: the engine cannot be made of it.
        """
        name = str(self.settings.model)
        check_source("llm.model", name, self.weights)
        try:
            import vllm

            engine = vllm.LLM(
                model=name, dtype=self.dtype, trust_remote_code=False, **self.settings.engine
            )
        except Exception as error:  # whatever the library finds wrong
            raise CheckpointError(
                f"{name}: vLLM cannot load it ({first_line(error)}); give another llm.model, or "
                "correct llm.engine"
            ) from error
        return EngineCalls(vllm, engine, self.settings)


class EngineCalls:
    """Calls of an engine: requests in, completions out.

    Args:
        library: the module ``vllm``.
        engine: its ``LLM``.
        settings: those of the model.
    """

    def __init__(self, library: Any, engine: Any, settings: LlmSettings):
        self.library, self.engine, self.settings = library, engine, settings
        offered = library.sampling_params
        self.mode = settings.structured
        if self.mode == "auto":
            self.mode = next(
                mode for mode, name in ENGINE_MODES.items() if not name or hasattr(offered, name)
            )
        self.system_role = True

    def __call__(self, requests: list[Request]) -> EngineAnswers:
        """Answer requests; a model that refuses a system message gets its text as the user's.

        Raises:
            CheckpointError: the model cannot answer them.
            ConfigError: a field of ``llm.body`` is none of the engine's.
        """
        began = time.monotonic()
        for system_role in (True, False) if self.system_role else (False,):
            try:
                outputs = self._ask(requests, system_role)
            except ConfigError:
                raise
            except Exception as error:  # of the template, or a prompt that is too long
                refusal = first_line(error)
                continue
            if any(output.outputs[0].finish_reason in ("error", "abort") for output in outputs):
                raise CheckpointError(
                    f"{self.settings.model}: vLLM gave up on a request with llm.structured="
                    f"{self.mode}, as its log says; give llm.structured=text, or another llm.model"
                )
            self.system_role = system_role
            seconds = (time.monotonic() - began) / len(requests)
            found = [_completion(output) for output in outputs]
            return EngineAnswers(found, self.mode, system_role, seconds)
        raise CheckpointError(
            f"{self.settings.model}: vLLM cannot answer ({refusal}); give another llm.model, or "
            "correct llm.engine"
        )

    def _ask(self, requests: list[Request], system_role: bool) -> list[Any]:
        conversations, sampling, more = [], [], {}
        for request in requests:
            body = body_of("", request, self.mode, more=self.settings.body, system_role=system_role)
            del body["model"]
            conversations.append(body.pop("messages"))
            if "chat_template_kwargs" in body:
                more["chat_template_kwargs"] = body.pop("chat_template_kwargs")
            sampling.append(self._sampling(body))
        return list(self.engine.chat(conversations, sampling, use_tqdm=False, **more))

    def _sampling(self, body: dict[str, Any]) -> Any:
        """Return the fields of a request as the library's options; none comes from the model."""
        offered = self.library.sampling_params
        if "structured_outputs" in body:
            form = offered.StructuredOutputsParams(**body.pop("structured_outputs"))
            body["structured_outputs"] = form
        if "guided_json" in body:
            body["guided_decoding"] = offered.GuidedDecodingParams(json=body.pop("guided_json"))
        try:
            return self.library.SamplingParams(**body)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"llm.body: vLLM's SamplingParams take no such field or value "
                f"({first_line(error)}); correct or remove it"
            ) from error


def _completion(output: Any) -> dict[str, Any]:
    """Return an output of the engine as a chat completion."""
    answer = output.outputs[0]
    return {
        "choices": [{"message": {"content": answer.text}, "finish_reason": answer.finish_reason}],
        "usage": {
            "prompt_tokens": len(output.prompt_token_ids or ()),
            "completion_tokens": len(answer.token_ids),
        },
    }
