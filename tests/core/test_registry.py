"""Registries: names whose entries are imported when they are used."""

import sys

import pytest

from pal.core.errors import ConfigError
from pal.core.registry import Registry

FUSIONS = {"masked": "pal.core.registry:Registry", "own": 3}


def test_entries_are_imported_when_they_are_used():
    table = Registry("fusion", FUSIONS)
    assert list(table) == ["masked", "own"]
    assert table["masked"] is Registry
    assert table.find("own") == 3
    with pytest.raises(ConfigError, match=r"unknown fusion 'maskd'; did you mean 'masked'"):
        table.find("maskd")


def test_code_from_outside_comes_from_the_users_settings_alone(tmp_path, monkeypatch):
    (tmp_path / "outside_code.py").write_text("class Fusion: pass\nraised = 1 / 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    table = Registry("fusion", FUSIONS)
    with pytest.raises(ConfigError, match="code from outside"):
        table.find("outside_code:Fusion", trusted=False)
    assert "outside_code" not in sys.modules
    assert table.find("outside_code:Fusion").__name__ == "Fusion"
    with pytest.raises(ConfigError, match="cannot be imported"):
        table.find("outside_code:Nothing")
    with pytest.raises(ConfigError, match="unknown fusion"):
        Registry("fusion", FUSIONS, open=False).find("outside_code:Fusion")


def test_a_line_that_leads_nowhere_is_named(tmp_path, monkeypatch):
    (tmp_path / "half_done.py").write_text("class Gate: pass\n")
    (tmp_path / "needy.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    lines = {"file": "half_dome:Gate", "name": "half_done:Gates", "needs": "needy:Gate",
             "folder": "pal.nowhere.gates:Gate"}  # fmt: skip
    table = Registry("fusion", lines)
    with pytest.raises(ConfigError, match=r"fusion 'file': its line .* no module half_dome; corr"):
        table["file"]
    with pytest.raises(ConfigError, match=r"'folder': its line .* no module pal\.nowhere; correct"):
        table["folder"]
    with pytest.raises(ConfigError, match=r"fusion 'name': .* half_done has no Gates; correct"):
        table["name"]
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        table["needs"]  # the line is right; what its module needs is not installed


def test_where_classes_are_wanted_nothing_else_is_called():
    table = Registry("fusion", FUSIONS, classes=True)
    with pytest.raises(ConfigError, match="'os:_exit' is not a class"):
        table.find("os:_exit")
    assert table.find("decimal:Decimal").__name__ == "Decimal"
