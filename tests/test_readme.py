"""What the README shows is run, in an empty folder, in the order of the page."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from biounet.core import sample_folder
from support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, flags=re.DOTALL)
INSTALLING = "pip install"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder but for the samples, with ``biounet`` on the path."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("images", "labels", "envelopes", "cases"):
        shutil.copytree(sample_folder() / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shell's environment, with a ``biounet`` that is the code under test, installed or not."""
    programs = tmp_path_factory.mktemp("bin")
    command = programs / "biounet"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from biounet.cli import main; main()" "$@"\n')
    command.chmod(0o755)
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": python_path}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_block_of_the_readme_runs(number, folder, environment):
    language, code = BLOCKS[number]
    if INSTALLING in code:
        # Installing is what the checks of a fresh environment do; what comes after it is run here.
        code = "biounet demo" if "biounet demo" in code else "true"
    code = code.replace("--minutes 2", "--minutes 0.05")
    command = ["bash", "-euc", code] if language == "bash" else [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stderr}"


def test_links_of_the_readme_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_two_commands_are_there():
    assert "python -m pip install . && biounet demo" in README
    assert 'python -m pip install -e ".[test]" && python -m pytest' in README
