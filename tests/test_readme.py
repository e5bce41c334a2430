"""What the README and the documentation show is run, page by page, in a copy of the samples."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

from biounet.core import sample_folder
from support import ROOT
from support.command_server import write_programs
from support.lab_files import write_lab_files
from support.shown_code import PAGES, blocks_of, jobs_of

sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from biounet_docs import columns

README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALLING = "pip install"


@pytest.fixture(scope="session")
def environment():
    """The shell's environment, with a ``biounet`` and a ``python`` that are the code under test, installed or not."""
    python_path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:  # the address of a socket is short
        environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": python_path}
        command = [sys.executable, "-m", "support.command_server", f"{folder}/socket"]
        write_programs(folder, f"{folder}/socket")
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout.readline() == "ready\n"
            yield environment
            server.kill()


def runs(code, language, folder, environment):
    if INSTALLING in code:
        # Installing is what the checks of a fresh environment do; what comes after it is run here.
        code = "biounet demo" if "biounet demo" in code else "true"
    command = ["bash", "-euc", code] if language == "bash" else ["python", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_that_is_shown_runs(page, tmp_path, request):
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    if not blocks:
        return
    folder, environment = tmp_path / "samples", request.getfixturevalue("environment")
    shutil.copytree(sample_folder(), folder)
    for block in blocks:
        if not block.reason:
            runs(block.code, block.language, folder, environment)


def test_every_job_of_the_table_is_one_command_that_runs(tmp_path, environment):
    folder, jobs = tmp_path / "lab", jobs_of(README)
    shutil.copytree(sample_folder(), folder)
    write_lab_files(folder)
    assert len(jobs) >= 30
    for command in jobs:
        if command.startswith("biounet correct"):  # between it and the one before is somebody who counts
            runs("biounet sample wells/ --n 4 -q && sed -i '2,$s/$/30/' sample.csv", "bash", folder, environment)
        runs(command, "bash", folder, environment)
    for name in ("scans/case_1_seg.dcm", "volumes/case_1_slicer.ctbl", "profiles/cellprofiler/Cells.csv", "nuclei.zip"):
        assert (folder / name).is_file(), name
    for table in folder.glob("*/*.csv"):
        header = table.read_text(encoding="utf-8").splitlines()[0].split(",")
        kind = columns.kind_of(table.name, header)
        lacking = [column for column in header if kind and not columns.find_entry(kind, column)]
        assert lacking == [], f"{table.name}: say in docs/_ext/biounet_docs/columns.toml what these hold"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link and not link.startswith("#")]
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


def test_the_two_commands_are_there():
    assert "python -m pip install . && biounet demo" in README
    assert 'python -m pip install -e ".[test]" && python -m pytest' in README


def test_code_of_pages_is_found():
    text = "```bash\none\n```\n<!-- not run: hours -->\n```python\ntwo(minutes=30)\n```\n<!-- run first\nthree\n-->"
    assert [(block.language, block.code, block.reason) for block in blocks_of(text)] == [
        ("bash", "one\n", ""),
        ("python", "two(minutes=0.05)\n", "hours"),
        ("bash", "three\n", ""),
    ]
