"""Systems of decoder-only models in the benchmark: trained once, compared, beside the others."""

import json
import math

import pytest
import yaml

from pal.benchmark.settings import BenchmarkSettings
from pal.benchmark.systems import SYSTEMS, choose_systems, printed_row
from pal.commands import load_settings
from pal.commands.reproduce import check_plan
from pal.core.errors import ConfigError
from pal.data.strategies import PAPER_ALPHA, STRATEGIES
from tests.jobs import ESCONV, command

LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
         "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 512}  # fmt: skip
BLENDERBOT = {"model_type": "blenderbot-small", "d_model": 32, "encoder_layers": 1,
              "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
              "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
              "max_position_embeddings": 512}  # fmt: skip
TUNED = [1.0, 0.5, 0.0, 0.0, 0.25, 1.5, 0.0, 0.75]
SETTINGS = {
    "architecture": {
        "vocab_size": 600, "max_context_tokens": 320, "max_target_tokens": 48, "from_scratch": LLAMA
    },
    "training": {"num_train_epochs": 1, "per_device_train_batch_size": 4, "report_to": "none",
                 "learning_rate": 0.01},
    "limit": 12,
    "decoding": {"max_new_tokens": 8, "min_new_tokens": 2},
    "statistics": {"resamples": 200},
    "metrics": {"embedder": None},
    "reproduce": {
        "systems": ["lm_joint", "lm_prompt", "lm_pal", "lm_pal_tuned", "pal"],
        "seeds": [13],
        "overrides": {
            "lm_pal_tuned": {"base": "lm_pal", "decoding": {"alpha": TUNED}},
            "pal": {"architecture": {"from_scratch": BLENDERBOT}},
        },
    },
}  # fmt: skip


def with_notes(source):
    """Return dialogues whose seekers are known by the sentences of theirs that say ``I``."""
    rows = []
    for line in source.open():
        row, known = json.loads(line), []
        for turn in row["dialog"]:
            if turn["speaker"] in ("usr", "seeker"):
                known = [*known, *[s for s in turn["text"].split(". ") if s.startswith("I ")]]
            turn["persona"] = list(known)
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "esconv"
    folder.mkdir()
    for split, count in (("train", 6), ("validation", 3), ("test", 3)):
        rows = with_notes(ESCONV / f"{split}.jsonl")[:count]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def call(corpus, folder, *more, **chosen):
    path = corpus.parent / "run.yaml"  # what lies in the corpus is part of what decides
    reproduce = {**SETTINGS["reproduce"], **chosen}
    path.write_text(yaml.safe_dump({**SETTINGS, "reproduce": reproduce}))
    return ["reproduce", "--config", path, f"data.train={corpus}", f"output_dir={folder}", *more]


@pytest.fixture(scope="module")
def done(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark") / "run"
    assert command(*call(corpus, folder)) == 0
    return folder


def records_of(done, name):
    [path] = (done / "responses").glob(f"{name}-seed13-*.jsonl")
    return [json.loads(line) for line in path.open()]


def test_notes_and_contrast_share_a_training(done):
    systems = json.loads((done / "results.json").read_text())["systems"]
    models = {name: systems[name]["runs"][0]["model"] for name in systems}
    assert models["lm_prompt"] == models["lm_pal"] == models["lm_pal_tuned"]
    assert len(set(models.values())) == 3
    kinds = sorted(path.name.split("-seed13-")[0] for path in (done / "models").iterdir())
    assert kinds == ["fusion-masked", "lm-none", "lm-prompt"]
    losses = {systems[n]["runs"][0]["values"]["ppl"] for n in ("lm_prompt", "lm_pal")}
    assert len(losses) == 1
    labels = [systems[name]["label"] for name in systems]
    assert labels == ["LM-Joint", "LM-Prompt", "LM-PAL", "lm_pal_tuned", "PAL"]
    assert all(systems[name]["printed"] is None for name in systems if name != "pal")


def test_each_system_is_decoded_with_its_own_alpha(done):
    alphas = {"lm_joint": [0.0] * 8, "lm_prompt": [0.0] * 8, "lm_pal": list(PAPER_ALPHA),
              "lm_pal_tuned": TUNED, "pal": list(PAPER_ALPHA)}  # fmt: skip
    for name, alpha in alphas.items():
        records = records_of(done, name)
        assert len(records) == 12
        assert any(record["persona"] for record in records)
        for record in records:
            assert record["alpha"] == alpha[STRATEGIES.index(record["strategy"])]


def test_again_and_with_fewer_systems_nothing_is_done_twice(corpus, done):
    def times():
        patterns = ("*.safetensors", "responses/*.jsonl", "losses/*.json")
        return {p: p.stat().st_mtime_ns for one in patterns for p in done.rglob(one)}

    before = times()
    assert command(*call(corpus, done)) == 0
    assert command(*call(corpus, done, systems=["lm_prompt", "lm_pal"], overrides={})) == 0
    assert before == times()
    results = json.loads((done / "results.json").read_text())
    assert list(results["systems"]) == ["lm_prompt", "lm_pal"]


def test_the_page_shows_them(corpus, done, tmp_path):
    assert command(*call(corpus, done)) == 0
    page = (done / "report.html").read_text()
    table = (done / "table.md").read_text()
    for label in ("LM-Joint", "LM-Prompt", "LM-PAL", "lm_pal_tuned"):
        assert label in page
        assert f"| {label} |" in table
    again = tmp_path / "page.html"
    assert command("report", f"report.include=[{done / 'results.json'}]", f"output={again}") == 0
    assert "LM-PAL" in again.read_text()


def test_perplexities_of_other_tokens_are_not_compared(corpus, done):
    assert command(*call(corpus, done)) == 0
    results = json.loads((done / "results.json").read_text())
    compared = {(t["a"], t["b"]) for t in results["tests"] if t["metric"] == "ppl"}
    every = {(t["a"], t["b"]) for t in results["tests"] if t["metric"] == "bleu_2"}
    assert len(every) == 10
    assert compared == {pair for pair in every if "pal" not in pair}
    words = {(t["a"], t["b"]) for t in results["tests"] if t["metric"] == "nats_per_word"}
    assert words == every  # a word is the same for all
    tokens = {(t["a"], t["b"]) for t in results["tests"] if t["metric"] == "nats_per_token"}
    assert tokens == compared
    assert "nats_per_word" in (done / "table.md").read_text().partition("Further scores")[2]
    assert any("per token" in note for note in results["notes"])
    assert command(*call(corpus, done, systems=["lm_prompt", "lm_pal"], overrides={})) == 0
    results = json.loads((done / "results.json").read_text())
    assert not any("per token" in note for note in results["notes"])


def test_perplexity_without_strategies_leaves_out_all_tokens_of_their_texts(done):
    systems = json.loads((done / "results.json").read_text())["systems"]
    values = systems["lm_prompt"]["runs"][0]["values"]
    [path] = (done / "losses").glob("lm-prompt-*[0-9a-f].json")
    losses = json.loads(path.read_text())
    nll, count, of_strategy, tokens = (
        sum(losses[key]) for key in ("token_nll", "token_count", "strategy_nll", "strategy_count")
    )
    assert tokens > 2 * len(losses["token_nll"])
    assert values["ppl"] == pytest.approx(math.exp(nll / count))
    found = values["ppl_without_strategy"]
    assert found == pytest.approx(math.exp((nll - of_strategy) / (count - tokens)))


def test_the_paper_prints_nothing_for_them():
    names = [name for name, system in SYSTEMS.items() if system.decoder_only]
    assert names == ["lm_joint", "lm_prompt", "lm_pal"]
    assert not any(map(printed_row, names))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("lm_pal", ["decoding.num_beams=4", "decoding.do_sample=false"], "lm_pal: .*num_beams=4"),
        ("lm_pal", ["reproduce.overrides={lm_pal: {architecture: {persona_mode: fusion}}}"],
         "lm_pal: architecture.persona_mode=fusion"),
        ("pal", ["reproduce.overrides={pal: {decoding: {plausibility: 0.1}}}"],
         "pal: decoding.plausibility"),
        ("pal", ["architecture.lora.rank=4"], "pal: architecture.lora.rank is for decoder-only"),
        ("joint", [], r"joint needs an encoder-decoder .*\{from_scratch: \{model_type: …\}\}"),
    ],
)  # fmt: skip
def test_settings_of_the_other_kind_are_found_before_any_work(
    corpus, tmp_path, name, changes, message
):
    sizes = {"pal": {"architecture": {"from_scratch": BLENDERBOT}}} if name == "pal" else {}
    tree = {**SETTINGS, "reproduce": {"systems": [name], "overrides": sizes}}
    changes = [f"data.train={corpus}", f"output_dir={tmp_path}", *changes]
    if name == "pal":
        changes = [c.replace("{pal: {", "{pal: {architecture: {from_scratch: {model_type: "
                             "blenderbot-small}}, ") for c in changes]  # fmt: skip
    settings = load_settings("reproduce", tree, changes)
    with pytest.raises(ConfigError, match=message) as error:
        check_plan(settings, choose_systems(BenchmarkSettings(**settings.reproduce.model_dump())))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
