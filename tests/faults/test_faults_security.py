"""No code from data and no network, read from the syntax tree of every module."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "biounet"
FILES = sorted(PACKAGE.rglob("*.py"))

LOADS_CODE = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "runpy", "importlib", "code"}
NETWORK = {
    "urllib",
    "http",
    "requests",
    "httpx",
    "aiohttp",
    "socket",
    "ssl",
    "ftplib",
    "smtplib",
    "webbrowser",
    "fsspec",
}
PROCESSES = {"subprocess", "multiprocessing", "pty", "ctypes", "cffi"}
ARCHIVES = {"zipfile", "tarfile", "shutil.unpack_archive"}
UNSAFE_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv", "os.startfile"),
    *(
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "torch.hub.load",
        "torch.jit.load",
        "torch.package.PackageImporter",
    ),
    *("pd.read_pickle", "pandas.read_pickle", "pd.eval"),
}
UNSAFE_METHODS = {"extractall", "unpack_archive", "read_pickle", "add_safe_globals"}
# What a call has to say so that it loads nothing but numbers, and what no call may say
NEEDED = {"torch.load": "weights_only=True"}
FORBIDDEN = {"shell": "True", "allow_pickle": "True", "trust_remote_code": "True", "weights_only": "False"}

ALLOWED = {
    ("measurement/grouping.py", "subprocess"): "tries a pattern for a limited time; the program is a constant",
    ("batch/own_process.py", "subprocess"): "names its types and errors; processes start in files/isolation",
    ("large_images/array_files.py", "zipfile"): "writes and reads arrays of numbers; extracts no file",
    ("files/dataset_index/outline_files.py", "zipfile"): "lists the names of entries; reads and extracts none",
    ("files/outlines/imagej_roi.py", "zipfile"): "reads and writes entries in memory, of limited size; extracts none",
    ("files/outlines/json_stream.py", "zipfile"): "reads its only entry piece by piece; extracts none",
    ("model_export/package.py", "zipfile"): "writes packages, and reads an entry of one just written; extracts none",
    ("files/isolation/client.py", "subprocess"): "names its types and errors",
    ("files/isolation/process.py", "subprocess"): "programs that are constants; paths and requests go through a pipe",
    (
        "reporting/html_report.py",
        "importlib.resources.files",
    ): "reads template, style and script of the page",
    ("large_images/worker_check.py", "importlib.metadata"): "tells the version of torch, without importing it",
    ("core/machine.py", "ctypes"): "gives freed memory back to the system; the name of the library is a constant",
    ("core/arguments.py", "importlib.util.find_spec"): "tells whether a package is installed, without importing it",
    ("reporting/case_report.py", "importlib.resources.files"): "reads template and style of the page",
    ("reporting/panels.py", "importlib.util.find_spec"): "finds the font that Matplotlib brings, without importing it",
    ("reporting/html_report.py", "urllib.parse.quote"): "writes names of files as links; it opens none",
}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def findings(text):
    """Return what in a module could run code that comes with data, or reach a network."""
    tree = ast.parse(text)
    suspect = LOADS_CODE | NETWORK | PROCESSES | ARCHIVES
    found = {name for name in imported(tree) if name in suspect or name.split(".")[0] in suspect}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name, said = ast.unparse(call.func), [ast.unparse(word) for word in call.keywords]
        if name in UNSAFE_CALLS or name.rpartition(".")[2] in UNSAFE_METHODS:
            found.add(name)
        if name in NEEDED and NEEDED[name] not in said:
            found.add(f"{name} without {NEEDED[name]}")
        # A value that is computed could be any.
        safe = {key: "False" if value == "True" else "True" for key, value in FORBIDDEN.items()}
        found |= {f"{w.arg} in {name}" for w in call.keywords if w.arg in safe and ast.unparse(w.value) != safe[w.arg]}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_runs_code_from_data_or_reaches_a_network_F076_F080_F081_F085(path):
    name = path.relative_to(PACKAGE).as_posix()
    assert findings(path.read_text(encoding="utf-8")) == {what for where, what in ALLOWED if where == name}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def read():\n    from pickle import loads",
        "import urllib.request",
        "from socket import create_connection",
        "from multiprocessing import Pool",
        "eval('1')",
        "os.system(name)",
        "yaml.load(text)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "subprocess.run(line, shell=True)",
        "subprocess.run(line, shell=shell)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_forbidden_calls_are_found(text):
    assert findings(text)


@pytest.mark.parametrize(
    "text", ["import json", "torch.load(path, weights_only=True)", "np.load(path, allow_pickle=False)", "model.eval()"]
)
def test_harmless_calls_are_not(text):
    assert not findings(text)
