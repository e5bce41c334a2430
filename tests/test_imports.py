"""What may stand in the package, read from its syntax tree: who imports whom, and what no module does."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "biounet"

# The story of an image. A room imports only from rooms above it, and only what their `__init__` exports.
ROOMS = [
    "core",
    "synthetic",
    "files",
    "tiling",
    "preprocessing",
    "network",
    "labelling",
    "measurement",
    "evaluation",
    "segmentation",
    "model_export",
    "training",
    "reporting",
    "large_images",
    "batch",
    "api",
    "cli",
    "plugins",
]
# Rooms that need neither torch nor MONAI, which take seconds to load, and what they may import of the others.
LIGHT = {"core", "synthetic", "files", "tiling", "preprocessing", "labelling", "measurement", "evaluation", "reporting"}
# Modules of training that answer before torch is loaded: `biounet check` is made of them.
LIGHT_TRAINING = {"planning", "working_grid", "training_data", "data_check"}
# What `core` is built on: nothing else has to be installed to talk about an image, an annotation or a recipe.
CORE_NEEDS = {"numpy", "pydantic", "numba", "lazy_loader"}
HEAVY = {"torch", "monai"}
SLOW_TO_START = {"pandas", "skimage", "scipy", "matplotlib", "monai", "pyarrow", "PIL"}

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree):
    """Full names of everything imported anywhere in a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def own(tree):
    """Dotted names below biounet, without the package, imported anywhere in a tree."""
    return [name.removeprefix("biounet.") for name in imported(tree) if name.split(".")[0] == "biounet"]


def at_start(tree):
    """Packages imported when the module is: not those inside functions, nor those for type checkers only."""
    nodes = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))]
    plain = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom, ast.If, ast.Try))]
    return {name.split(".")[0] for node in plain for name in imported(node)}


def exports(room):
    """Public names of a room, as its stub for type checkers lists them and lazy_loader serves them."""
    tree = ast.parse((PACKAGE / room / "__init__.pyi").read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def calls(tree):
    return [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def source(request):
    return room_of(request.param), ast.parse(request.param.read_text(encoding="utf-8"))


def test_the_guide_names_rooms_and_modules_that_exist():
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [room for room, _ in rows] == ROOMS
    for room, places in rows:
        for place in re.findall(r"`([\w/]+)`", places):
            path = PACKAGE / room / place
            assert path.is_dir() if place.endswith("/") else path.with_suffix(".py").is_file(), f"{room}: {place}"


def test_rooms_are_those_of_the_package():
    there = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert {*ROOMS} == there, "add the room to ROOMS, where it comes in the story of an image"
    assert len(ROOMS) == len({*ROOMS})
    assert {*ROOMS} >= LIGHT


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_says_what_it_promises_and_exports_what_exists(room):
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    assert (ast.get_docstring(tree) or "").endswith(".")
    module = import_module(f"biounet.{room}")
    assert exports(room) == {*module.__all__}
    assert all(getattr(module, name) is not None for name in exports(room))


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_export_is_used_outside_its_room(room):
    elsewhere = [path for path in ROOT.rglob("*.py") if PACKAGE / room not in path.parents]
    used = {name for path in elsewhere for name in own(ast.parse(path.read_text(encoding="utf-8")))}
    public = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    used |= {name.removeprefix(".") for name in imported(public)}
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    used |= {f"{room}.{name}" for name in exports(room) if f"biounet.{room}:{name}" in text}
    assert not {name for name in exports(room) if f"{room}.{name}" not in used}


def test_a_room_imports_only_exports_of_rooms_above(source):
    room, tree = source
    assert not any(name.startswith(".") for name in imported(tree)), "imports are absolute"
    if room in ("__init__", "__main__"):
        return
    for name in own(tree):
        first, _, rest = name.partition(".")
        if first != room:
            assert first in ROOMS, "import from the room that has it, not from the package"
            assert ROOMS.index(first) < ROOMS.index(room), name
            assert rest in exports(first), f"{first}/__init__.pyi does not export {rest}"


def test_light_rooms_import_no_heavy_package(source):
    room, tree = source
    assert room not in LIGHT or not at_start(tree) & HEAVY


@pytest.mark.parametrize("room", sorted(LIGHT))
def test_light_rooms_load_neither_torch_nor_monai(room):
    """All of a room, with whatever its modules import in turn, in a process of its own."""
    modules = [path.relative_to(ROOT).with_suffix("") for path in (PACKAGE / room).rglob("*.py")]
    lines = [f"import {'.'.join(module.parts)}" for module in modules if module.name != "__init__"]
    program = "\n".join([*lines, "import sys; sys.exit(', '.join({'torch', 'monai'} & {*sys.modules}) or None)"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(LIGHT_TRAINING))
def test_checking_data_loads_neither_torch_nor_monai(name):
    tree = ast.parse((PACKAGE / "training" / f"{name}.py").read_text(encoding="utf-8"))
    others = {dotted.split(".")[1] for dotted in own(tree) if dotted.startswith("training.")}
    assert not at_start(tree) & HEAVY
    assert others <= LIGHT_TRAINING
    assert {dotted.split(".")[0] for dotted in own(tree)} <= LIGHT | {"training"}


def test_core_needs_little(source):
    room, tree = source
    if room == "core":
        assert at_start(tree) <= CORE_NEEDS | {"biounet"} | sys.stdlib_module_names


def test_start_is_fast(source):
    room, tree = source
    if room not in {"training", "synthetic"}:  # training takes minutes anyway, and no command makes images
        assert not at_start(tree) & SLOW_TO_START, "import it in the function that needs it"


def test_only_the_command_line_prints(source):
    room, tree = source
    assert room == "cli" or "print" not in calls(tree)


def test_asserts_are_for_tests(source):
    _, tree = source
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def test_importing_the_package_is_light():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert not at_start(tree) & (HEAVY | SLOW_TO_START | {"numba", "numpy", "pydantic", "typer", "tifffile"})


def test_no_file_names_a_package_index():
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch", "org"))]
    hosts += [".".join(parts) for parts in (("anaconda", "org"), ("conda", "io"), ("test", "pypi"))]
    folders = [PACKAGE, ROOT / ".ci", *(ROOT / name for name in ("tests", "pipelines", "data_samples", "benchmarks"))]
    paths = [path for folder in folders for path in folder.rglob("*") if ".work" not in path.parts]
    for path in [*paths, *ROOT.glob("*"), ROOT / ".pre-commit-config.yaml"]:
        if path.is_file() and path.suffix in {".py", ".toml", ".md", ".yaml", ".yml", ".cfg", ".txt", ".sh", ""}:
            text = path.read_text(encoding="utf-8").lower()
            assert not [host for host in hosts if host in text], path


def test_functions_are_short(source):
    room, tree = source
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    # The parameters of a command are its options, a line each: of commands the rest counts.
    first = {node: node.body[0].lineno if room == "cli" else node.lineno for node in functions}
    assert [node.name for node in functions if node.end_lineno - first[node] >= 60] == []
