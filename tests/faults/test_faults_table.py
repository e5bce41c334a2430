"""Every fault is stated by a test or has a reason why not."""

import re
from pathlib import Path

from support.faults import NOT_STATED, STATED, faults_of

NAMES = [
    name
    for path in sorted(Path(__file__).parents[1].rglob("test_*.py"))
    for name in re.findall(r"^ *def (test_\w+)|ids=\[(.*)\]", path.read_text(encoding="utf-8"), re.MULTILINE)
]
TESTS = [test for test, _ in NAMES if test]
CARRIED = {int(number) for parts in NAMES for number in re.findall(r"F(\d{3})", " ".join(parts))}


def test_every_fault_is_stated_or_has_a_reason():
    assert {*STATED, *CARRIED} | {*NOT_STATED} == set(range(1, 108))
    assert not {*STATED, *CARRIED} & {*NOT_STATED}


def test_every_test_that_is_named_exists():
    named = {name for names in STATED.values() for name in names}
    assert not named - {*TESTS}


def test_a_number_finds_its_tests(request):
    assert faults_of("test_every_flipped_bit_is_harmless_or_refused[x]") == {"F028"}
    for item in request.session.items:
        assert faults_of(item.name) <= item.extra_keyword_matches
