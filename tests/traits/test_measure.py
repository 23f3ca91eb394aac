import pytest

from pal.config import load_settings
from pal.core.files import read_jsonl, write_jsonl
from pal.traits import steps
from pal.traits.inventories import load_inventory
from pal.traits.measure import measure
from tests.traits.fakes import FakeModel, World, planted
from tests.traits.test_cards import card


@pytest.fixture
def model(monkeypatch):
    fake = FakeModel(World(planted(40)))
    monkeypatch.setattr(steps, "connect", lambda llm, dtype: fake)
    return fake


def run(tmp_path, cards, *more):
    write_jsonl(tmp_path / "cards.jsonl", cards)
    output = tmp_path / "out.jsonl"
    measure(load_settings(None, [f"input={tmp_path / 'cards.jsonl'}", f"output={output}", *more]))
    return [row for _, row in read_jsonl(output)]


def test_one_statement_a_request_description_first(model, tmp_path):
    found = run(tmp_path, [card(3, traits={"hexaco": {"H": "The person is honest in all."}})])
    assert len(model.asked) == 96
    users = [dict(request.messages)["user"] for request in model.asked]
    told = "Case 3. The person is a clerk.\nThe person is honest in all."
    shared = f"<description>\n{told}\n</description>"
    assert all(user.startswith(shared) for user in users)
    assert all(user.count("<statement>") == 1 for user in users)
    assert len(set(users)) == 96
    assert {request.temperature for request in model.asked} == {0.0}
    assert [row["inventory"] for row in found] == ["hexaco", "csi"]
    assert all(answer in range(1, 6) for row in found for answer in row["answers"].values())


def test_scores_are_means_after_keying(model, tmp_path):
    (found, _) = run(tmp_path, [card(3)], "traits.form=short")
    assert len(model.asked) == 48
    inventory = load_inventory("hexaco")
    items = [i for i in inventory.items if i.short and i.dimension == "C"]
    turned = [found["answers"][i.id] if i.keyed == 1 else 6 - found["answers"][i.id] for i in items]
    assert found["scores"]["C"] == sum(turned) / 4
    assert found["form"] == "short"
    assert found["version"] == inventory.version


def test_without_trait_sentences_on_request(model, tmp_path):
    run(tmp_path, [card(3, traits={"hexaco": {"H": "The person is honest in all."}})],
        "traits.use_traits=false")  # fmt: skip
    assert not any("honest in all" in dict(request.messages)["user"] for request in model.asked)


def test_unanswered_statements_are_listed_and_nothing_is_imputed(model, tmp_path):
    model.reasons = lambda request: "refused" if request.id == "0/hexaco/H1" else None
    hexaco, csi = run(tmp_path, [card(0)])
    assert hexaco["unanswered"] == {"H1": "refused"}
    assert "H1" not in hexaco["answers"]
    assert hexaco["scores"]["H"] is None
    assert hexaco["scores"]["E"] is not None
    assert csi["unanswered"] == {}


def test_failed_cards_are_carried_and_dropped_ones_left_out(model, tmp_path):
    given = [card(0, keep=True), card(1, keep=False), {"id": "x", "dataset": "d", "failed": "no"}]
    found = run(tmp_path, given)
    assert [row["id"] for row in found] == ["p0", "p0", "x"]
    assert found[2] == given[2]
    assert len(model.asked) == 96
