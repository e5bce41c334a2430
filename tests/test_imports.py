"""What may stand in the package, read from its syntax tree: who imports whom, and what no module does."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "biounet"

# The story of an image. A module imports only from modules above it; a folder counts as one module.
# fmt: off
ORDER = [
    "errors", "machine", "arguments", "stopping",
    "compiled", "volume", "orientation", "annotation", "annotation_checks", "data_settings", "settings",
    "recipe", "resources", "synthetic_nuclei", "synthetic", "synthetic_volumes",
    "files", "surroundings", "intensities", "normalise", "looks", "plan", "preflight", "prepare", "border_weight",
    "distances", "targets", "network", "ranges", "loss", "dataset",
    "model", "blocks", "integers", "predict", "surfaces", "saddles", "ascent", "holes", "label", "stitch",
    "shape", "solids", "measure", "lesions", "quality", "segment", "matching", "region_scores", "scores", "evaluation",
    "overlay", "volume_overlay", "report_style", "report", "outputs", "memory", "job", "claims", "manifest",
    "ownership", "summary",
    "one_file", "apart", "batch", "preview", "verify", "tune", "checkpoint",
    "budget", "start", "training", "history", "check", "api",
    "terminal", "cli_options", "cli",
]
# Modules that answer before torch and MONAI are loaded, which takes seconds, or that need neither.
LIGHT = [
    "errors", "machine", "arguments",
    "compiled", "volume", "orientation", "annotation", "annotation_checks", "data_settings", "settings",
    "recipe", "resources", "synthetic_nuclei", "synthetic", "synthetic_volumes",
    "files", "surroundings", "intensities", "normalise", "looks", "plan", "preflight", "border_weight",
    "blocks", "surfaces", "saddles", "ascent", "holes", "label", "stitch", "shape", "solids", "measure", "lesions",
    "quality", "matching", "region_scores", "scores", "evaluation", "overlay", "volume_overlay", "report_style",
    "report", "check",
]
# fmt: on
HEAVY = {"torch", "monai"}

SEGMENTING = ["predict", "surfaces", "saddles", "ascent", "holes", "label", "stitch", "measure", "lesions", "segment"]
TRAINING = {"training", "tune", "targets", "dataset", "loss", "prepare"}

SLOW_TO_START = {"pandas", "skimage", "scipy", "matplotlib", "monai", "pyarrow", "PIL"}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = {module_of(path) for path in FILES} - {"__init__", "__main__"}


def imported(tree):
    """Full names of everything imported anywhere in a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(tree):
    """Modules of biounet imported anywhere in a tree."""
    return {name.split(".")[1] for name in imported(tree) if name.startswith("biounet.")} & MODULES


def at_start(tree):
    """Packages imported when the module is: not those inside functions, nor those for type checkers only."""
    nodes = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))]
    plain = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom, ast.If, ast.Try))]
    return {name.split(".")[0] for node in plain for name in imported(node)}


def calls(tree):
    return [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def source(request):
    return module_of(request.param), ast.parse(request.param.read_text(encoding="utf-8"))


def test_every_module_has_its_place():
    assert set(ORDER) >= MODULES, "add the module to ORDER, where it comes in the story of an image"
    assert len(ORDER) == len(set(ORDER))


def test_a_module_imports_only_from_above(source):
    module, tree = source
    if module in MODULES:
        above = set(ORDER[: ORDER.index(module)])
        assert own(tree) - {module} <= above


def test_light_modules_load_neither_torch_nor_monai(source):
    module, tree = source
    if module in LIGHT:
        assert not at_start(tree) & HEAVY
        assert own(tree) <= set(LIGHT)


def test_segmenting_imports_nothing_of_training(source):
    module, tree = source
    if module in SEGMENTING:
        assert not own(tree) & TRAINING


def test_start_is_fast(source):
    module, tree = source
    if module not in TRAINING:  # training takes minutes anyway
        assert not at_start(tree) & SLOW_TO_START, "import it in the function that needs it"


def test_only_the_command_line_prints(source):
    module, tree = source
    assert module == "terminal" or "print" not in calls(tree)


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


def test_files_and_functions_stay_within_their_budgets(source):
    """A file of at most 450 lines, a function of at most 60 (see CONTRIBUTING.md)."""
    _, tree = source
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert max((node.end_lineno for node in tree.body), default=0) <= 450
    assert [node.name for node in functions if node.end_lineno - node.lineno >= 60] == []
