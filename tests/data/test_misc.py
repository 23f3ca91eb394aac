"""MISC's text, against what the released data code makes, and the rules around it."""

import json
from dataclasses import replace

import pytest

from pal.core.errors import DataError
from pal.data.batches import pad
from pal.data.dialogues import Dialogues
from pal.data.esconv import load_esconv
from pal.data.knowledge import (
    RELATIONS,
    Knowledge,
    parse_comet_line,
    parse_sample_line,
    read_knowledge,
)
from pal.data.misc import (
    CLS,
    MISC_TOKENS,
    MiscCollator,
    MiscEncoder,
    add_misc_tokens,
    context_turns,
    join_blocks,
    split_blocks,
)
from pal.data.samples import CorpusSamples, Sample
from pal.data.tokenizer import load_tokenizer, train_tokenizer
from tests.jobs import ESCONV
from tests.modeling.small import bundled_dialogues

LIMITS = {"utterance": 30, "situation": 20}


def make(tokenizer, **changes):
    given = {"template": "authors", "max_context_tokens": 512, "max_target_tokens": 510,
             "released": True, "blocks": LIMITS, "block_tokens": 10}  # fmt: skip
    return MiscEncoder(tokenizer, **{**given, **changes})


@pytest.fixture(scope="module")
def published(shared_data):
    return add_misc_tokens(load_tokenizer(shared_data / "blenderbot_small_tokenizer"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    texts = [turn["text"] for row in bundled_dialogues() for turn in row["dialog"]]
    return add_misc_tokens(train_tokenizer(texts, 1500, tmp_path_factory.mktemp("tokenizer")))


def test_released_features(golden, published):
    found = json.loads((golden / "misc/features.json").read_text())
    assert {t: published.convert_tokens_to_ids(t) for t in MISC_TOKENS} == (
        found["tokenizer"]["added"]
    )
    for probe in found["tokenizer_probes"]:
        assert published(probe["text"], add_special_tokens=False).input_ids == probe["ids"]
    encoder = make(published)
    for dialogue in found["dialogues"]:
        *turns, target = parse_sample_line(dialogue["row"], "row")
        theirs = dialogue["training_features"]
        ids = encoder.encode_utterances(turns, training=True)
        assert ids == [token for token in theirs["input_ids"] if token], dialogue["name"]
        assert encoder.encode_utterances(turns, training=False) == dialogue["generation_input_ids"]
        strategy, _, words = target["text"][1:].partition("] ")
        token, *labels = encoder.encode_target(strategy, words)
        assert labels == [token for token in theirs["decoder_lm_labels"] if token != -100]
        assert published.convert_ids_to_tokens(token) == f"[{strategy}]"
        for stream, name in (("utterance", "comet"), ("situation", "comet_st")):
            blocks = encoder.encode_blocks(
                parse_comet_line(dialogue[f"{stream}_blocks"]), LIMITS[stream]
            )
            mask = theirs[f"{name}_mask"]
            assert len(blocks) == sum(mask)
            assert blocks == [[t for t in row if t] for row in theirs[f"{name}_ids"]][: len(blocks)]


def turn(speaker, text):
    return {"speaker": speaker, "text": text, "strategy": None}


def sample_of(turns, **changes):
    given = Sample("d/1", "d", len(turns), tuple(turns), (), "Question", "why is that?", "I fail.")
    return replace(given, **changes)


def test_a_context_begins_with_the_seeker_and_holds_nine_utterances():
    turns = [turn("supporter", "hello"), turn("supporter", "well"), turn("seeker", "a")]
    assert [one["text"] for one in context_turns(turns)] == ["a"]
    assert [one["text"] for one in context_turns(turns[:2])] == ["hello", "well"]
    long = [turn("seeker", str(number)) for number in range(20)]
    assert [one["text"] for one in context_turns(long)] == [str(n) for n in range(11, 20)]


@pytest.mark.parametrize("released", [True, False])
def test_whole_utterances_are_dropped_from_the_left(small, released):
    encoder = make(small, released=released, max_context_tokens=40)
    turns = [turn("seeker", f"i feel sad and i am tired {number} .") for number in range(9)]
    ids = encoder.encode(sample_of(turns))["input_ids"]
    assert len(ids) <= 40
    assert ids[0] == small.convert_tokens_to_ids(CLS)
    whole = encoder.encode_utterances(turns, training=False)[1:]
    longer = make(small, released=released, max_context_tokens=4000)
    assert longer.encode_utterances(turns, training=False)[-len(whole) :] == whole


@pytest.mark.parametrize("released", [True, False])
def test_one_utterance_too_long_is_cut_and_leaves_a_context(small, released):
    encoder = make(small, released=released, max_context_tokens=16)
    ids = encoder.encode(sample_of([turn("seeker", "i feel so very sad " * 20)]))["input_ids"]
    assert len(ids) == 16
    assert ids[0] == small.convert_tokens_to_ids(CLS)
    assert ids[-1] == small.eos_token_id


def test_the_paper_costs_no_token_and_decoding_sees_what_training_saw(small):
    turns = [turn("seeker", "i am sad .")]
    length = len(make(small).encode_utterances(turns, training=False))
    for most in (length, length + 1):
        paper = make(small, released=False, max_context_tokens=most)
        one, two = (paper.encode_utterances(turns, training=flag) for flag in (True, False))
        assert one == two
        assert len(one) == length
    released = make(small, max_context_tokens=8 * ((length + 6) // 8))
    assert len(released.encode_utterances(turns, training=True)) == length - 1


def test_strategies_named_in_a_text_are_not_in_the_context(small):
    encoder = make(small)
    ids = encoder.encode(sample_of([turn("seeker", "[Question] i am [CLS] sad")]))["input_ids"]
    plain = encoder.encode(sample_of([turn("seeker", "i am sad")]))["input_ids"]
    assert ids == plain


def test_targets_hold_strategy_words_and_end(small):
    encoder = make(small, max_target_tokens=3)
    labels = encoder.encode(sample_of([turn("seeker", "i am sad")]))["labels"]
    assert len(labels) == 4
    assert labels[0] == small.convert_tokens_to_ids("[Question]")
    request = sample_of([turn("seeker", "i am sad")], response=None, strategy=None)
    assert "labels" not in encoder.encode(request)


def test_batches_pad_blocks(small):
    encoder = make(small)
    knowledge = Knowledge(("[xReact] sad", "[xWant] to rest a bit"), ())
    rows = [encoder.encode(sample_of([turn("seeker", "i am sad")], knowledge=k))
            for k in (knowledge, Knowledge(), None)]  # fmt: skip
    for fixed, shape in ((None, 2), (30, 30)):
        collate = MiscCollator(
            pad_token_id=0, decoder_start_token_id=1, block_tokens=10,
            blocks={"utterance": fixed, "situation": fixed},
        )  # fmt: skip
        batch = collate(rows)
        assert batch["utterance_blocks"].shape == (3, shape, 10)
        assert batch["situation_blocks"].shape == (3, fixed or 0, 10)
        assert (batch["utterance_blocks"] != 0).any(-1).sum(1).tolist() == [2, 0, 0]
        assert "decoder_input_ids" not in batch
    first = small("[xReact] sad", add_special_tokens=False).input_ids
    assert batch["utterance_blocks"][0, 0].tolist() == pad([first, [0] * 10], 0)[0].tolist()
    assert split_blocks(join_blocks([[5], [6, 7]])) == [[5], [6, 7]]
    assert split_blocks(join_blocks([])) == []


# Knowledge and its files.


def released_folder(folder, lines, prefix="train"):
    columns = {"WithStrategy_short.tsv": 0, "Comet.txt": 1, "Comet_st.txt": 2, "Situation.txt": 3}
    for name, index in columns.items():
        text = "".join(f"{line[index]}\n" for line in lines)
        (folder / f"{prefix}{name}").write_text(text)
    return str(folder)


LINES = [
    ("3 0 0 I lost my  job EOS 3 1 1 [Question] When? ",
     "[xReact] sad__EOS__[oWant] to help__EOS__", "[xAttr] tired__EOS__", "I cannot sleep."),
    ("3 1 0 [Others] hi EOS 3 0 1 My cat died EOS 3 1 2 [Others] oh ", "", "", "it is about a cat"),
]  # fmt: skip


def test_released_files_are_matched_by_texts(tmp_path):
    base = read_knowledge(released_folder(tmp_path, LINES))
    sample = sample_of(
        [turn("seeker", "i lost my job"), turn("supporter", "When?")], situation="I cannot  sleep."
    )
    assert base.of(sample) == Knowledge(("[xReact] sad", "[oWant] to help"), ("[xAttr] tired",))
    assert base.of(sample_of([turn("seeker", "My cat died")])) == Knowledge()


def test_own_files_are_matched_by_texts(tmp_path):
    path = tmp_path / "k.jsonl"
    relations = {"oReact": ["bad"], "xReact": ["sad", "low"], "xAttr": ["lonely"]}
    path.write_text(json.dumps({"text": "I lost my job.", "relations": relations}) + "\n")
    sample = sample_of([turn("seeker", "I lost my job.")], situation="I LOST my job.")
    x = ("[xAttr] lonely", "[xReact] sad", "[xReact] low")
    assert read_knowledge(str(path)).of(sample) == Knowledge((*x, "[oReact] bad"), x)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"texts": "a"}, "not a record of knowledge; give 'text' and 'relations'"),
        ({"text": "a"}, "'relations' maps relations to lists"),
        ({"text": "a", "relations": {"xReac": []}}, "unknown relation 'xReac'.*xReact"),
        ({"text": "a", "relations": {"xReact": "sad"}}, "xReact is not a list of texts, got 'sad'"),
    ],
)
def test_mistakes_in_own_files_name_the_line(tmp_path, record, message):
    path = tmp_path / "k.jsonl"
    path.write_text(json.dumps({"text": "b", "relations": {}}) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(DataError, match=f"line 2: {message}") as caught:
        read_knowledge(str(path))
    assert "\n" not in str(caught.value)


def test_mistakes_in_released_files(tmp_path):
    with pytest.raises(DataError, match="give the folder of the released files"):
        read_knowledge(str(tmp_path))
    released_folder(tmp_path, LINES)
    (tmp_path / "trainComet.txt").write_text("one line\n")
    with pytest.raises(DataError, match=r"trainComet.txt has 1 lines and .* 2; .* parallel"):
        read_knowledge(str(tmp_path))
    (tmp_path / "trainComet.txt").unlink()
    with pytest.raises(DataError, match=r"trainComet.txt is missing"):
        read_knowledge(str(tmp_path))
    released_folder(tmp_path, [("no utterance", "", "", "")])
    with pytest.raises(DataError, match="line 1: expected 'emotion role turn text', got 'no utt"):
        read_knowledge(str(tmp_path))


def test_knowledge_of_other_dialogues_is_refused_and_gaps_are_told(tmp_path, caplog):
    rows = Dialogues(load_esconv(ESCONV / "test.jsonl").select(range(3)))
    samples = CorpusSamples(rows, "training")
    assert all(sample.situation and sample.knowledge is None for sample in samples)
    path = tmp_path / "k.jsonl"
    path.write_text(json.dumps({"text": "elsewhere", "relations": {"xReact": ["sad"]}}) + "\n")
    with pytest.raises(DataError, match=f"nothing in it about any of the {len(samples)} samples"):
        CorpusSamples(rows, "training", knowledge=str(path))
    record = {"text": samples[0].situation, "relations": {name: ["sad"] for name in RELATIONS}}
    path.write_text(json.dumps(record) + "\n")
    given = CorpusSamples(rows, "training", knowledge=str(path))
    assert len(given[0].knowledge.situation) == 6
    assert "nothing on the seeker's last turn of" in caplog.text
