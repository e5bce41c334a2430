"""Training: repeatable, resumable to the bit, honest about what goes wrong."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch

from biounet.api import volume_from_array
from biounet.core import (
    UNLABELLED,
    Annotation,
    Grid,
    InputError,
    ModelError,
    Stopped,
    TrainingError,
    find_warnings,
)
from biounet.core.recipe import parse_recipe
from biounet.files import Pair, find_pairs
from biounet.network import Model, load_model, save_model
from biounet.training import (
    Progress,
    TrainCallbacks,
    TrainOptions,
    found_statistics,
    hold_out,
    load_cases,
    make_case,
    train,
)
from biounet.training.patches import Patches, fit_patch, step_batches
from biounet.training.targets.layout import TargetLayout, make_target
from support.images import discs
from support.trainings import TINY, tiny_recipe, weights_hash

LAYOUT = TargetLayout.from_recipe(tiny_recipe())


@pytest.fixture(scope="module")
def cases(cell_folder: Path) -> list:
    return list(load_cases(find_pairs(cell_folder / "images", cell_folder / "labels"), tiny_recipe()))


@pytest.fixture(scope="module")
def unbroken(cases: list) -> Model:
    """A training of 8 steps that nothing interrupted."""
    return train(cases[:4], cases[4:], tiny_recipe())


def test_the_same_settings_give_the_same_weights(cases, unbroken):
    again = train(cases[:4], cases[4:], tiny_recipe())
    other = train(cases[:4], cases[4:], tiny_recipe(train={"seed": 1}))
    assert weights_hash(again) == weights_hash(unbroken) != weights_hash(other)


@pytest.mark.parametrize("patch", [32, 96, 112])
def test_a_patch_that_is_not_turned_wastes_nothing_on_what_lies_beyond_the_border(cases, patch):
    patches = Patches(cases, tiny_recipe(train={"patch": patch}, augment={"affine_fraction": 0.0}))
    inside = min(1.0, (96 / patch) ** 2)  # the fields have 96 x 96 pixels, all of them labelled
    for index in range(20):
        _, target, _ = patches[index]
        assert (LAYOUT.split(target).weights[0] > 0).float().mean() == pytest.approx(inside)


def test_an_interrupted_training_ends_with_the_weights_of_an_unbroken_one(cases, unbroken, tmp_path):
    class Killed(BaseException):
        pass

    def kill(progress: Progress) -> None:
        if progress.step == 6:
            raise Killed

    checkpoint = tmp_path / "m.checkpoint.pt"
    options = TrainOptions(checkpoint=checkpoint)
    with pytest.raises(Killed):
        train(cases[:4], cases[4:], tiny_recipe(), options, callbacks=TrainCallbacks(kill))
    resumed = train(cases[:4], cases[4:], tiny_recipe(), TrainOptions(checkpoint=checkpoint, resume=True))
    assert weights_hash(resumed) == weights_hash(unbroken)
    assert [e["step"] for e in resumed.card.history] == [4, 8]
    assert [e["loss"] for e in resumed.card.history] == [e["loss"] for e in unbroken.card.history]


@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_a_stopped_training_loses_no_step(cases, unbroken, tmp_path, at):
    stop, checkpoint = Event(), tmp_path / "m.checkpoint.pt"

    def ask(progress: Progress) -> None:
        if progress.step == at:
            stop.set()

    options = TrainOptions(checkpoint=checkpoint)
    with pytest.raises(Stopped, match=f"{at} of 8 steps done"):
        train(cases[:4], cases[4:], tiny_recipe(), options, callbacks=TrainCallbacks(ask, stop=stop))
    first: list[Progress] = []
    options = replace(options, resume=True)
    resumed = train(cases[:4], cases[4:], tiny_recipe(), options, callbacks=TrainCallbacks(first.append))
    assert first[0].step == at + 1
    assert weights_hash(resumed) == weights_hash(unbroken)
    assert [e["loss"] for e in resumed.card.history] == [e["loss"] for e in unbroken.card.history]


def test_a_checkpoint_of_other_settings_or_a_damaged_one_is_refused(cases, tmp_path):
    checkpoint = tmp_path / "m.checkpoint.pt"
    train(cases[:2], [], tiny_recipe(), TrainOptions(checkpoint=checkpoint))
    with pytest.raises(ModelError, match="other settings"):
        train(
            cases[:2], [], tiny_recipe(train={"learning_rate": 1e-4}), TrainOptions(checkpoint=checkpoint, resume=True)
        )
    torch.save({"weights": torch.zeros(3)}, tmp_path / "another.pt")
    torch.save(Path("x"), tmp_path / "code.pt")  # to make a Path, code would have to run
    another, code, whole = ((path.read_bytes()) for path in (tmp_path / "another.pt", tmp_path / "code.pt", checkpoint))
    for content in (b"", b"some text", another, code, whole[:500], whole[:-1]):
        checkpoint.write_bytes(content)
        with pytest.raises(ModelError, match="not a readable checkpoint"):
            train(cases[:2], [], tiny_recipe(), TrainOptions(checkpoint=checkpoint, resume=True))


def test_the_number_of_workers_changes_nothing(cases):
    alone = Patches(cases, tiny_recipe())
    loader = torch.utils.data.DataLoader(alone, batch_sampler=islice(step_batches(3, 2), 2), num_workers=2)
    for step, (images, targets, numbers) in zip((3, 4), loader, strict=True):
        for place in range(2):
            image, target, number = alone[2 * step + place]
            assert torch.equal(images[place], image)
            assert torch.equal(targets[place], target)
            assert numbers[place] == number


@pytest.mark.parametrize("tracked", [True, False])
def test_a_setting_of_monai_for_the_whole_process_stays_as_it_was(cases, tracked):
    import monai.data

    before = monai.data.get_track_meta()
    try:
        monai.data.set_track_meta(tracked)
        patches = Patches(cases, tiny_recipe())
        image, target, _ = patches[0]
        assert type(image) is type(target) is torch.Tensor
        assert monai.data.get_track_meta() is tracked
        seen = []
        callbacks = TrainCallbacks(lambda progress: seen.append(monai.data.get_track_meta()))
        recipe = tiny_recipe(train={"epochs": 1, "steps_per_epoch": 2, "minutes": None})
        train(cases[:1], [], recipe, callbacks=callbacks)
        assert seen == [tracked] * 2
    finally:
        monai.data.set_track_meta(before)


def test_a_loss_that_is_no_number_stops_and_names_the_images(cases):
    bad = replace(cases[0], image=torch.full_like(cases[0].image, float("nan")), name="/data/broken.tif")
    with pytest.raises(TrainingError, match=r"broken\.tif") as caught:
        train([bad], [], tiny_recipe())
    assert "\n" not in str(caught.value)


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(InputError, match="no annotated image"):
        train([], [], tiny_recipe())


def test_training_learns(cases):
    seen: list[Progress] = []
    recipe = tiny_recipe(
        train={"epochs": 5, "steps_per_epoch": 40, "batch": 4, "patch": 64, "learning_rate": 1e-2, "ema_decay": 0.9}
    )
    model = train(cases[:5], cases[5:], recipe, callbacks=TrainCallbacks(seen.append))
    losses = [epoch["loss"] for epoch in model.card.history]
    assert losses[-1] < 0.6 * losses[0]
    assert model.card.validation["f1_50"] > 0.8
    assert model.card.validation["count_mae"] <= 2


def test_training_goes_on_from_a_model(cases, tmp_path):
    first = train(cases[:4], [], tiny_recipe())
    save_model(first, tmp_path / "m.safetensors")
    start = load_model(tmp_path / "m.safetensors")
    wider = tiny_recipe(network={"widths": [16, 24]}, train={"epochs": 1, "learning_rate": 1e-12})
    second = train(cases[:4], [], wider, start=start)
    assert second.card.recipe.network == first.card.recipe.network
    for name, value in first.network.state_dict().items():
        if "running" not in name and value.is_floating_point():
            torch.testing.assert_close(second.network.state_dict()[name], value, atol=1e-6, rtol=1e-5)
    classes = parse_recipe({**TINY, "data": {"kind": "classes", "classes": ["a"]}})
    with pytest.raises(ModelError, match="foreground, contour, distance"):
        train(cases[:4], [], classes, start=start)


def test_the_card_says_what_it_was_made_of(unbroken):
    card = unbroken.card
    assert card.pixel_size_um == pytest.approx(0.5)
    assert 9 < card.object_size_px < 15
    assert card.data["images"] == 4
    assert card.data["held_out"] == 2
    assert card.data["share"] == 1
    assert len(card.history) == 2
    assert card.versions.keys() == {"biounet", "torch", "python"}


def _sparse(seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, labels = discs((96, 96), 12, seed)
    kept = np.full_like(labels, UNLABELLED)
    kept[30:62, 20:52] = labels[30:62, 20:52]
    return image, kept


def _case_of(image: np.ndarray, labels: np.ndarray):
    return make_case(volume_from_array(image, 2), Annotation(labels, "instances", Grid(labels.shape)), tiny_recipe())


def test_patches_are_drawn_where_there_are_labels():
    case = _case_of(*_sparse(0))
    patches = Patches([case], tiny_recipe())
    for index in range(30):
        _, target, _ = patches[index]
        assert (LAYOUT.split(target).weights[0] > 0).any()


def test_what_stands_at_unlabelled_voxels_changes_no_bit_of_a_patch():
    image, labels = _sparse(0)
    target = make_target(Annotation(labels, "instances", Grid(labels.shape)), tiny_recipe(), (1.0, 1.0))
    other = target.copy()
    LAYOUT.split(torch.from_numpy(other)).values[:, torch.from_numpy(labels == UNLABELLED)] = 0.5
    case = _case_of(image, labels)
    changed = replace(case, target=torch.from_numpy(other))
    for index in range(10):
        _, mine, _ = Patches([case], tiny_recipe())[index]
        _, theirs, _ = Patches([changed], tiny_recipe())[index]
        first, second = LAYOUT.split(mine), LAYOUT.split(theirs)
        labelled = first.weights > 0
        assert torch.equal(labelled, second.weights > 0)
        assert torch.equal(first.values[labelled], second.values[labelled])


def test_small_labelled_windows_get_small_patches_and_more_of_them():
    dense, sparse = _case_of(*discs((96, 96), 12, 0)), _case_of(*_sparse(0))
    recipe = tiny_recipe(train={"patch": 64, "batch": 4})
    assert fit_patch(recipe, [dense], (4, 4)).train.patch == 64
    fitted = fit_patch(recipe, [sparse], (4, 4)).train
    assert fitted.patch == 48
    assert fitted.batch == 7


def test_the_smallest_labelled_window_gets_a_patch_that_a_recipe_may_have():
    image, labels = discs((96, 96), 12, 0)
    kept = np.full_like(labels, UNLABELLED)
    kept[40:43, 40:43] = labels[40:43, 40:43]
    assert fit_patch(tiny_recipe(train={"patch": 64}), [_case_of(image, kept)], (4, 4)).train.patch == 16


def test_a_patch_of_an_image_may_have_two_edges(cases):
    recipe = tiny_recipe(train={"patch": (32, 64), "batch": 2})
    assert fit_patch(recipe, cases, (8, 8)).train.patch == (32, 64)
    image, target, _ = Patches(cases, recipe)[0]
    assert image.shape[1:] == target.shape[1:] == (32, 64)


def test_holding_out_is_a_split():
    pairs = [Pair(Path(f"{n}.tif"), Path(f"{n}_masks.tif")) for n in range(20)]
    kept, held = hold_out(pairs, 0.1, 0)
    assert len(held) == 2
    assert sorted([*kept, *held], key=lambda p: int(p.image.stem)) == pairs
    assert hold_out(pairs[:1], 0.1, 0) == (pairs[:1], [])
    assert len(hold_out(pairs[:3], 0.1, 0)[1]) == 1
    assert hold_out(pairs, 0.0, 0)[1] == []


def test_no_training_image_is_flagged_by_its_model(segmenter, cell_folder):
    for path in sorted((cell_folder / "images").iterdir()):
        assert find_warnings(segmenter.segment(path).notes) == ()


def test_what_the_model_finds_in_its_training_images_is_no_reason_to_flag(cases):
    """Of an image full of objects at the border, and of one with tiny ones, which no other training image has."""
    recipe = tiny_recipe(train={"epochs": 1})
    model = train(cases[:3], cases[3:4], recipe)
    found = found_statistics(model, cases[:4])
    for one in found:
        for name, value in one.items():
            low, high = model.card.training_ranges[name]
            assert low <= value <= high
    assert found_statistics(model, cases[:4], deadline=0.0) == [None] * 4
