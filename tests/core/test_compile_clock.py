"""A clock that stands still while inner loops are compiled, and what is said then."""

import time

import numba
import pytest
from numba.core import event

from biounet.core import announce_compiling, working_time


def compiling(seconds):
    with event.trigger_event("numba:compile", data={}):
        time.sleep(seconds)


def test_the_clock_stands_still_while_something_is_compiled():
    before, real = working_time(), time.perf_counter()
    with event.trigger_event("numba:compile", data={}):
        compiling(0.05)  # nested, as of a function that calls another
        during = working_time()
    compiling(0.05)
    after = working_time()
    took = time.perf_counter() - real
    assert took > 0.1
    assert before <= during <= after
    assert after - before == pytest.approx(took - 0.1, abs=0.05)
    time.sleep(0.02)
    assert working_time() - after >= 0.02


def test_compiling_is_announced_once_and_only_where_it_happens():
    said = []
    with announce_compiling(lambda: said.append("now")):
        assert said == []
        numba.njit(lambda x: x + 1)(1)
        assert said == ["now"]
        compiling(0)
    compiling(0)
    assert said == ["now"]
