"""What a model folder may hold: checked before anything is made of it; no code comes with it."""

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BlenderbotSmallConfig, BlenderbotSmallForConditionalGeneration

from pal.core import registry
from pal.core.errors import CheckpointError, ConfigError
from pal.data.tokenizer import load_tokenizer
from pal.modeling.checkpoint import (
    build_response_model,
    check_sizes,
    check_weight_file,
    load_response_model,
)
from pal.modeling.configuration import PalConfig
from pal.modeling.responder import load_model_and_tokenizer
from tests.modeling.small import GatedFusion, build, small_tokenizer

SIZES = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    build(small_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def trusting_nobody(monkeypatch):
    monkeypatch.setattr(registry, "_trusted", set())


def say(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def refusal(folder, kind=CheckpointError):
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        load_response_model(str(folder))
    assert time.monotonic() - began < 20
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_checkpoints_configuration_imports_nothing(
    folder, tmp_path, monkeypatch, trusting_nobody
):
    (folder / "visitor.py").write_text("open('seen', 'w').close()\nclass Fusion: pass\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("visitor:Fusion", "os:_exit"):
        say(folder, fusion=name)
        message = refusal(folder, ConfigError)
        assert f"trusted_code={name}" in message
        assert "named by a checkpoint" in message
    assert not (folder / "seen").exists()


def test_a_class_of_the_users_own_is_loaded_where_they_name_it(tmp_path, trusting_nobody):
    name = "tests.modeling.small:GatedFusion"
    built = build_response_model(
        base="", from_scratch=SIZES, vocab_size=2012,
        pal_settings={"fusion": name, "strategy_token_ids": list(range(2004, 2012)),
                      "special_token_ids": [0, 1, 3]},
    )  # fmt: skip
    built.save_pretrained(tmp_path)
    assert isinstance(load_response_model(str(tmp_path)).fusion, GatedFusion)  # named by training
    registry._trusted.clear()
    assert "trusted_code" in refusal(tmp_path, ConfigError)
    registry.trust(name)
    assert isinstance(load_response_model(str(tmp_path)).fusion, GatedFusion)


def test_a_name_that_may_be_the_hubs_is_said_to_be_no_folder():
    assert "no such folder, and none came from the hub" in refusal("nowhere/model")


def test_a_training_that_has_not_ended_is_named(tmp_path):
    (tmp_path / "started.json").write_text("{}")
    (tmp_path / "checkpoint-5").mkdir()
    assert "its training has not ended" in refusal(tmp_path)


def test_a_folder_of_models_names_them(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run" / "model")
    said = refusal(tmp_path / "run")
    assert "a folder of others; give" in said
    assert str(tmp_path / "run" / "model") in said
    shutil.copytree(folder, tmp_path / "lost")
    (tmp_path / "lost" / "config.json").rename(tmp_path / "away.json")
    shutil.copytree(folder, tmp_path / "lost" / "checkpoint-1")
    assert "a folder of others" not in refusal(tmp_path / "lost")


def test_a_file_and_a_folder_without_a_model_are_told_as_before_loading(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no model there (a file, not a folder); give " in refusal(folder / "config.json")
    assert "no model there (it holds no config.json); give " in refusal(tmp_path / "empty")


def test_code_of_an_unknown_model_type_is_not_asked_for(folder, monkeypatch):
    (folder / "theirs.py").write_text("raise SystemExit('code ran')\n")
    say(folder, model_type="theirs", auto_map={"AutoConfig": "theirs.Config"})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    assert "no model there" in refusal(folder)


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"d_model": "wide"}, "d_model"),
        ({"vocab_size": True}, "vocab_size"),
        ({"vocab_size": 10**15}, "vocab_size"),
        ({"encoder_layers": 10**6}, "encoder_layers"),
        ({"max_position_embeddings": 2**23}, "parameters"),
        ({"decoder_ffn_dim": 2**24}, "parameters"),
        ({"encoder_attention_heads": 0}, "describes no model"),
        ({"encoder_attention_heads": 7}, "describes no model"),
        ({"d_model": -48}, "describes no model"),
        ({"fusion": 3}, "fusion is not a name"),
        ({"fusion": "maskd"}, "did you mean 'masked'"),
        ({"alpha": "0.5"}, "alpha are not 8 numbers"),
        ({"alpha": [0.5]}, "alpha are not 8 numbers"),
        ({"alpha": [None] * 8}, "alpha are not 8 numbers"),
        ({"strategy_alpha": [1]}, "strategy_alpha is not a number"),
        ({"strategy_token_ids": None}, "strategy_token_ids"),
        ({"strategy_token_ids": [10**6] * 8}, "strategy_token_ids"),
        ({"special_token_ids": "all"}, "special_token_ids"),
        ({"persona_mode": "both"}, "persona_mode"),
        ({"max_context_tokens": 10**5}, "max_context_tokens"),
        ({"eos_token_id": None}, "eos_token_id"),
        ({"decoder_start_token_id": 10**6}, "decoder_start_token_id"),
        ({"activation_function": "magic"}, "describes no model"),
        ({"model_type": "bart"}, "not a PAL response model"),
        ({"dropout": None}, "dropout"),
        ({"dtype": 5}, "dtype is not a number format of weights, such as float32, got 5"),
        ({"dtype": "float33"}, "dtype is not a number format"),
        ({"dtype": "int8"}, "dtype is not a number format"),
        ({"dtype": ["float32"]}, "dtype is not a number format"),
        ({"torch_dtype": {}}, "torch_dtype is not a number format"),
    ],
    ids=str,
)
def test_configurations_of_no_model_are_one_line(folder, entries, word):
    say(folder, **entries)
    assert word in refusal(folder, (CheckpointError, ConfigError))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": NaN}', '{"d_model": ' + "9" * 5000 + "}", "[" * 10000, "\x00"]
)
def test_configurations_that_are_no_json_object_are_one_line(folder, text):
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(folder)


def change(folder, what):
    path = folder / "model.safetensors"
    weights = load_file(path)
    what(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder, value):
    def spoil(weights):
        weights["model.decoder.layers.0.fc1.bias"][3] = value

    change(folder, spoil)
    assert "model.decoder.layers.0.fc1.bias holds numbers that are not finite" in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool])
def test_weights_that_are_no_floats_are_refused(folder, dtype):
    name = "model.encoder.layers.1.fc2.weight"
    change(folder, lambda weights: weights.update({name: torch.ones(48, 96, dtype=dtype)}))
    assert f"{name} is stored as" in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_every_float_are_read(folder, dtype):
    change(folder, lambda weights: weights.update({k: w.to(dtype) for k, w in weights.items()}))
    assert load_response_model(str(folder)).dtype == torch.float32


def test_weights_without_a_place_are_refused(folder):
    change(folder, lambda weights: weights.update({"adapter.weight": torch.ones(3)}))
    assert "1 weights that its config.json has no place for (adapter.weight" in refusal(folder)


def test_a_configuration_of_fewer_layers_than_there_are_is_refused(folder):
    say(folder, encoder_layers=1)
    assert "weights that its config.json has no place for (model.encoder.layers.1" in refusal(
        folder
    )


@pytest.mark.parametrize(
    "contents",
    [b"", b"{oops", b"[1]", b"5", b"\xff\xfe", b'{"max_new_tokens": "x"}'],
    ids=str,
)  # fmt: skip
def test_generation_options_that_cannot_be_read_are_refused(folder, contents):
    (folder / "generation_config.json").write_bytes(contents)
    assert "generation_config.json: " in refusal(folder)


def test_a_model_needs_no_generation_options_of_its_own(folder):
    (folder / "generation_config.json").unlink()
    load_response_model(str(folder))


def test_missing_and_misshapen_weights_are_refused(folder):
    change(folder, lambda weights: weights.pop("model.decoder.layers.1.fc1.bias"))
    assert "1 weights missing or misshapen (model.decoder.layers.1.fc1.bias" in refusal(folder)
    say(folder, decoder_layers=1, decoder_ffn_dim=100)
    assert "model.decoder.layers.0.fc1" in refusal(folder)


@pytest.mark.parametrize(
    ("contents", "word"),
    [
        (b"", "model.safetensors is empty; download the weights again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"no tensors at all", "damaged"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00[1, 2]  ", "damaged"),
    ],
    ids=["empty", "pointer", "text", "a list"],
)
def test_files_that_hold_no_weights_say_what_to_do(folder, contents, word):
    (folder / "model.safetensors").write_bytes(contents)
    assert word in refusal(folder)


def test_pickled_weights_are_not_ours(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    message = refusal(folder)
    assert "pytorch_model.bin is a pickle" in message
    assert "convert-authors" in message


def test_what_training_leaves_beside_the_weights_is_no_weights(folder):
    torch.save({}, folder / "training_args.bin")
    load_response_model(str(folder))


def train_from(base, **pal_settings):
    return build_response_model(
        base=str(base), from_scratch=None, vocab_size=120, pal_settings=pal_settings
    )


@pytest.fixture
def base(tmp_path):
    config = BlenderbotSmallConfig(vocab_size=100, **SIZES)
    torch.manual_seed(0)
    BlenderbotSmallForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_a_published_base_may_be_a_pickle(base):
    weights = load_file(base / "model.safetensors")
    safe = train_from(base)
    (base / "model.safetensors").unlink()
    torch.save(weights, base / "pytorch_model.bin")
    pickled = train_from(base)
    assert pickled.model.shared.weight.shape[0] == 120
    assert torch.equal(pickled.model.shared.weight[:100], safe.model.shared.weight[:100])


@pytest.mark.parametrize(
    ("contents", "word"),
    [(b"", "is empty"), (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer")],
    ids=["empty", "pointer"],
)
def test_a_base_without_its_weights_says_what_to_do(base, contents, word):
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(contents)
    with pytest.raises(
        CheckpointError, match=f"architecture.base=.*pytorch_model.bin {word}|{word}"
    ):
        train_from(base)


def test_a_base_of_another_family_is_refused(base):
    say(base, model_type="mbart")
    with pytest.raises(CheckpointError, match="a mbart model; PAL builds on blenderbot-small"):
        train_from(base)


@pytest.mark.parametrize(
    ("sizes", "word"),
    [
        ({"d_modl": 16}, "unknown size 'd_modl'; did you mean 'd_model'"),
        ({"d_model": "16"}, "d_model"),
        ({"encoder_layers": 10**7}, "encoder_layers"),
        ({"decoder_layers": 10**30}, "decoder_layers"),
        ({"encoder_attention_heads": 3}, "no such model"),
        ({"d_model": 0}, "no such model"),
        ({"model_type": "gpt"}, "model_type: unknown backbone 'gpt'"),
        ({"max_position_embeddings": 2**24, "d_model": 2**24}, "smaller sizes"),
    ],
    ids=str,
)
def test_sizes_of_no_model_are_one_line(sizes, word):
    with pytest.raises(ConfigError, match=word) as caught:
        build_response_model(
            base="", from_scratch={**SIZES, **sizes}, vocab_size=100, pal_settings={}
        )
    assert "architecture.from_scratch" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_fusion_of_the_settings_is_told_before_anything_is_built():
    with pytest.raises(ConfigError, match=r"architecture.fusion: unknown fusion 'maskd'"):
        build_response_model(
            base="nowhere", from_scratch=None, vocab_size=100, pal_settings={"fusion": "maskd"}
        )
    with pytest.raises(ConfigError, match=r"architecture.template: unknown template 'claen'"):
        build_response_model(
            base="nowhere", from_scratch=None, vocab_size=100, pal_settings={"template": "claen"}
        )


def test_a_folder_in_the_place_of_weights_is_refused(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read \(Is a direc"):
        check_weight_file(tmp_path / "model.safetensors", "model=here")


@pytest.mark.parametrize("contents", ["[1]", "{bad", ""])
def test_a_vocabulary_of_another_form_is_refused(response_model, tmp_path, contents):
    folder = shutil.copytree(response_model, tmp_path / "model")
    (folder / "vocab.json").write_text(contents)
    with pytest.raises(CheckpointError, match=r"no tokenizer at .*; give a folder"):
        load_tokenizer(folder)


def half(lines):
    return lines[: len(lines) // 2]


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda lines: half(lines), "makes [0-9]+ of the [0-9]+ pieces"),
        (lambda lines: [lines[0]], "makes 0 of"),
        (lambda lines: [lines[0], *(line.replace(" ", "") for line in lines[1:])], "line 2: exp"),
        (lambda lines: [*lines[:8], "three of them\n", *lines[8:]], "line 9: expected two pieces"),
        (lambda lines: [*lines[:8], "\n", *lines[8:]], "line 9: expected two pieces"),
        (lambda lines: [*lines[:-1], lines[-1][:2]], "cut off"),
        (lambda lines: [], "cut off"),
        (lambda lines: [lines[0], *(f"q{n} q{n}\n" for n in range(900))], "makes 0 of"),
    ],
)
def test_merges_of_another_form_are_refused(response_model, tmp_path, damage, word):
    folder = shutil.copytree(response_model, tmp_path / "model")
    path = folder / "merges.txt"
    path.write_text("".join(damage(path.read_text().splitlines(keepends=True))))
    with pytest.raises(CheckpointError, match=rf"no tokenizer at .*merges.txt.*{word}"):
        load_tokenizer(folder)


@pytest.mark.parametrize("size", ["x", True, -1, [16], None])
def test_a_size_that_is_no_number_is_refused(size):
    with pytest.raises(ConfigError, match=r"from_scratch.d_model: expected a number, got"):
        check_sizes({"d_model": size}, PalConfig())
    check_sizes({"d_model": 16, "dropout": 0, "activation_function": "gelu"}, PalConfig())


@pytest.mark.parametrize(("entries", "word"), [
    ({"unk_token": "nowhere"}, "no id|ids up to"),
    ({"pad_token": "nowhere at all"}, "no id|ids up to"),
])  # fmt: skip
def test_a_tokenizer_without_ids_for_all_words_is_refused(response_model, tmp_path, entries, word):
    shutil.copytree(response_model, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
    with pytest.raises(CheckpointError, match=f"its tokenizer has {word}") as caught:
        load_model_and_tokenizer(str(tmp_path / "model"))
    assert len(str(caught.value)) < 400
