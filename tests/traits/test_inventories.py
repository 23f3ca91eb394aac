"""The bundled inventories are balanced, and a user's file is checked whole."""

import copy

import pytest
import yaml

from pal.core.errors import DataError
from pal.traits.inventories import FOLDER, load_inventory

BUNDLED = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_both_are_bundled():
    assert BUNDLED == ["csi", "hexaco"]


@pytest.mark.parametrize("name", BUNDLED)
def test_items_are_balanced(name):
    inventory = load_inventory(name)
    assert len(inventory.dimensions) == 6
    assert len({item.text for item in inventory.items}) == 48
    for form, size in (("full", 8), ("short", 4)):
        for dimension in inventory.dimensions:
            items = [i for i in inventory.items_of(form) if i.dimension == dimension]
            assert len(items) == size
            assert sum(item.keyed for item in items) == 0
            facets = [item.facet for item in items]
            assert {facets.count(facet) for facet in facets} == {size // 4}
    assert [item.order for item in inventory.items] == list(range(1, 49))


def test_theory_ties_point_at_each_other():
    both = {name: load_inventory(name) for name in BUNDLED}
    for name, inventory in both.items():
        assert len(inventory.theory) == 6
        for dimension, tie in inventory.theory.items():
            back = both[tie.inventory].theory[tie.dimension]
            assert (back.inventory, back.dimension, back.sign) == (name, dimension, tie.sign)


@pytest.fixture
def content():
    return yaml.safe_load((FOLDER / "hexaco.yaml").read_text(encoding="utf-8"))


def write(path, content):
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_users_file_is_read(tmp_path, content):
    content["name"] = "mine"
    path = write(tmp_path / "mine.yaml", content)
    assert load_inventory(path).name == "mine"


def test_all_mistakes_are_told_at_once(tmp_path, content):
    items = content["items"]
    items[0]["keyed"] = 2
    items[1]["form"] = "they"
    del items[2]["text"]
    del content["licence"]
    with pytest.raises(DataError) as caught:
        load_inventory(write(tmp_path / "x.yaml", content))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("x.yaml", "'H1'.keyed", "'E1'.form", "'X1'.text", "licence"):
        assert part in message


def test_contradictions_are_told_at_once(tmp_path, content):
    content["items"][0]["dimension"] = "HH"
    content["items"][1]["id"] = "X1"
    content["items"][3]["order"] = 1
    del content["scale"][3]
    content["theory"]["Z"] = content["theory"]["X"]
    with pytest.raises(DataError) as caught:
        load_inventory(write(tmp_path / "x.yaml", content))
    for part in ("dimension 'HH'", "id 'X1' is used twice", "order 1 is used", "scale", "'Z'"):
        assert part in str(caught.value)


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(DataError, match="did you mean 'hexaco'"):
        load_inventory("hexako")


def test_a_file_without_short_items_has_no_short_form(tmp_path, content):
    for item in content["items"]:
        item.pop("short")
    inventory = load_inventory(write(tmp_path / "x.yaml", content))
    with pytest.raises(DataError, match="no short form"):
        inventory.items_of("short")


def test_texts_that_may_not_be_copied_are_hashed(tmp_path, content):
    closed = copy.deepcopy(content) | {"redistributable": False}
    shown = load_inventory(write(tmp_path / "x.yaml", closed)).shown_items()
    assert shown.keys() == load_inventory("hexaco").shown_items().keys()
    texts = {item["text"] for item in content["items"]}
    assert not texts & set(shown.values())
    assert len(set(shown.values())) == 48
