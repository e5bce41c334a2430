"""Images larger than memory that are broken: one line each, and the others are done."""

import json
import re
import shutil

import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from biounet.core import sample_folder
from biounet.files import open_label_store
from biounet.large_images import budget
from support.volume_models import save_random_model

IMAGE = tifffile.imread(sample_folder() / "images" / "nuclei.tif")
LEFT = {
    "chunks.ome.zarr": "2 of 16 chunks are absent and read as 0: 0/0, 2/1",
    "damaged.ome.zarr": "chunk 1/3 cannot be decoded (",
    "multiscales.ome.zarr": "'multiscales' lists no levels",
    "none.ome.zarr": "without 'multiscales'",
    "level.ome.zarr": "level of full resolution, '0', is not there",
    "slide.tif": "JPEG datastream contains no image",
    "aperio.svs": "JPEG datastream contains no image",
    "shard.ome.zarr": "chunk 0/2 in shard c/0/1 cannot be decoded (",
    "index.ome.zarr": "truncated: the index of shard c/1/0 is not there",
}


def write_store(path, shards=None):
    group = zarr.open_group(path, mode="w", zarr_format=3)
    for name, step in (("0", 1), ("1", 2)):
        group.create_array(name, data=IMAGE[::step, ::step], chunks=(64, 64), shards=shards)
    scales = [[{"type": "scale", "scale": [0.5 * step, 0.5 * step]}] for step in (1, 2)]
    levels = [{"path": str(n), "coordinateTransformations": scale} for n, scale in enumerate(scales)]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}


def change_metadata(path, change):
    content = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    change(content["attributes"]["ome"])
    (path / "zarr.json").write_text(json.dumps(content), encoding="utf-8")


def cut(path, size=20):
    path.write_bytes(path.read_bytes()[:size])


BREAK = {
    "chunks.ome.zarr": lambda path: [(path / "0/c" / place).unlink() for place in ("0/0", "2/1")],
    "damaged.ome.zarr": lambda path: cut(path / "0/c/1/3"),
    "multiscales.ome.zarr": lambda path: change_metadata(path, lambda ome: ome.update(multiscales=[])),
    "none.ome.zarr": lambda path: change_metadata(path, lambda ome: ome.pop("multiscales")),
    "shard.ome.zarr": lambda path: cut(path / "0/c/0/1", -1000),
    "index.ome.zarr": lambda path: cut(path / "0/c/1/0"),
    "level.ome.zarr": lambda path: shutil.rmtree(path / "0"),
}


SHARDED = ("shard.ome.zarr", "index.ome.zarr")


def break_tile(path):
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[6], tif.pages[0].databytecounts[6]
    with path.open("r+b") as file:
        file.seek(offset + 2)  # the marks at its begin and end stay
        file.write(bytes(count - 4))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("biounet.batch.large_image._SMALL_FILE", 0)
    monkeypatch.setattr(budget, "_EDGES", {2: ((96, 64),)})
    folder = tmp_path / "in"
    for name, break_it in BREAK.items():
        write_store(folder / name, (128, 128) if name in SHARDED else None)
        break_it(folder / name)
    write_store(folder / "good.ome.zarr")
    pixels, how = (IMAGE // 256).astype(np.uint8), {"tile": (64, 64), "compression": "jpeg"}
    tifffile.imwrite(folder / "slide.tif", pixels, **how)
    description = "Aperio Image Library v12.0.15\r\n256x256 (64x64)|MPP = 0.5000"
    tifffile.imwrite(folder / "aperio.svs", pixels, description=description, metadata=None, **how)
    break_tile(folder / "slide.tif")
    break_tile(folder / "aperio.svs")
    return folder


@pytest.mark.parametrize("label_format", ["zarr", "tif"])
def test_what_is_broken_is_one_line_and_the_others_are_done(label_format, folder, biounet, tmp_path):
    command = ("segment", folder, "-o", "out", "--format", label_format, "--diameter", "native", "--no-overlay")
    code, shown, err = biounet(*command, "--json")
    assert code == 3
    rows = {row["image"]: row for row in map(json.loads, shown.splitlines())}
    failed = {name for name, row in rows.items() if row["status"] == "failed"}
    assert failed == LEFT.keys() - {"chunks.ome.zarr"}
    for name, text in LEFT.items():
        assert text in rows[name]["message"], name
    assert len(err.splitlines()) == len(failed)
    assert rows["good.ome.zarr"]["count"] > rows["chunks.ome.zarr"]["count"] > 0
    if label_format == "zarr":
        assert all("tile 6 of 16" in rows[name]["message"] for name in ("slide.tif", "aperio.svs"))
        store = open_label_store(tmp_path / "out" / "good_labels.ome.zarr")
        assert store.read(tuple(slice(0, n) for n in store.grid.shape)).max() == rows["good.ome.zarr"]["count"]
    write_store(folder / "damaged.ome.zarr")
    code, shown, _ = biounet(*command, "--json")
    again = {row["image"]: row for row in map(json.loads, shown.splitlines())}
    assert again["damaged.ome.zarr"]["count"] == rows["good.ome.zarr"]["count"]


def test_a_dry_run_says_what_is_broken_before_anything_runs(folder, biounet):
    code, shown, err = biounet("segment", folder, "--format", "zarr", "--diameter", "native", "--dry-run", "--json")
    rows = {row["image"]: row for row in map(json.loads, shown.splitlines())}
    assert code == 3
    assert {name for name, row in rows.items() if row["failed"]} == {
        "multiscales.ome.zarr",
        "none.ome.zarr",
        "level.ome.zarr",
        "index.ome.zarr",
    }
    assert LEFT["chunks.ome.zarr"] in rows["chunks.ome.zarr"]["message"]
    assert len(err.splitlines()) == 4


def test_a_model_of_classes_says_what_an_image_takes_that_memory_is_too_little_for(biounet, tmp_path):
    save_random_model(tmp_path / "m.safetensors", ("scan",))
    values = np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "case.nii")
    command = ("segment", "case.nii", "-m", "m.safetensors", "-o", "out", "--no-overlay", "--quiet", "--ram")
    for more in ((), ("--dry-run",)):
        code, _, err = biounet(*command, "591M", *more)
        assert (code, err.count("\n")) == (4, 1)
        assert "591 MiB of memory are too little: a model of classes works on the image as a whole (hint: " in err
    least = re.search(r"--ram (\d+M) or more", err)[1]
    assert biounet(*command, least)[0] == 0
    code, _, err = biounet(*command, "590M")
    assert (code, err) == (
        2,
        "ERROR ram of 590 MiB: too little for any image (hint: the program itself takes 590 MiB)\n",
    )
