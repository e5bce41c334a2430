"""What is installed: floors without known holes, and a lock file with hashes for deployments."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FLOORS = {"imagecodecs": (2026, 3, 6), "pillow": (12, 1, 1), "pyarrow": (23, 0, 1)}  # below: known holes in decoders


def numbers(text):
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0]))


def asked():
    """Name and lower bound of each dependency."""
    return {
        re.match(r"[\w-]+", line)[0]: numbers(re.search(r">=([\d.]+)", line)[1]) for line in PROJECT["dependencies"]
    }


def locked():
    """Name to version and hashes."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        name, version = re.match(r"([\w.-]+)==(\S+)", line).groups()
        found[name] = (version, re.findall(r"--hash=sha256:([0-9a-f]{64})(?= |$)", line))
        assert "://" not in line
        assert "index" not in line.replace(name, "")
    return found


@pytest.mark.parametrize("name", FLOORS)
def test_floors_are_above_known_holes(name):
    assert asked()[name] >= FLOORS[name]


def test_every_dependency_is_locked_with_hashes_at_a_version_that_the_project_takes():
    there = locked()
    assert set(asked()) <= set(there)
    assert all(hashes for _, hashes in there.values())
    for name, least in asked().items():
        assert numbers(there[name][0]) >= least, name


def test_what_is_imported_is_declared():
    """A package that another one brings along may be gone with its next version."""
    imported = set()
    for path in (ROOT / "biounet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            imported |= {name.partition(".")[0] for name in names}
    declared = {
        re.match(r"[\w.-]+", line)[0].lower().replace("_", "-").replace(".", "-")
        for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
        for line in lines
    }
    owners = packages_distributions()
    foreign = {name for name in imported if name in owners and name not in sys.stdlib_module_names} - {"biounet"}
    undeclared = {
        name
        for name in foreign
        if not declared & {owner.lower().replace("_", "-").replace(".", "-") for owner in owners[name]}
    }
    assert undeclared <= {"IPython"}  # asked for how a figure is shown in it, and so there
