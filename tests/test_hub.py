"""Hub names really load: small repositories under the default names, served on loopback."""

import json
import subprocess
import sys

import pytest
import torch

from pal.data.tokenizer import train_tokenizer
from tests.hub import serve
from tests.jobs import ESCONV, PERSONACHAT, ROOT, environment

SIZES = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
}  # fmt: skip
FAST = [
    "training.num_train_epochs=1", "training.logging_steps=1", "data.max_train_samples=32",
    "data.max_validation_samples=8",
]  # fmt: skip


def make_esconv(folder):
    """The hub's form: one column ``text`` that holds each dialogue's JSON."""
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        lines = (ESCONV / f"{split}.jsonl").read_text().splitlines()
        rows = [json.dumps({"text": line}) for line in lines[:6]]
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")


def make_blenderbot(folder):
    """As published: generation options in the configuration, a tokenizer without ours."""
    from transformers import BlenderbotSmallConfig, BlenderbotSmallForConditionalGeneration

    tokenizer = train_tokenizer((ESCONV / "train.jsonl").read_text().split("\n"), 900, folder)
    tokenizer.save_pretrained(folder)
    config = BlenderbotSmallConfig(vocab_size=len(tokenizer), scale_embedding=True, **SIZES)
    BlenderbotSmallForConditionalGeneration(config).save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"num_beams": 10, "min_length": 20, "no_repeat_ngram_size": 3}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").unlink()


def word_tokenizer(folder, special):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted(set((PERSONACHAT / "train.txt").read_text().split()))[:600]
    vocab = {word: index for index, word in enumerate([*special, *words])}
    start, pad, end, unknown = special[:4]
    raw = Tokenizer(models.WordLevel(vocab, unk_token=unknown))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocab[start]), (end, vocab[end])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=start, eos_token=end, pad_token=pad, unk_token=unknown,
        cls_token=start, sep_token=end, model_max_length=64,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return len(vocab)


def make_bart(folder):
    """As published for summaries: a forced start and a minimum of 56 tokens."""
    from transformers import BartConfig, BartForConditionalGeneration

    size = word_tokenizer(folder, ["<s>", "<pad>", "</s>", "<unk>"])
    model = BartForConditionalGeneration(
        BartConfig(vocab_size=size, max_position_embeddings=512, **SIZES)
    )
    model.generation_config.update(min_length=56, max_length=142, forced_bos_token_id=0)
    model.save_pretrained(folder)


def make_simcse(folder):
    from transformers import BertConfig, BertModel

    size = word_tokenizer(folder, ["[CLS]", "[PAD]", "[SEP]", "[UNK]"])
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    torch.manual_seed(3)
    root = tmp_path_factory.mktemp("hub")
    makers = {
        "thu-coai/esconv": make_esconv,
        "facebook/blenderbot_small-90M": make_blenderbot,
        "facebook/bart-large-cnn": make_bart,
        "princeton-nlp/sup-simcse-bert-base-uncased": make_simcse,
    }
    for name, make in makers.items():
        make(root / name)
    with serve({name: root / name for name in makers}) as (address, asked):
        yield address, asked


@pytest.fixture(scope="module")
def run(hub, tmp_path_factory):
    address, _ = hub
    folder = tmp_path_factory.mktemp("work")

    def call(script, *arguments):
        command = [sys.executable, ROOT / f"{script}.py", *map(str, arguments)]
        extra = {
            "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(folder / "cache"), "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        done = subprocess.run(
            command, cwd=folder, env=environment(**extra), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return folder, call


@pytest.fixture(scope="module")
def trained(run):
    folder, call = run
    call("train", "--config", ROOT / "configs/small.yaml", "architecture.from_scratch=null", *FAST)
    return folder / "runs/small"


def test_training_from_hub_names(trained, hub):
    record = json.loads((trained / "run.json").read_text())
    assert record["settings"]["data"]["train"] == "thu-coai/esconv"
    assert record["settings"]["architecture"]["base"] == "facebook/blenderbot_small-90M"
    assert record["train_samples"] == 32
    config = json.loads((trained / "config.json").read_text())
    assert config["model_type"] == "pal"
    assert config["d_model"] == 32
    options = json.loads((trained / "generation_config.json").read_text())
    assert options.get("num_beams", 1) == 1
    assert "no_repeat_ngram_size" not in options
    assert any("/datasets/thu-coai/esconv" in path for path in hub[1])


def test_generation_and_scores_from_hub_names(trained, run):
    folder, call = run
    call(
        "generate", f"model={trained}", "input=thu-coai/esconv", "split=test", "limit=6",
        "output=out.jsonl", "decoding.max_new_tokens=12",
    )  # fmt: skip
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    rows[0]["persona"] = ["i drive a taxi ."]
    (folder / "known.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "| cos_sim |" in call("eval", "predictions=known.jsonl", "metrics.names=[cos_sim]")


def test_extractor_from_its_hub_name(run):
    folder, call = run
    call(
        "train", "--config", ROOT / "configs/persona_extractor.yaml", *FAST,
        f"data.train={PERSONACHAT / 'train.txt'}",
        f"data.validation={PERSONACHAT / 'validation.txt'}",
    )  # fmt: skip
    options = json.loads((folder / "runs/extractor/generation_config.json").read_text())
    assert "min_length" not in options
    assert "forced_bos_token_id" not in options
