"""Volumes: the laws of tiling and of the source grid hold as in images; unlabelled slices do not exist."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from biounet.api import Segmenter
from biounet.core import Annotation, Grid, Volume, keep_slices
from biounet.core.recipe import parse_recipe
from biounet.evaluation import score_instances
from biounet.network import Card, build_network, initialise_weights, make_predictor, output_channels
from biounet.segmentation import SegmentOptions, predict_image, segment
from biounet.synthetic import StackSettings, make_stack
from biounet.training import make_case, train
from biounet.training.patches import Patches
from biounet.training.planning import plan

GRID = Grid((22, 40, 36), (2.2, 1.0, 1.0), "um")
CELLS = plan(
    parse_recipe({"data": {"dims": 3}, "network": {"widths": [6, 8, 10]}, "train": {"patch": 24, "batch": 2}}), [GRID]
)


def model_of(recipe):
    """A network with weights from a seed: what it finds means nothing and has to be the same everywhere."""
    network = build_network(recipe)
    initialise_weights(network, 1)
    torch.nn.init.normal_(network.head.weight, std=0.4, generator=torch.Generator().manual_seed(2))
    return make_predictor(network.eval(), "cpu", softmax=recipe.data.exclusive), Card(
        recipe=recipe, inputs=recipe.data.channels, outputs=output_channels(recipe)
    )


def stack(grid=GRID, channels=1):
    image, labels = make_stack(5, StackSettings(shape=grid.shape, spacing=grid.spacing, diameter=9))
    return Volume(np.repeat(image[None], channels, 0), grid), labels


@pytest.mark.parametrize(("block", "workers"), [(12, 1), (20, 2), (31, 2)])
def test_tiling_is_invisible_in_volumes(block, workers):
    predictor, card = model_of(CELLS)
    assert predictor.network.stride == (4, 8, 8)
    volume, _ = stack()
    whole = segment(volume, predictor, card)
    assert whole.count > 3
    with ThreadPoolExecutor(workers) as pool:
        tiled = segment(volume, predictor, card, SegmentOptions(block=block), executor=pool)
    assert np.array_equal(whole.labels, tiled.labels)
    for name, values in whole.columns.items():
        assert np.array_equal(values, tiled.columns[name]), name


def test_labels_of_another_working_grid_come_back_on_the_source_grid():
    predictor, card = model_of(CELLS.replace("data", voxel_size=(2.2, 2.0, 1.5)))
    volume, _ = stack()
    found = segment(volume, predictor, card)
    assert found.labels.shape == GRID.shape
    assert found.volume.grid is GRID
    image = np.zeros((1, 22, 20, 24), np.float32)
    assert predict_image(image, predictor).shape == (3, 22, 20, 24)


def test_surroundings_that_were_removed_are_background_and_change_nothing():
    recipe = parse_recipe(
        {
            "data": {"dims": 3, "kind": "classes", "classes": ["tumour", "rim"]},
            "normalise": {"method": "zscore"},
            "network": {"widths": [6, 8]},
        }
    )
    predictor, card = model_of(plan(recipe, [Grid((16, 24, 20), (1.0,) * 3, "mm")]))
    brain = np.random.default_rng(0).normal(100, 20, (1, 16, 24, 20)).astype(np.float32)
    padded = np.pad(brain, ((0, 0), (5, 3), (7, 8), (9, 2)))
    cropped = segment(Volume(brain, Grid(brain.shape[1:], (1.0,) * 3, "mm")), predictor, card).labels
    found = segment(Volume(padded, Grid(padded.shape[1:], (1.0,) * 3, "mm")), predictor, card).labels
    assert len(np.unique(cropped)) > 1
    assert np.array_equal(found, np.pad(cropped, ((5, 3), (7, 8), (9, 2))))
    drawn = Annotation(found.astype(np.int32), "classes", Grid(found.shape))
    case = make_case(Volume(padded, Grid(padded.shape[1:])), drawn, recipe)
    assert np.array_equal(case.labels, cropped)


@pytest.mark.parametrize("shape", [(1, 30, 30), (3, 1, 17), (40, 9, 9)])
def test_any_size_of_volume(shape):
    predictor, card = model_of(CELLS)
    image = np.random.default_rng(0).integers(0, 500, (1, *shape)).astype(np.uint16)
    found = segment(Volume(image, Grid(shape, GRID.spacing, "um")), predictor, card)
    assert found.labels.shape == shape
    assert found.count == found.labels.max()


def test_lesions_are_counted_and_measured_in_ml():
    grid = Grid((20, 32, 32), (2.0, 1.0, 1.0), "mm")
    data = {"dims": 3, "kind": "classes", "classes": ["oedema", "core"], "regions": {"whole": [1, 2], "core": [2]}}
    recipe = parse_recipe({**CELLS.model_dump(), "data": data, "normalise": {"method": "zscore"}})
    predictor, card = model_of(plan(recipe, [grid]))
    found = segment(stack(grid)[0], predictor, card)
    assert set(np.unique(found.labels)) <= {0, 1, 2}
    columns = found.columns
    whole = columns["class"] == "whole"
    assert found.count == columns["lesion"][whole].max()
    assert columns["voxels"][whole][0] == (found.labels > 0).sum()
    assert columns["volume_ml"][whole][0] == pytest.approx((found.labels > 0).sum() * 2 / 1000)

    bound = columns["volume_mm3"][columns["lesion"] > 0].min() + 1
    less = parse_recipe({**card.recipe.model_dump(), "data": {**data, "min_lesion_mm3": bound}})
    without_specks = segment(stack(grid)[0], predictor, card.model_copy(update={"recipe": less}))
    np.testing.assert_array_equal(without_specks.labels, found.labels)
    large = (columns["lesion"] == 0) | (columns["volume_mm3"] >= bound)
    assert 2 < large.sum() < len(large)
    np.testing.assert_array_equal(without_specks.columns["voxels"], columns["voxels"][large])


def test_what_stands_in_unlabelled_slices_changes_no_bit_of_a_patch():
    volume, labels = stack()
    drawn = keep_slices(labels.astype(np.int32), "z", (4, 11))
    case = make_case(volume, Annotation(drawn, "instances", GRID), CELLS)
    target = case.target.clone()
    target[:3, torch.from_numpy(drawn == -1)] = 0.7
    other = replace(case, target=target)
    for index in range(6):
        mine, theirs = (Patches([c], CELLS)[index][1] for c in (case, other))
        assert torch.equal(mine[3:], theirs[3:])
        for value in range(3):
            exists = mine[3 + value] > 0
            assert torch.equal(mine[value][exists], theirs[value][exists])
    assert (case.target[3:, [0, 7, 20]] == 0).all()


def test_outlines_in_single_planes_teach_to_find_objects_of_a_stack():
    grid = Grid((24, 40, 40), (2.0, 1.0, 1.0), "um")
    settings = {"patch": 20, "batch": 4, "epochs": 3, "steps_per_epoch": 30, "learning_rate": 1e-2, "ema_decay": 0.95}
    recipe = {"data": {"dims": 3, "slices": "z"}, "network": {"widths": [8, 16]}, "train": settings}
    stacks = [make_stack(seed, StackSettings(shape=grid.shape, spacing=grid.spacing, diameter=10)) for seed in range(4)]
    planned = plan(parse_recipe(recipe), [grid])
    cases = [
        make_case(
            Volume(image[None], grid),
            Annotation(keep_slices(labels.astype(np.int32), "z", (3, 9, 15, 21)), "instances", grid),
            planned,
        )
        for image, labels in stacks
    ]
    model = train(cases[:2], cases[2:3], planned)
    # The figures of the card are those of sections in the planes that were outlined.
    assert model.card.validation["f1_50"] > 0.3
    image, labels = stacks[3]
    found = Segmenter(model).segment(Volume(image[None], grid))
    assert score_instances([labels.astype(np.int32)], [found.labels]).as_figures()["f1_50"] > 0.25
