"""What a release says of itself in several files is the same everywhere."""

import re
import tomllib

import yaml

from tests.jobs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version_in_all_files():
    newest = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", read("CHANGELOG.md"), re.MULTILINE)
    citation = yaml.safe_load(read("CITATION.cff"))
    assert newest[1] == PROJECT["version"] == citation["version"]
    assert newest[2] == str(citation["date-released"])
    assert citation["license"] == PROJECT["license"]


def names(*extras):
    """The packages of some extras."""
    given = PROJECT["optional-dependencies"]
    return {re.split(r"[><=\[]", one)[0].lower() for extra in extras for one in given[extra]}


def test_extras_stand_in_the_constraints():
    """CI installs what the constraints pin; a package that is missing there floats."""
    pinned = {line.partition("==")[0].lower() for line in read("constraints.txt").split("\n")}
    assert names("docs", "lora") <= pinned


def test_what_the_test_extra_installs_builds_the_site():
    assert names("docs", "lora") <= names("test")


def test_ci_runs_the_script_and_the_script_finds_its_line_in_the_readme():
    [line] = re.findall(r"readme_line '(.+)'", read(".ci/run"))
    assert line in read("README.md")
    steps = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]["steps"]
    assert {"run": ".ci/run"} in steps


def test_the_container_runs_as_nobody_special_and_takes_no_key():
    lines = read("Dockerfile").split("\n")
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users
    assert users[-1] not in ("root", "0")
    given = " ".join(line for line in lines if line.startswith(("ARG", "ENV")))
    assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD", given)
    assert {".git", "runs"} <= set(read(".dockerignore").split("\n"))


def test_every_extra_is_explained_to_newcomers():
    page = read("docs/getting_started.md")
    assert [
        extra for extra in PROJECT["optional-dependencies"] if f"`.[{extra}]`" not in page
    ] == []
