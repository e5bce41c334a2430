"""Time series: frames as images of their own, joined; in batches, in processes of their own, and in 3D."""

import weakref
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import tifffile

from biounet.api import Segmenter
from biounet.batch.own_process import segment_in_own_process
from biounet.batch.process_image import BatchContext, segment_file
from biounet.batch.records import BatchOptions
from biounet.core import Grid, Note, NoteCode, Volume
from biounet.files import FoundImage, ReaderPool, ReadOptions
from biounet.network import model_predictor
from biounet.segmentation import Frame, memory_needs
from biounet.segmentation.frames import join_notes, segment_frames
from support.images import discs


@pytest.fixture
def movie(tmp_path):
    """Three frames of two channels; the discs stand still, and the second channel is twice the first."""
    frames = np.stack([discs((64, 72), 5, 0)[0] - 10 * t for t in range(3)])
    both = np.stack([frames, 2 * frames], 1)
    metadata = {"axes": "TCYX", "unit": "um", "finterval": 5.0, "Labels": ["DAPI", "GFP"] * 3}
    tifffile.imwrite(tmp_path / "movie.tif", both, imagej=True, resolution=(2.0, 2.0), metadata=metadata)
    return tmp_path / "movie.tif"


def test_still_discs_have_one_track_each_with_measured_channels(segmenter, movie):
    result = segmenter.segment(movie, frames="all", channel="DAPI", measure="GFP")
    table = result.table
    counts = [frame.count for frame in result.frames]
    assert result.counts == tuple(counts)
    assert result.count == sum(counts) == len(table) == result.labels.max()
    assert table["label"].tolist() == [*range(1, len(table) + 1)]
    assert {t: len(rows) for t, rows in table.groupby("t")} == dict(enumerate(counts))
    assert result.figures["tracks"] == counts[0] == table["track"].max()
    assert not table["parent_track"].any()
    np.testing.assert_allclose(table["intensity_mean_GFP"], 2 * table["intensity_mean_DAPI"])
    for t in range(3):
        alone = segmenter.segment(movie, plane=t, channel="DAPI")
        np.testing.assert_array_equal(result.labels[t] > 0, alone.labels > 0)


@pytest.mark.parametrize("how", ["max", "mean", "focus"])
def test_projected_stacks_over_time_with_measured_channels(segmenter, tmp_path, how):
    frames = np.stack([discs((64, 72), 5, 0)[0] - 10 * t for t in range(2)])
    stacks = np.stack([frames // 2, frames, frames // 3], 1)
    both = np.stack([stacks, stacks // 2], 2)
    metadata = {"axes": "TZCYX", "Labels": ["DAPI", "GFP"] * 6}
    tifffile.imwrite(tmp_path / "stacks.tif", both, imagej=True, metadata=metadata)
    result = segmenter.segment(tmp_path / "stacks.tif", frames="all", project=how, channel="DAPI", measure="GFP")
    assert result.labels.shape == (2, 64, 72)
    expected = {"max": stacks.max(1), "mean": stacks.mean(1), "focus": stacks[:, 1]}[how]
    np.testing.assert_allclose(result.volume.array[0], expected, rtol=1e-6)
    expected = {"max": (stacks // 2).max(1), "mean": (stacks // 2).mean(1), "focus": stacks[:, 1] // 2}[how]
    np.testing.assert_allclose(result.volume.measured["GFP"], expected, rtol=1e-6)


def test_arrays_need_no_axes_where_frames_leave_no_choice(segmenter):
    frames = np.stack([discs((64, 72), 5, 0)[0]] * 2)
    result = segmenter.segment(frames, frames="all", spacing=0.5)
    assert (result.labels.shape, result.figures["tracks"]) == ((2, 64, 72), result.counts[0])
    assert "in 2 frames" in repr(result)
    flat = segmenter.segment(frames, project="max", spacing=0.5)
    np.testing.assert_array_equal(flat.labels, segmenter.segment(frames[0], spacing=0.5).labels)


def test_volumes_over_time(untrained, tmp_path):
    from biounet.core.recipe import parse_recipe
    from biounet.network import Card, Model, build_network, initialise_weights, output_channels

    recipe = parse_recipe({"data": {"dims": 3}, "network": {"widths": [4, 4]}, "label": {"min_size": 1}})
    network = build_network(recipe)
    initialise_weights(network, 0)
    model = Model(network.eval(), Card(recipe=recipe, inputs=("intensity",), outputs=output_channels(recipe)))
    stacks = np.random.default_rng(0).integers(0, 4000, (2, 6, 24, 24)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", stacks, imagej=True, metadata={"axes": "TZYX"})
    segmenter = Segmenter(model)
    result = segmenter.segment(tmp_path / "x.tif", frames="all")
    first = 0
    for t in range(2):
        alone = segmenter.segment(stacks[t])
        np.testing.assert_array_equal(result.labels[t], np.where(alone.labels, alone.labels + first, 0))
        first += alone.count
    result.save(tmp_path / "out")
    assert tifffile.imread(tmp_path / "out" / "x_labels.tif").shape == (2, 6, 24, 24)


def test_a_process_of_its_own_gives_the_same_record(untrained, movie, tmp_path):
    options = BatchOptions(ReadOptions(frames="0:2", channel=0, inputs=1), device="cpu")
    image, records = FoundImage(movie, movie.relative_to(tmp_path)), []
    with ReaderPool() as readers:
        for folder, segment in (("a", segment_file), ("b", segment_in_own_process)):
            out = tmp_path / folder
            context = BatchContext(untrained, model_predictor(untrained, "cpu"), out, options, 1, Event(), readers)
            records.append(segment(image, context, ()))
    here, there = records
    assert here.outputs == there.outputs
    assert [frame.t for frame in there.row.frames] == [0, 1]
    for one, other in zip(here.row.frames, there.row.frames, strict=True):
        assert replace(one, seconds=0) == replace(other, seconds=0)


def test_memory_grows_with_the_frames_and_not_with_their_maps(untrained, movie):
    needs = []
    with ReaderPool() as readers, readers.borrow() as reader:
        for frames in ("0:1", "all"):
            header, _ = reader.read_header(movie, ReadOptions(frames=frames, channel=0))
            options = BatchOptions().segment
            needs.append(memory_needs(header, untrained, options, "cpu")[0][1])
    pixels = 64 * 72
    assert needs[1].process - needs[0].process == 2 * pixels * (2 + 4)
    assert needs[1].reader == 3 * needs[0].reader


def test_labels_of_frames_before_the_last_one_are_not_kept(segmenter):
    frames = np.stack([discs((64, 72), 5, 0)[0]] * 4)
    volume = Volume(frames[None], Grid((64, 72)), times=(0, 1, 2, 3))
    alive, kept = [], []

    def segment_one(image):
        kept.append(sum(labels() is not None for labels in alive))
        result = segmenter.segment(image)
        result = replace(result, labels=result.labels.copy())  # which owns its memory, and is no view
        alive.append(weakref.ref(result.labels))
        return result

    segment_frames(volume, segment_one)
    assert kept == [0, 1, 1, 1]


def test_notes_on_frames_say_which_they_are_about():
    blurred = [Note(f"blurred: {t}", NoteCode.BLURRED, figure=t) for t in range(5)]
    frames = [Frame(t, 1, ("everywhere", *((blurred[t],) if t else ()))) for t in range(5)]
    everywhere, some = join_notes(frames)
    assert everywhere == "everywhere"
    assert str(some).startswith("t = 1, 2, 3")
    assert str(some).endswith(": blurred: 1")
    assert (some.code, some.severity, some.figure) == (NoteCode.BLURRED, "warning", 1)
