"""A run whose label images are stores is verified: what is damaged, missing or changed is named in one line."""

import csv
import json
import math
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from biounet.batch import BatchOptions, ReplayOptions, large_image, segment_batch, verify
from biounet.batch.names import drawn_names
from biounet.core import Grid, SettingsError, builtin_models, sample_folder
from biounet.files import (
    StoreOptions,
    find_images,
    hash_tree,
    numbering_fault,
    open_label_store,
    store_difference,
    write_label_store,
)
from biounet.large_images import budget, segment_large
from biounet.network import load_model
from biounet.reporting import row_fault, write_partitioned_table, write_table_part
from biounet.segmentation import MemoryNeed, SegmentOptions

NAMES = "abcdefgh"
_EDGES = {2: ((160, 128),), 3: ((48, 32),)}


@pytest.fixture(scope="module")
def model():
    return load_model(builtin_models()["nuclei"])


@pytest.fixture(autouse=True)
def small_super_blocks(monkeypatch):
    monkeypatch.setattr(budget, "_EDGES", _EDGES)
    monkeypatch.setattr("biounet.batch.large_image._SMALL_FILE", 0)


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    """The folder of a run of some images in super-blocks of 160 pixels, beside them."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "in").mkdir()
    image = tifffile.imread(sample_folder() / "images" / "nuclei.tif")
    image = np.pad(image, [(0, max(0, 300 - image.shape[0])), (0, 0)], "symmetric")
    for number, name in enumerate(NAMES):
        tifffile.imwrite(folder / "in" / f"{name}.tif", image[number : number + 270, number : number + 180])
    options = BatchOptions(segment=SegmentOptions(diameter="native"), overlay=False, label_format="zarr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "_EDGES", _EDGES)
        patch.setattr("biounet.batch.large_image._SMALL_FILE", 0)
        segment_batch(find_images([str(folder / "in")]), model, folder / "out", options)
    return folder


@pytest.fixture
def out(made, tmp_path):
    """A copy of that run, which a test may damage."""
    shutil.copytree(made, tmp_path / "run", copy_function=shutil.copy2)
    return tmp_path / "run" / "out"


def checked(out, model, **options):
    """What is said of each image, by its name."""
    found = verify(out, model, ReplayOptions(**options))
    return {one.image.removesuffix(".tif"): ": ".join(filter(None, (one.status, one.message))) for one in found}


def damage(out):
    """Damage each image in another way; return what is said of it, made again and not."""
    labels = {name: out / f"{name}_labels.ome.zarr" for name in NAMES}
    shard = labels["a"] / "0/c/1/0"
    shard.write_bytes(bytes(~byte & 255 if number == 99 else byte for number, byte in enumerate(shard.read_bytes())))
    (labels["b"] / "1/c/0/0").unlink()
    shutil.rmtree(labels["c"] / "1")
    (labels["d"] / "zarr.json").write_text("{}")
    swap(labels["e"] / "0/c/0/0", labels["e"] / "0/c/1/0")
    swap(labels["f"], labels["g"])
    shutil.rmtree(labels["h"])
    rows = (out / "b_objects.csv").read_text().splitlines(keepends=True)
    (out / "b_objects.csv").write_text("".join(rows[:3] + rows[4:]))
    name = "{0}_labels.ome.zarr was changed"
    table = "b_objects.csv was changed: row 3 is of object 4"
    both = {
        "a": f"differs: {name}: 0/c/1/0 damaged",
        "b": f"differs: {table}, {name}: 1/c/0/0 missing",
        "c": f"differs: {name}: level 1 is missing",
        "d": f"differs: {name}: no OME-Zarr 0.5: it has no multiscales",
        "e": f"differs: {name}: 0/c/0/0 changed, 0/c/1/0 changed",
        "f": f"differs: {name}: 0/c/0/0 changed, 0/c/0/1 changed, 0/c/1/0 changed, 0/c/1/1 changed, 1/c/0/0 changed",
        "h": "missing: {0}_labels.ome.zarr",
    }
    both["g"] = both["f"]
    again = {key: text.format(key) for key, text in both.items()}
    # A shard that is not there holds no label, as far as a store tells
    without = {"b": f"differs: {table}, {name}", "e": f"differs: {name}"}
    return again, again | {key: text.format(key) for key, text in without.items()}


def swap(one, other):
    one.rename(one.with_name("x"))
    other.rename(one)
    one.with_name("x").rename(other)


def test_what_is_wrong_is_named_whether_an_image_is_made_again_or_not(out, model):
    again, without = damage(out)
    assert checked(out, model) == again
    found = checked(out, model, fraction=0.1)
    drawn = drawn_names([f"{name}.tif" for name in NAMES], 0.1)
    del found["f"], found["g"]  # their labels are read, and some numbers are lacking or too large
    assert found == {name: (again if drawn(f"{name}.tif") else without)[name] for name in found}


def test_shards_of_another_size_are_no_difference(out, model, monkeypatch):
    monkeypatch.setattr(budget, "_EDGES", {2: ((64, 64),)})
    expected = checked(out, model, fraction=0.25, jobs=1)
    assert sorted(expected.values()) == ["intact"] * 6 + ["same"] * 2
    name = next(name for name in NAMES if expected[name] == "same")
    (out / f"{name}_labels.ome.zarr/0/c/0/1").unlink()
    assert checked(out, model, fraction=0.25, jobs=1) == expected | {
        name: f"differs: {name}_labels.ome.zarr was changed: 0/c/0/1 missing"
    }


@pytest.mark.parametrize("label_format", ["tif", "zarr"])
def test_memory_that_may_be_taken_is_no_difference(made, model, tmp_path, monkeypatch, label_format):
    """Results of memory are those of super-blocks, in which images are made again that need more than `ram`."""
    monkeypatch.setattr(large_image, "memory_needs", lambda *_: [(SegmentOptions(), MemoryNeed(2**32, 0))])
    monkeypatch.setattr("biounet.batch.records.usable_memory", lambda: 2**33)
    in_parts = []
    monkeypatch.setattr(large_image, "segment_large", lambda *given: in_parts.append(0) or segment_large(*given))
    segment = SegmentOptions(diameter="native")
    options = BatchOptions(segment=segment, overlay=False, label_format=label_format)
    with monkeypatch.context() as patch:
        patch.setattr(large_image, "_SMALL_FILE", 2**30)
        segment_batch(find_images([str(made / "in" / "a.tif")]), model, tmp_path, options)
    assert in_parts == []
    assert checked(tmp_path, model, ram=2**31) == {"a": "same"}
    assert in_parts == [0]
    with pytest.raises(SettingsError, match="too little for any image"):
        checked(tmp_path, model, ram=2**20)


def test_a_fraction_is_drawn_by_the_names_and_in_the_order_of_the_manifest(out, model):
    found = checked(out, model, fraction=0.25, jobs=2)
    assert list(found) == [row["image"].removesuffix(".tif") for row in rows_of(out)]
    drawn = drawn_names([f"{name}.tif" for name in NAMES], 0.25)
    assert found == {name: "same" if drawn(f"{name}.tif") else "intact" for name in found}
    for wrong in (0, 1.5, -1, float("nan")):
        with pytest.raises(SettingsError, match="fraction"):
            ReplayOptions(fraction=wrong)


@given(st.sets(st.text(max_size=3), min_size=1), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_larger_fraction_holds_the_smaller_and_is_as_large_as_said(names, one, other):
    small, large = sorted((one, other))
    drawn = [{name for name in names if drawn_names(names, part)(name)} for part in (small, large)]
    assert drawn[0] <= drawn[1]
    assert [len(chosen) for chosen in drawn] == [math.ceil(part * len(names)) for part in (small, large)]


def rows_of(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_counts_are_checked_where_hashes_are_right(out, model):
    """As of a program that lost a part and recorded what it had."""
    rows = (out / "a_objects.csv").read_text().splitlines(keepends=True)
    (out / "a_objects.csv").write_text("".join(rows[:3] + rows[4:]))
    (out / "a_labels.ome.zarr/0/c/0/0").unlink()
    rows = rows_of(out)
    for row in rows:
        row["outputs"] = {name: hash_tree(out / name) for name in row["outputs"]}
    (out / "manifest.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = checked(out, model, fraction=0.1, jobs=1)["a"]
    assert "a_labels.ome.zarr: no voxel of object " in found
    assert "a_objects.csv: row 3 is of object 4" in found


def test_an_image_that_is_gone_leaves_its_files_to_be_checked(out, model):
    _, without = damage(out)
    shutil.rmtree(out.parent / "in")
    found = checked(out, model)
    assert found["a"] == f"missing: its input, {without['a'].removeprefix('differs: ')}"
    assert found["h"] == "missing: its input"


def test_numbers_from_one_without_a_gap(tmp_path):
    labels = np.zeros((40, 60), np.int32)
    labels[2:5, 2:5], labels[30:33, 50:55] = 1, 3
    write_label_store(tmp_path / "x_labels.ome.zarr", labels, Grid(labels.shape), StoreOptions((32, 32)))
    store = open_label_store(tmp_path / "x_labels.ome.zarr")
    assert numbering_fault(store, 3) == "no voxel of object 2"
    assert numbering_fault(store, 2) == "label 3 of 2 objects"
    labels[10, 10] = 2
    write_label_store(tmp_path / "y_labels.ome.zarr", labels, Grid(labels.shape), StoreOptions((16, 16)))
    assert numbering_fault(open_label_store(tmp_path / "y_labels.ome.zarr"), 3) == ""
    assert store_difference(tmp_path / "x_labels.ome.zarr", tmp_path / "y_labels.ome.zarr") == "0/c/0/0 changed"


def test_rows_of_tables_are_those_of_the_objects(tmp_path):
    rows = {"label": np.arange(1, 8), "area_px": np.arange(7.0), "text": np.array(list('a,"\nbcd'), object)}
    write_table_part(tmp_path, 0, rows)
    write_partitioned_table(tmp_path / "x_objects.parquet", [tmp_path / "part-00000000.parquet"], 7, {})
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("label", "text"), *zip(rows["label"], rows["text"], strict=True)])
    for table in (tmp_path / "x_objects.parquet", tmp_path / "x.csv"):
        assert row_fault(table, 7) == ""
        assert row_fault(table, 8) == "7 rows, and 8 objects"
    part = next((tmp_path / "x_objects.parquet").iterdir())
    pq.write_table(pq.read_table(part).slice(1), part)
    assert row_fault(tmp_path / "x_objects.parquet", 7) == "row 1 is of object 2"
    part.write_bytes(part.read_bytes()[:-20])
    assert row_fault(tmp_path / "x_objects.parquet", 7).startswith("cannot be read as a table: ")
    for text in ("", "labels\n1\n", "label,b\nx,1\n", "label,b\n1\n"):
        (tmp_path / "x.csv").write_text(text)
        assert row_fault(tmp_path / "x.csv", 1).startswith("cannot be read as a table: "), text
