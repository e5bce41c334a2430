"""Damaged files, drawn with a fixed seed: `benchmarks/fuzz.py` and `benchmarks/flips.py`, for a few seconds."""

import json
import sys
from pathlib import Path

import pytest

from biounet.core import ModelError
from biounet.network import load_model

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import flips
import fuzz

CASES = {case.name: case for case in flips.small_cases()}


def test_damaged_files_are_read_or_refused_and_nothing_else_happens():
    counts = fuzz.fuzz(25, seed=20, most=3000)
    assert {outcome for _, outcome in counts} <= {"read", "refused"}
    assert {name for name, outcome in counts if outcome == "refused"} == {*CASES, "model .safetensors"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*CASES, "model .safetensors"])
def test_no_damage_is_silent_where_a_checksum_covers_it(tmp_path, name):
    if name in CASES:
        case, every = CASES[name], 11
    else:
        content = flips.small_model()
        case, every = flips.Case(name, content, flips._model, range(len(content))), 397
    counts = flips.count(case, tmp_path, every)
    assert not {kind for kind, outcome in counts if outcome == "silent"} - {"flipped, not covered"}
    assert counts["truncated", "refused"] > 90


def test_a_model_that_has_changed_is_refused_and_one_without_a_checksum_is_read(tmp_path):
    whole, path = flips.small_model(), tmp_path / "m.safetensors"
    path.write_bytes(whole)
    true = flips._model(path)
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    text = header["__metadata__"]["biounet"]
    assert text.startswith('{"sha256":"')
    header["__metadata__"]["biounet"] = "{" + text[len('{"sha256":"') + 64 + len('",') :]
    old = json.dumps(header).encode()
    weights = whole[8 + length :]
    path.write_bytes(len(old).to_bytes(8, "little") + old + weights)
    assert flips._model(path) == true
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match="damaged: its checksum is another"):
        load_model(path)
