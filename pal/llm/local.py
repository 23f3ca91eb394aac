"""A transformers model on this machine, with batches of similar length."""

import time
from collections.abc import Callable
from typing import Any

from pal.core.errors import CheckpointError, first_line
from pal.llm.base import Check, EndpointFacts, Reply, Request
from pal.llm.completion import read_completion
from pal.llm.settings import LlmSettings
from pal.llm.structured import body_of


class TransformersBackend:
    """Answers with a causal language model and its chat template; the prompt describes the format.

    Args:
        settings: settings with the model (hub id or folder) and the rows per batch.
        dtype: number format of the weights.
    """

    def __init__(self, settings: LlmSettings, dtype: str):
        self.facts = EndpointFacts("text")
        self._settings = settings
        self._dtype = dtype

    def answer(
        self,
        requests: dict[bytes, Request],
        check: Check | None,
        done: Callable[[bytes, Reply], None],
    ) -> None:
        """Answer every request once, longest prompts first, so that a lack of memory appears early.

        At temperature 0 decoding is greedy; otherwise a batch is sampled with the seed of its first
        request.

        Raises:
            CheckpointError: the model cannot be loaded, or its chat template cannot be used.
        """
        import torch

        model, tokenizer = self._load()
        prompts = {key: self._prompt(tokenizer, request) for key, request in requests.items()}
        alike: dict[tuple[int, float], list[bytes]] = {}
        for key in sorted(prompts, key=lambda key: -len(prompts[key])):
            form = (requests[key].max_tokens, requests[key].temperature)
            alike.setdefault(form, []).append(key)
        rows = self._settings.batch_rows
        for (max_tokens, temperature), keys in alike.items():
            sampling: dict[str, Any] = {"do_sample": False}
            if temperature > 0:
                sampling = {"do_sample": True, "temperature": temperature, "top_k": 0}
            for start in range(0, len(keys), rows):
                batch = keys[start : start + rows]
                torch.manual_seed(requests[batch[0]].seed or 0)
                started = time.monotonic()
                inputs = tokenizer(
                    [prompts[key] for key in batch], return_tensors="pt", padding=True,
                    add_special_tokens=False,
                ).to(model.device)  # fmt: skip
                with torch.inference_mode():
                    output = model.generate(
                        **inputs, max_new_tokens=max_tokens, pad_token_id=tokenizer.pad_token_id,
                        **sampling,
                    )  # fmt: skip
                tails = output[:, inputs["input_ids"].shape[1] :]
                seconds = (time.monotonic() - started) / len(batch)
                for key, tail in zip(batch, tails, strict=True):
                    text = tokenizer.decode(tail, skip_special_tokens=True)
                    answer = {"choices": [{"message": {"content": text}}]}
                    done(key, read_completion(answer, requests[key], check, "text", seconds))

    def _prompt(self, tokenizer: Any, request: Request) -> str:
        """Return a request in the format of the model's chat template.

        For a template that refuses a system message, its text is put before the first user turn.
        """
        from jinja2 import TemplateError

        for system_role in (True, False) if self.facts.system_role else (False,):
            messages = body_of("", request, "text", system_role=system_role)["messages"]
            try:
                prompt = tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=False
                )
            except (TemplateError, TypeError, ValueError) as error:
                refusal = first_line(error)
                continue
            self.facts = EndpointFacts("text", system_role)
            return prompt
        raise CheckpointError(
            f"{self._settings.model}: its chat template cannot be used ({refusal}); give another "
            "llm.model"
        )

    def _load(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        name = str(self._settings.model)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                name, padding_side="left", trust_remote_code=False
            )
            dtype = getattr(torch, self._dtype)
            model: Any = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{name}: no causal language model can be loaded ({first_line(error)}); "
                "give llm.model=FOLDER_OR_HUB_ID of one"
            ) from None
        if tokenizer.chat_template is None:
            raise CheckpointError(f"{name}: its tokenizer has no chat template; give a chat model")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if torch.accelerator.is_available():
            model = model.to(torch.accelerator.current_accelerator())
        return model.eval(), tokenizer
