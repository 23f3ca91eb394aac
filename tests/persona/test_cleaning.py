import pytest
import torch

from pal.data.splits import load_split
from pal.persona.cleaning import add_personas, annotated_prefixes, clean_sentences, support


def turn(speaker, text):
    return {"speaker": speaker, "text": text, "strategy": None, "persona": []}


DIALOG = [
    turn("seeker", "Hello"),
    turn("supporter", "Hi there! How may I support you today?"),
    turn("seeker", "I am anxious about my job."),
    turn("supporter", "What is it?"),
    turn("seeker", "I study to be a pharmacist."),
    turn("seeker", "It is hard."),
]


def test_cleaning():
    assert clean_sentences(
        [
            " i have   a dog. ", "", "I HAVE A DOG.", "dog", "w " * 26, "w " * 25,
            "my favorite color is red.", "i love My Favorite Band muse.", "two words",
        ]
    ) == ["i have a dog.", " ".join(["w"] * 25), "two words"]  # fmt: skip


def test_support_is_that_of_one_utterance():
    said = ["My mother cooks for us all.", "I am a paramedic."]
    assert support("i am a paramedic.", said) == 1.0
    assert support("my mother is a paramedic.", said) == 0.5
    assert support("i have a dog.", said) == 0.0
    assert support("i am.", []) == support("i have a dog.", []) == 0.0


@pytest.mark.parametrize(
    ("start", "turns"), [("third_utterance", [2, 4, 5]), ("third_seeker_turn", [4, 5])]
)
def test_where_annotation_starts(start, turns):
    prefixes = annotated_prefixes(DIALOG, start)
    assert list(prefixes) == turns
    assert prefixes[4] == ("Hello", "I am anxious about my job.", "I study to be a pharmacist.")


def test_new_sentences_join_the_known_as_in_table_1():
    inferred = {
        ("Hello", "I am anxious about my job."): ["i am worried about my job's future."],
        ("Hello", "I am anxious about my job.", "I study to be a pharmacist."): [
            "I am worried about my job's future.", "i am studying to be a pharmacist.",
        ],
        ("Hello", "I am anxious about my job.", "I study to be a pharmacist.", "It is hard."): [],
    }  # fmt: skip
    dialogue = add_personas({"dialog": DIALOG}, inferred, "third_utterance")
    known = [turn["persona"] for turn in dialogue["dialog"]]
    worried, pharmacist = "i am worried about my job's future.", "i am studying to be a pharmacist."
    assert known == [[], [], [worried], [worried], [worried, pharmacist], [worried, pharmacist]]
    assert dialogue["persona"] == [worried, pharmacist]
    assert DIALOG[2]["persona"] == []


def test_sentences_are_those_of_generate_alone(extractor_model):
    """Batches, and a cache that leaves the encoder's part in place, change no sentence."""
    from transformers import EncoderDecoderCache

    from pal.persona.extractor import (
        BeamExtractor,
        ExtractorEncoder,
        beam_cache,
        load_extractor,
    )
    from tests.jobs import ESCONV

    model, tokenizer = load_extractor(str(extractor_model))
    encoder = ExtractorEncoder.from_config(tokenizer, model.config)
    extractor = BeamExtractor(model, encoder, num_beams=4, max_new=24)
    prefixes = [
        prefix
        for row in list(load_split(str(ESCONV / "test.jsonl"), None))[:4]
        for prefix in annotated_prefixes(row["dialog"], "third_utterance").values()
    ]
    sources = [encoder.encode_source(prefix) for prefix in prefixes]
    assert len({len(source) for source in sources}) > 3
    alone = []
    for source in sources:
        with torch.inference_mode():
            row = model.generate(
                input_ids=torch.tensor([source]), generation_config=extractor.options
            )
        alone.append(encoder.decode(row[0, 1:].tolist()))
    assert extractor(sources) == alone
    assert len({tuple(sentences) for sentences in alone}) > 1

    cache = beam_cache(model.config)
    assert isinstance(cache, EncoderDecoderCache)
    moved, kept = torch.randn(2, 1, 3, 2), torch.randn(2, 1, 3, 2)
    cache.self_attention_cache.update(moved, moved, 0)
    cache.cross_attention_cache.update(kept, kept, 0)
    cache.reorder_cache(torch.tensor([1, 1]))
    assert torch.equal(cache.self_attention_cache.layers[0].keys, moved[[1, 1]])
    assert torch.equal(cache.cross_attention_cache.layers[0].keys, kept)
