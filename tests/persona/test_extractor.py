import pytest
import torch

from pal.core.errors import CheckpointError
from pal.data.tokenizer import train_tokenizer
from pal.persona.extractor import (
    ExtractorEncoder,
    add_separators,
    build_extractor,
    load_extractor,
)

SIZES = {
    "model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "max_position_embeddings": 64,
}  # fmt: skip
TEXTS = ["i have two dogs .", "hello there , how are you ?", "i work as a nurse at night ."]


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS * 3, 400, tmp_path_factory.mktemp("tokenizer"))
    return build_extractor(base="", from_scratch=SIZES, tokenizer=tokenizer), tokenizer


def encoder(tokenizer, source=64, target=64):
    return ExtractorEncoder(tokenizer, max_source_tokens=source, max_target_tokens=target)


def test_utterances_and_sentences_are_joined_by_their_separators(extractor):
    _, tokenizer = extractor
    encode = encoder(tokenizer)
    source = tokenizer.decode(encode.encode_source(TEXTS[:2]))
    target = tokenizer.decode(encode.encode_target(TEXTS[::2]))
    assert source == "i have two dogs . <sep> hello there , how are you ? __end__"
    assert target == "i have two dogs . <persona> i work as a nurse at night . __end__"
    assert encode.decode(encode.encode_target(TEXTS[::2])) == [
        "i have two dogs.", "i work as a nurse at night.",
    ]  # fmt: skip


def test_the_oldest_utterances_are_dropped_whole(extractor):
    _, tokenizer = extractor
    whole = encoder(tokenizer).encode_source(TEXTS)
    for limit in range(len(whole), 9, -1):
        ids = encoder(tokenizer, source=limit).encode_source(TEXTS)
        assert len(ids) <= limit
        assert ids == whole[-len(ids) :]
        assert tokenizer.decode(ids).startswith(("i have", "hello", "i work"))
    cut = encoder(tokenizer, source=5).encode_source(TEXTS)
    assert cut == whole[-5:]


def test_a_cut_target_has_no_end_token(extractor):
    _, tokenizer = extractor
    ids = encoder(tokenizer, target=4).encode_target(TEXTS)
    assert len(ids) == 4
    assert ids[-1] != tokenizer.eos_token_id


def test_inherited_generation_options_are_cleared(extractor):
    from transformers import GenerationConfig

    model, tokenizer = extractor
    model.generation_config = GenerationConfig(num_beams=4, min_length=56, no_repeat_ngram_size=3)
    add_separators(model, tokenizer)
    options = model.generation_config.to_diff_dict()
    assert not {"num_beams", "min_length", "no_repeat_ngram_size", "forced_bos_token_id"} & set(
        options
    )


def test_save_and_load(extractor, tmp_path):
    model, tokenizer = extractor
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, same = load_extractor(str(tmp_path))
    assert same.convert_tokens_to_ids("<sep>") == tokenizer.convert_tokens_to_ids("<sep>")
    assert again.config.model_type == "bart"


def test_a_bart_style_tokenizer_keeps_its_start_token(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    tokenizer.add_tokens(["<sep>", "<persona>"], special_tokens=True)
    encode = encoder(tokenizer)
    assert encode.encode_source(["a", "b a"]) == [0, 4, 6, 5, 4, 2]
    assert encode.encode_target(["a", "b"]) == [0, 4, 7, 5, 2]


@pytest.mark.parametrize("kind", ["missing", "other"])
def test_what_is_no_extractor_is_refused(kind, tmp_path, extractor):
    from transformers import BartConfig, BartForConditionalGeneration

    if kind == "other":
        small = {k: v for k, v in SIZES.items() if k != "model_type"}
        BartForConditionalGeneration(BartConfig(**small, vocab_size=50)).save_pretrained(tmp_path)
        tokenizer = train_tokenizer(TEXTS, 400, tmp_path)
        tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="task=persona_extractor") as caught:
        load_extractor(str(tmp_path / "nowhere" if kind == "missing" else tmp_path))
    assert "\n" not in str(caught.value)
