"""The list of faults names tests that exist."""

import ast
from pathlib import Path

from support.faults import STATED


def test_every_stated_fault_names_tests_that_exist():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(__file__).parents[1].rglob("test_*.py")]
    names = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert [test for tests in STATED.values() for test in tests if test not in names] == []
