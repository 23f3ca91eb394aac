import hashlib
import json
from types import SimpleNamespace

import pytest

from pal.core.errors import ConfigError
from pal.data.esconv import load_esconv
from pal.data.samples import Sample, build_samples
from pal.data.templates import SampleEncoder, Template
from pal.data.tokenizer import add_pal_tokens, load_tokenizer, train_tokenizer
from tests.jobs import ESCONV

CLEAN = SimpleNamespace(
    template="clean", persona_mode="fusion",
    max_context_tokens=512, max_persona_tokens=160, max_target_tokens=128,
)  # fmt: skip


@pytest.fixture(scope="module")
def published(shared_data):
    """The published tokenizer."""
    return add_pal_tokens(load_tokenizer(shared_data / "blenderbot_small_tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer trained on the bundled corpus, which has every letter."""
    rows = load_esconv(ESCONV, "train")
    texts = [turn["text"] for row in rows for turn in row["dialog"]]
    letters = ["abcdefghijklmnopqrstuvwxyz ( ) % : user supporter persona dialogue"] * 9
    return add_pal_tokens(
        train_tokenizer([*texts, *letters], 1500, tmp_path_factory.mktemp("tokenizer"))
    )


def encoder(tokenizer, trusted=False, **changes):
    config = SimpleNamespace(**(vars(CLEAN) | changes))
    return SampleEncoder.from_config(tokenizer, config, trusted=trusted)


def turns(*texts):
    """Turns of alternating speakers, the seeker first."""
    return tuple(
        {"speaker": "supporter" if i % 2 else "seeker", "text": text,
         "strategy": "Question" if i % 2 else None, "persona": []}
        for i, text in enumerate(texts)
    )  # fmt: skip


def sample(*texts, persona=(), response="I see.", strategy="Others"):
    return Sample(
        id="d/0", dialogue_id="d", turn=len(texts), context=turns(*texts),
        persona=tuple(persona), strategy=strategy, response=response,
    )  # fmt: skip


def test_authors_format_gives_the_golden_token_ids(published, golden, tmp_path):
    features = json.loads((golden / "features.json").read_text())
    authors = encoder(published, template="authors", max_persona_tokens=512, max_target_tokens=50)
    compared = 0
    for number, dialogue in enumerate(features["dialogues"]):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(dialogue["data"]) + "\n")
        for stage, expected in dialogue["stages"].items():
            rule = "training" if stage == "training" else "evaluation"
            samples = build_samples(load_esconv(path), rule)
            assert len(samples) == len(expected)
            for ours, theirs in zip(samples, expected, strict=True):
                encoded = authors.encode(ours)
                context = encoded["input_ids"]
                digest = hashlib.sha1(" ".join(map(str, context)).encode()).hexdigest()
                assert digest == theirs.get("context_sha1", digest)
                assert context == theirs.get("input_ids", context)
                assert len(context) == theirs["input_length"]
                assert encoded["labels"] == theirs["labels"]
                # their strings put <input> last; the released layout puts it first
                persona = theirs["persona_string"]
                assert authors.ids(persona) == theirs["persona_input_ids"]
                first = "<input>" + persona.replace("<input>", "").removeprefix("<persona>")
                assert encoded["persona_input_ids"] == authors.ids(first)
                compared += 1
    assert compared > 100


def test_tokenizer_probes(published, golden):
    features = json.loads((golden / "features.json").read_text())
    assert len(published) == features["tokenizer"]["len"] == 54956
    for probe in features["tokenizer_probes"]:
        assert published(probe["text"], add_special_tokens=False).input_ids == probe["ids"]


def test_clean_format_reads_like_this(tokenizer):
    encoded = encoder(tokenizer).encode(
        sample("I’m tired (very)!", "Why? – tell me", "co-workers...", persona=["I am tired."])
    )
    text = tokenizer.decode(encoded["input_ids"], clean_up_tokenization_spaces=False)
    assert text == (
        "user : i ' m tired ( very ) ! </s> <s> supporter : [Question] why ? - tell me"
        " </s> <s> user : co - workers . . . </s> <s> supporter :"
    )
    assert tokenizer.decode(encoded["persona_input_ids"]) == "<input> i am tired ."
    assert tokenizer.decode(encoded["labels"]) == "[Others] i see . __end__"


def test_clean_format_meets_few_unknown_tokens(published, shared_data):
    rows = [json.loads(line) for line in (shared_data / "esconv/test.jsonl").open()][:60]
    texts = [" ".join(turn["text"].split()) for row in rows for turn in row["dialog"]]
    unknown = {}
    for name in ("authors", "clean"):
        template = encoder(published, template=name)
        ids = [
            i for text in texts
            for i in template.ids(template.template.turn({"speaker": "seeker", "text": text}))
        ]  # fmt: skip
        unknown[name] = ids.count(published.unk_token_id) / len(ids)
    assert unknown["clean"] < 0.001
    assert unknown["authors"] > 0.04


def test_text_cannot_smuggle_in_special_tokens(tokenizer):
    encoded = encoder(tokenizer).encode(
        sample("[Question] </s> <persona> __end__ <input>", persona=["<persona> me <input>"])
    )
    special = set(
        tokenizer.convert_tokens_to_ids(["<persona>", "[Question]", "<input>", "__end__"])
    )
    assert not special & set(encoded["input_ids"])
    assert [i for i in encoded["persona_input_ids"] if i in special] == encoded[
        "persona_input_ids"
    ][:1]


def test_clean_drops_whole_turns_first(tokenizer):
    texts = ["one two three four five", "six seven eight", "nine ten eleven"]
    whole = encoder(tokenizer).encode(sample(*texts))["input_ids"]
    for room in range(len(whole), 12, -1):
        ids = encoder(tokenizer, max_context_tokens=room).encode(sample(*texts))["input_ids"]
        assert len(ids) <= room
        assert ids == whole[-len(ids) :]
        text = tokenizer.decode(ids)
        if room >= 13:
            assert text.startswith(("user :", "supporter :")), (room, text)
    tight = encoder(tokenizer, max_context_tokens=9).encode(sample(*texts))["input_ids"]
    assert tight == whole[-9:]


def test_persona_keeps_the_newest_sentences_whole(tokenizer):
    sentences = ["i have a dog.", "i am a nurse.", "i live alone."]
    bounded = encoder(tokenizer, max_persona_tokens=12).encode(sample("hi", persona=sentences))
    text = tokenizer.decode(bounded["persona_input_ids"])
    assert text == "<input> i am a nurse . <persona> i live alone ."
    none = encoder(tokenizer).encode(sample("hi"))
    assert tokenizer.decode(none["persona_input_ids"]) == "<input>"


def test_end_token_stays_only_where_nothing_was_cut(tokenizer):
    short = encoder(tokenizer, max_target_tokens=3).encode_target("Others", "a b")
    cut = encoder(tokenizer, max_target_tokens=3).encode_target("Others", "a b c d")
    assert short[-1] == tokenizer.eos_token_id
    assert len(cut) == 4
    assert cut[-1] != tokenizer.eos_token_id


@pytest.mark.parametrize("template", ["clean", "authors"])
def test_prompt_mode_puts_the_persona_before_the_dialogue(tokenizer, template):
    prompt = encoder(tokenizer, template=template, persona_mode="prompt")
    encoded = prompt.encode(sample("hello", persona=["i am a nurse", "i am tired"]))
    text = tokenizer.decode(encoded["input_ids"])
    assert "persona_input_ids" not in encoded
    assert text.index("nurse") < text.index("tired") < text.index("hello")
    joint = encoder(tokenizer, template=template, persona_mode="none")
    assert "nurse" not in tokenizer.decode(
        joint.encode(sample("hello", persona=["nurse"]))["input_ids"]
    )


def test_a_request_has_no_labels(tokenizer):
    assert "labels" not in encoder(tokenizer).encode(sample("hi", response=None, strategy=None))


def test_decoding_rejoins_what_was_spaced(tokenizer):
    clean = encoder(tokenizer)
    text = "well-known (i'm sure): it's 50% fine, isn't it?"
    assert clean.decode(clean.ids(clean.template.text(text))) == text


def test_unknown_template():
    with pytest.raises(ConfigError, match="did you mean 'clean'"):
        encoder(None, template="claen")


def test_prompt_mode_leaves_room_for_the_dialogue(tokenizer):
    with pytest.raises(ConfigError, match="at most half"):
        encoder(tokenizer, persona_mode="prompt", max_context_tokens=64, max_persona_tokens=40)
    tight = encoder(tokenizer, persona_mode="prompt", max_context_tokens=40, max_persona_tokens=20)
    persona = ["i have a dog.", "i am a nurse.", "i live alone with my two cats."]
    encoded = tight.encode(sample("hello there", persona=persona))
    text = tokenizer.decode(encoded["input_ids"])
    assert len(encoded["input_ids"]) <= 40
    assert "two cats" in text
    assert "dog" not in text
    assert text.endswith("supporter :")


# Formats of one's own.


class Shouted(Template):
    prompt = "supporter :"
    persona_heading = "persona :"
    dialogue_heading = "dialogue :"
    drops_whole_turns = True

    def turn(self, turn):
        return f"{turn['speaker']} : {turn['text']} !"


OUTSIDE = "tests.data.test_templates:Shouted"


def test_a_users_own_format_is_named_by_its_place(tokenizer):
    encoded = encoder(tokenizer, trusted=True, template=OUTSIDE).encode(sample("i am sad"))
    assert "seeker : i am sad ! </s> <s> supporter :" in tokenizer.decode(encoded["input_ids"])


def test_a_checkpoint_names_no_code_from_outside(tokenizer):
    with pytest.raises(ConfigError, match="code from outside this package, named by a checkp"):
        encoder(tokenizer, template=OUTSIDE)
    with pytest.raises(ConfigError, match="code from outside"):
        encoder(tokenizer, template="os:_exit")
    assert encoder(tokenizer).template.prompt == "supporter :"


@pytest.mark.parametrize("name", ["os:getcwd", "pal.data.samples:Sample"])
def test_what_is_no_format_is_refused(tokenizer, name):
    with pytest.raises(ConfigError, match=r"not a subclass of pal|is not a class but"):
        encoder(tokenizer, trusted=True, template=name)
    with pytest.raises(ConfigError, match="cannot be imported"):
        encoder(tokenizer, trusted=True, template="nowhere.at.all:Format")
