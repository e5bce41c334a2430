"""The eight laws, each stated end to end once; the parts are tested where they live."""

import csv
import socket
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

from biounet.api import volume_from_array
from biounet.batch import segment_batch
from biounet.core import UNLABELLED, Annotation, Grid
from biounet.core.recipe import parse_recipe
from biounet.evaluation import score_instances
from biounet.files import find_images, read_volume, write_labels
from biounet.segmentation import SegmentOptions
from biounet.training import TrainOptions, make_case, train
from support.images import discs

TINY = parse_recipe(
    {"network": {"widths": [8, 12]}, "train": {"patch": 32, "batch": 2, "steps_per_epoch": 3, "epochs": 1}}
)


def _sparse_case(hidden: str):
    """A case with one labelled window; `hidden` says what stands in the annotated image elsewhere."""
    image, truth = discs((96, 96), 12, 1)
    labels = np.full_like(truth, UNLABELLED)
    labels[20:70, 30:80] = truth[20:70, 30:80]
    case = make_case(volume_from_array(image, 2), Annotation(labels, "instances", Grid(labels.shape)), TINY)
    target = case.target.clone()
    there = torch.from_numpy(labels == UNLABELLED)
    if hidden == "noise":
        target[:3, there] = torch.rand(3, int(there.sum())).half()
    return replace(case, target=target)


def test_1_unlabelled_means_it_does_not_exist():
    """Two trainings that differ only at unlabelled voxels end with the same weights, to the bit."""
    one, two = (train([_sparse_case(hidden)], [], TINY).network.state_dict() for hidden in ("nothing", "noise"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_1_validation_looks_at_labelled_voxels_only():
    _, truth = discs((60, 60), 8, 2)
    sparse = np.full_like(truth, UNLABELLED)
    sparse[:, :30] = truth[:, :30]
    found = truth.copy()
    other = found.copy()
    other[:, 45:] = 99
    assert score_instances([sparse], [found]).as_dict() == score_instances([sparse], [other]).as_dict()


def test_2_geometry_comes_back_and_is_never_guessed(tmp_path, segmenter):
    image, _ = discs((50, 70), 5, 3)
    calibration = {"imagej": True, "resolution": (1 / 0.325, 1 / 0.25), "metadata": {"unit": "um", "axes": "YX"}}
    tifffile.imwrite(tmp_path / "known.tif", image, **calibration)
    tifffile.imwrite(tmp_path / "unknown.tif", image)
    for name in ("known", "unknown"):
        volume = read_volume(tmp_path / f"{name}.tif")
        write_labels(tmp_path / f"{name}_labels.tif", segmenter.segment(tmp_path / f"{name}.tif").labels, volume.grid)
        assert read_volume(tmp_path / f"{name}_labels.tif").grid == volume.grid
    assert read_volume(tmp_path / "unknown.tif").grid.spacing is None
    assert read_volume(tmp_path / "known.tif").grid.spacing == pytest.approx((0.25, 0.325), rel=1e-6)


def test_3_tiling_is_invisible(segmenter):
    image, _ = discs((200, 170), 40, 4)
    whole = segmenter.segment(image).labels
    for block in (64, 65, 100, 128):
        assert np.array_equal(segmenter.segment(image, options=SegmentOptions(block=block)).labels, whole)


def test_3_a_tile_is_normalised_like_its_image(segmenter):
    """A dark quarter that is a block of its own is not stretched until its noise looks like cells."""
    image, _ = discs((128, 128), 14, 5)
    image[:64, :64] = np.random.default_rng(0).integers(195, 205, (64, 64))
    labels = segmenter.segment(image, options=SegmentOptions(block=64)).labels
    assert not labels[8:56, 8:56].any()


def test_4_nothing_fails_silently(segmenter, cell_folder, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    good = (cell_folder / "images" / "field0.tif").read_bytes()
    for name, data in {"a.tif": good, "b.tif": good[: len(good) // 2], "c.tif": b"", "d.tif": b"text"}.items():
        (folder / name).write_bytes(data)
    segment_batch(find_images([folder]), segmenter.model, tmp_path / "out")
    with (tmp_path / "out" / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a.tif", "b.tif", "c.tif", "d.tif"]
    assert [bool(row["count"]) for row in rows] == [True, False, False, False]
    assert all(row["message"] for row in rows[1:])


def test_5_outputs_appear_whole_or_not_at_all(segmenter, cell_folder, tmp_path, monkeypatch):
    image, out = cell_folder / "images" / "field0.tif", tmp_path / "out"

    def disk_is_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("biounet.files.atomic.os.fsync", disk_is_full)
    row = segmenter.segment(image)
    with pytest.raises(OSError, match="No space left"):
        row.save(out)
    assert list(out.iterdir()) == []
    monkeypatch.undo()
    row.save(out)
    assert len(list(out.iterdir())) == 3


def test_6_no_network_is_used(segmenter, cell_folder, tmp_path, monkeypatch):
    addresses: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: addresses.append(address))
    train([_sparse_case("nothing")], [], TINY, TrainOptions(checkpoint=tmp_path / "c.pt"))
    segmenter.segment(cell_folder / "images" / "field0.tif").save(tmp_path)
    assert addresses == []


@pytest.mark.parametrize(("objects", "dtype"), [(3, np.uint16), (65535, np.uint16), (65536, np.uint32)])
def test_7_labels_stay_integers(objects, dtype, tmp_path):
    edge = int(np.ceil(np.sqrt(objects)))
    labels = np.arange(1, edge * edge + 1).reshape(edge, edge)
    labels[labels > objects] = 0
    write_labels(tmp_path / "l.tif", labels, Grid(labels.shape))
    back = tifffile.imread(tmp_path / "l.tif")
    assert back.dtype == dtype
    assert np.array_equal(back, labels)


def test_8_the_command_writes_the_bytes_of_the_api(segmenter, cell_folder, tmp_path):
    from biounet.cli.commands import app

    model = tmp_path / "m.safetensors"
    segmenter.save(model)
    image = cell_folder / "images" / "field2.tif"
    app(["segment", str(image), "-m", str(model), "-o", str(tmp_path / "cli"), "-q"], standalone_mode=False)
    for path in segmenter.segment(image).save(tmp_path / "api"):
        assert path.read_bytes() == (tmp_path / "cli" / path.name).read_bytes()
