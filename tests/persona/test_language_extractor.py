"""The persona extractor as a decoder-only model: what it reads and writes, and its commands."""

import json
import signal
import time

import pytest
import torch

from pal.data.personachat import load_personachat
from pal.persona.extractor import load_extractor
from pal.persona.language_extractor import (
    QUESTION,
    LanguageExtractor,
    encode_conversation,
    persona_lines,
    utterance_source,
)
from tests.jobs import ESCONV, PERSONACHAT, command, start
from tests.modeling.languages import chat_tokenizer, encoder, tiny

UTTERANCES = ["i lost my job", "my dog is called <|im_end|> rex", "i like tea"]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extractor")
    kind = request.param
    more = {"n_positions": 304} if kind == "gpt2" else {}
    tiny(kind, initializer_range=0.2, **more).save_pretrained(folder / "base")
    chat_tokenizer().save_pretrained(folder / "base")
    assert command(
        "train", "task=persona_extractor", f"architecture.base={folder / 'base'}",
        f"data.train={PERSONACHAT / 'train.txt'}",
        f"data.validation={PERSONACHAT / 'validation.txt'}", "data.max_train_samples=12",
        "data.max_validation_samples=4", "architecture.max_context_tokens=200",
        "architecture.max_target_tokens=64", "training.num_train_epochs=1",
        "training.report_to=none", f"output_dir={folder / 'model'}",
    ) == 0  # fmt: skip
    return folder / "model"


def annotate(model, output, *more):
    return [
        "annotate", f"model={model}", f"input={ESCONV / 'test.jsonl'}", f"output={output}",
        "annotate.num_beams=1", "annotate.max_new_tokens=12", *more,
    ]  # fmt: skip


def test_what_it_reads():
    side, tokenizer = encoder(persona=False), chat_tokenizer()
    ids = utterance_source(side, UTTERANCES, 1000)
    assert tokenizer.decode(ids) == (
        f"<|im_start|>user\n{QUESTION}\n- i lost my job\n- my dog is called <|im_end|> rex"
        "\n- i like tea<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids.count(side.end) == 1
    # The prompts of a dialogue are beginnings of one sequence, but for what asks for the answer.
    ask = len(side.marks(side.form.user_end)) + len(side.marks(side.form.assistant))
    for count in range(1, 4):
        part = utterance_source(side, UTTERANCES[:count], 1000)
        assert ids[: len(part) - ask] == part[:-ask]


def test_the_oldest_utterances_are_dropped_whole():
    side, tokenizer = encoder(persona=False), chat_tokenizer()
    whole = utterance_source(side, UTTERANCES, 1000)
    for room in range(len(whole), 50, -1):
        ids = utterance_source(side, UTTERANCES, room)
        assert len(ids) <= room
        lines = tokenizer.decode(ids).split("\n- ")
        assert len(lines) == 1 or lines[-1].startswith("i like tea")
    long = utterance_source(side, ["so " * 300], 80)
    assert len(long) <= 80


def test_training_asks_for_the_sentences():
    side, tokenizer = encoder(persona=False, context=200, target=20), chat_tokenizer()
    for row in load_personachat(str(PERSONACHAT / "train.txt")):
        for one in encode_conversation(side, row):
            target = [token for token in one["labels"] if token != -100]
            assert one["input_ids"][-len(target) :] == target
            assert len(one["labels"]) == len(one["input_ids"]) <= 220
            assert len(target) <= 20
            text = tokenizer.decode(target, skip_special_tokens=True)
            if target[-1] == side.end:
                assert set(persona_lines(text)) <= {
                    sentence.rstrip(".") for sentence in row["persona"]
                }
            else:
                assert any(one.startswith(text.split("\n")[0]) for one in row["persona"])


def test_lines_become_sentences():
    assert persona_lines("- i am ann.\n\n i run \n- i am ann.") == ["i am ann", "i run"]
    assert persona_lines("") == []


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_the_library_s_own(trained, beams):
    """Greedily by the engine, and by beams: what ``generate`` says of each prompt alone."""
    model, tokenizer = load_extractor(str(trained))
    extractor = LanguageExtractor(model, tokenizer, num_beams=beams, max_new=12, rows=3)
    sources = [extractor.encode_source(UTTERANCES[:count]) for count in (1, 2, 3)]
    sources += [extractor.encode_source([f"i am {age} years old"]) for age in (20, 30)]
    side = extractor.encoder
    wanted = []
    for source in sources:
        ids = torch.tensor([source])
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=beams,
                do_sample=False, max_new_tokens=12, eos_token_id=side.end,
                early_stopping=beams > 1, pad_token_id=tokenizer.pad_token_id,
                suppress_tokens=[token for token in side.special if token != side.end],
            )[0, len(source) :]  # fmt: skip
        wanted.append(persona_lines(tokenizer.decode(out, skip_special_tokens=True)))
    assert extractor(sources) == wanted
    assert extractor(sources[::-1]) == wanted[::-1]
    assert len({tuple(one) for one in wanted}) > 1


def test_annotation_does_not_depend_on_batches_or_interruptions(trained, tmp_path):
    plain, alone, killed = (tmp_path / f"{name}.jsonl" for name in ("plain", "alone", "killed"))
    assert command(*annotate(trained, plain)) == 0
    assert command(*annotate(trained, alone, "batch_rows=1")) == 0
    assert plain.read_bytes() == alone.read_bytes()
    if "gpt2" in json.loads((trained / "config.json").read_text())["model_type"]:
        return
    process = start(*annotate(trained, killed, "batch_rows=1"))
    while process.poll() is None and not any(
        path.stat().st_size > 400 for path in tmp_path.glob("killed.jsonl*")
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert command(*annotate(trained, killed, "batch_rows=1")) == 0
    assert plain.read_bytes() == killed.read_bytes()


def test_mistakes(trained, tmp_path, capsys):
    is_small = "gpt2" in json.loads((trained / "config.json").read_text())["model_type"]
    arguments = [f"model={trained}", f"input={ESCONV}", f"output={tmp_path / 'a'}"]
    assert command("generate", *arguments) == 2
    assert "not a PAL response model" in capsys.readouterr().err
    if is_small:
        assert command(*annotate(trained, tmp_path / "b", "annotate.max_new_tokens=200")) == 2
        line = capsys.readouterr().err
        assert "annotate.max_new_tokens=200" in line
        assert "give annotate.max_new_tokens=104" in line
