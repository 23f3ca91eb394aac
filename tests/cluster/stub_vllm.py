"""A package that plays vLLM: it says back what it was asked, and how.

It has what the offline engine is used for here, with the names of version 0.32.
"""

from pathlib import Path

ENGINE = """
import json, types
from vllm import sampling_params
from vllm.sampling_params import SamplingParams


class LLM:
    def __init__(self, model, dtype="auto", trust_remote_code=False, **options):
        assert trust_remote_code is False
        if options.get("max_model_len") == 1:
            raise ValueError("max_model_len is too small\\nand more lines")
        self.said = {"model": model.rpartition("/")[2], "dtype": dtype, **options}

    def chat(self, messages, sampling_params=None, use_tqdm=True, chat_template_kwargs=None):
        assert len(messages) == len(sampling_params)
        if any(m["role"] == "system" for one in messages for m in one):
            raise ValueError("this template knows no system")
        return [self.answer(*pair, chat_template_kwargs) for pair in zip(messages, sampling_params)]

    def answer(self, messages, sampling, more):
        if "too_long" in self.said:
            raise ValueError("the prompt is too long")
        text = json.dumps({"said": messages, **self.said, **vars(sampling), "more": more},
                          default=lambda form: "a form")
        if sampling.structured_outputs is not None:
            assert sampling.structured_outputs.json["type"] == "object"
            text = '{"stars": 3}'
        reason = "error" if "broken" in self.said else "stop"
        answer = types.SimpleNamespace(text=text, token_ids=[1, 2], finish_reason=reason)
        return types.SimpleNamespace(prompt_token_ids=[1, 2, 3], outputs=[answer])
"""
PARAMETERS = """
class StructuredOutputsParams:
    def __init__(self, json=None):
        self.json = json


class SamplingParams:
    def __init__(self, temperature=1.0, max_tokens=16, seed=None, top_p=1.0,
                 structured_outputs=None):
        vars(self).update(temperature=temperature, max_tokens=max_tokens, seed=seed, top_p=top_p,
                          structured_outputs=structured_outputs)
"""


def write_stub(folder: Path) -> None:
    """Write the package into a folder."""
    package = folder / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(ENGINE)
    (package / "sampling_params.py").write_text(PARAMETERS)
