"""Mutation testing: change one operator, comparison, constant or statement at a time, and see whether a test fails.

    python benchmarks/mutants.py biounet/tiling tests/tiling [--sample 200] [-- --noconftest -k "not slow"]

Prints each mutant that survives, and the score: the share of mutants that were killed. No file
is changed: a mutant is compiled from memory, in a fork of this process; tests that start other processes do not see it.
Compiled loops run interpreted, so tests of large arrays should be left out. What stands after ``--`` goes to pytest. A
mutant that takes too much time or memory counts as killed.
"""

import os

os.environ["NUMBA_DISABLE_JIT"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import ast
import copy
import random
import resource
import signal
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import hypothesis.extra.numpy  # what tests need is imported once, before the forks
import numba  # noqa: F401
import pytest
import torch  # noqa: F401

ROOT = Path(__file__).parents[1]
SWAPPED_OPERATORS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.USub: ast.UAdd,
}
PAIRS = (
    ("min", "max"),
    ("any", "all"),
    ("ceil", "floor"),
    ("minimum", "maximum"),
    ("argmin", "argmax"),
    ("zeros", "ones"),
)
SWAPPED_NAMES = {old: new for pair in PAIRS for old, new in (pair, pair[::-1])}
REMOVED = (ast.Expr, ast.AugAssign, ast.Continue, ast.Break)
SKIPPED = (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)
# Without xdist, whose workers would not see the mutant.
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
# Plugins that napari brings along, as in pyproject.toml
PYTEST += [f"-pno:{name}" for name in ("napari", "npe2", "napari-plugin-engine", "zarr", "anyio")]
PYTEST += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
PHASES = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # no shrinking
MEMORY = 8 * 2**30
SPARE = 3  # times the processor time that all tests take without a mutant


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that can matter: no annotations, decorators, messages or names of types."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            strict = isinstance(child, ast.keyword) and child.arg == "strict"  # of zip: guards against defects
            if isinstance(child, ast.AST) and not isinstance(child, SKIPPED) and not strict:
                yield from walk(child)


def alternatives(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Yield each field of a node that can be mutated, and its mutated value."""
    match node:
        case ast.Constant(value=bool(value)):
            yield "value", not value
        case ast.Constant(value=int() | float()):
            yield "value", node.value + 1
        case ast.Compare():
            for n, op in enumerate(node.ops):
                yield "ops", [*node.ops[:n], SWAPPED_OPERATORS[type(op)](), *node.ops[n + 1 :]]
        case ast.UnaryOp(op=ast.Not()):
            yield "operand", ast.UnaryOp(ast.Not(), node.operand)
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign() | ast.UnaryOp() if type(node.op) in SWAPPED_OPERATORS:
            yield "op", SWAPPED_OPERATORS[type(node.op)]()
        case ast.Name(ctx=ast.Load()) if node.id in SWAPPED_NAMES:
            yield "id", SWAPPED_NAMES[node.id]
        case ast.Attribute() if node.attr in SWAPPED_NAMES:
            yield "attr", SWAPPED_NAMES[node.attr]
    for name in ("body", "orelse"):
        statements = getattr(node, name, None)
        for n, statement in enumerate(statements if isinstance(statements, list) else ()):
            documentation = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if isinstance(statement, REMOVED) and not documentation:
                yield name, [*statements[:n], ast.Pass(), *statements[n + 1 :]]


def mutants(tree: ast.Module) -> Iterator[str]:
    """Yield what was changed, once for each mutant; until the next one, the tree is that mutant."""
    for node in walk(tree):
        for name, value in list(alternatives(node)):
            original, shown = getattr(node, name), copy.copy(node)
            setattr(node, name, value)
            yield describe(node, name, shown)
            setattr(node, name, original)


def describe(node: ast.AST, name: str, original: ast.AST) -> str:
    """Return line, old and new code."""
    if name not in ("body", "orelse"):
        return f"{original.lineno}: {ast.unparse(original)}  ->  {ast.unparse(ast.fix_missing_locations(node))}"
    removed = next(a for a, b in zip(getattr(original, name), getattr(node, name), strict=True) if a is not b)
    return f"{removed.lineno}: {ast.unparse(removed)}  ->  pass"


def run_tests(arguments: list[str], mutated: tuple[Path, CodeType] | None, seconds: float) -> tuple[bool, float]:
    """Run pytest in a fork; return whether all tests passed, and the processor time that it took."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        limit_child(seconds)
        if mutated:
            load_mutant(*mutated)
        os._exit(pytest.main([*PYTEST, *arguments]))
    _, status, used = os.wait4(child, 0)
    return status == 0, used.ru_utime + used.ru_stime


def limit_child(seconds: float) -> None:
    """Silence this process, and let it end when it takes too much time or memory."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    signal.alarm(int(20 * seconds))


def load_mutant(path: Path, code: CodeType) -> None:
    """Let the import of one module give other code."""
    original = SourceFileLoader.get_code
    SourceFileLoader.get_code = lambda loader, name: code if Path(loader.path) == path else original(loader, name)


def try_mutants(
    trees: dict[Path, ast.Module], chosen: set[tuple[Path, int]], arguments: list[str], seconds: float
) -> int:
    """Run the tests with each chosen mutant, print those that survive, and return their number."""
    survived = 0
    for path, tree in trees.items():
        for n, change in enumerate(mutants(tree)):
            if (path, n) in chosen:
                code = compile(ast.fix_missing_locations(tree), str(path), "exec")
                passed, _ = run_tests(arguments, (path, code), seconds)
                survived += passed
                print(f"survived: {path.relative_to(ROOT)}:{change}\n" if passed else "", end="", flush=True)
    return survived


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="module or folder to mutate")
    parser.add_argument("tests", nargs="+", help="folders or files of tests")
    parser.add_argument("--sample", type=int, help="number of mutants, drawn at random; by default all")
    parser.add_argument("--seed", type=int, default=0)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end])
    arguments, source = [*options.tests, *sys.argv[end + 1 :]], options.source.resolve()
    sys.path.insert(0, str(ROOT))
    hypothesis.settings.register_profile("mutants", derandomize=True, deadline=None, phases=PHASES)
    hypothesis.settings.load_profile("mutants")
    passed, seconds = run_tests(arguments, None, 3600)
    if not passed:
        sys.exit("the tests fail without a mutant; leave out those that need compiled loops")
    files = sorted(source.rglob("*.py")) if source.is_dir() else [source]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    every = [(path, n) for path, tree in trees.items() for n, _ in enumerate(mutants(tree))]
    tried = min(options.sample or len(every), len(every))
    print(f"{len(every)} mutants, {tried} tried; the tests take {seconds:.0f} s", flush=True)
    chosen = {*random.Random(options.seed).sample(every, tried)}
    killed = tried - try_mutants(trees, chosen, arguments, SPARE * seconds + 5)
    print(f"killed {killed} of {tried} ({killed / max(tried, 1):.0%})")


if __name__ == "__main__":
    main()
