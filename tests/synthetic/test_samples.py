"""Samples and their generator: exact labels, the same bytes again, found wherever biounet is installed."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from biounet.core import SettingsError, builtin_models, find_recipe, sample_folder
from biounet.core.resources import recipes
from biounet.synthetic import FieldSettings, draw_field_settings, make_field

NAMES = ("nuclei", "tiny", "crowded", "dim")
MAKE = runpy.run_path(str(Path(__file__).parents[2] / "data_samples" / "make_samples.py"))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_labels_are_1_to_n_and_each_is_one_piece(seed):
    image, labels = make_field(seed, draw_field_settings(seed, (96, 128), transmitted=0.2))
    assert image.shape == labels.shape == (96, 128)
    assert image.dtype == np.uint16
    assert labels.dtype == np.int32
    assert np.array_equal(np.unique(labels[labels > 0]), np.arange(1, labels.max() + 1))
    for nucleus in range(1, labels.max() + 1):
        assert ndimage.label(labels == nucleus)[1] == 1


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_same_seed_makes_the_same_field(seed):
    look = draw_field_settings(seed, (64, 64))
    assert look == draw_field_settings(seed, (64, 64))
    first, again, other = (make_field(s, look) for s in (seed, seed, seed + 1))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


# A field that shows nothing but flat, even nuclei: what is bright is a nucleus.
PLAIN = FieldSettings(
    shape=(192, 192), clustering=0, overlap=0, dome=0, texture=0, spots=0, brightness_spread=0, diameter_spread=0,
    defocus=0, background=0, haze=0, glow=0, debris=0, unevenness=0, photons=1e6, read_noise=0, offset=0, bits=16,
)  # fmt: skip


@pytest.mark.parametrize("blur", [0.7, 1.5, 2.5])
def test_a_label_ends_at_half_of_the_maximum(blur):
    image, labels = make_field(3, replace(PLAIN, blur=blur))
    bright = image > 0.5 * PLAIN.exposure * (2**16 - 1)
    assert labels.max() > 5
    assert np.mean(bright == (labels > 0)) > 0.995


def test_transmitted_light_shows_dark_nuclei_on_bright_ground():
    image, labels = make_field(3, replace(PLAIN, absorption=0.7))
    inside, outside = np.median(image[labels > 0]), np.median(image[labels == 0])
    assert inside / outside == pytest.approx(np.exp(-0.7), abs=0.02)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_grey_values_stay_in_the_range_of_the_camera(bits):
    image, _ = make_field(0, replace(PLAIN, bits=bits, exposure=3.0, shape=(64, 64), coverage=0.4))
    assert image.max() == 2**bits - 1


def test_coverage_and_diameter_are_those_of_the_settings():
    _, labels = make_field(1, replace(PLAIN, shape=(512, 512), diameter=16, coverage=0.25))
    assert np.mean(labels > 0) == pytest.approx(0.25, abs=0.03)
    diameters = 2 * np.sqrt(np.bincount(labels.ravel())[1:] / np.pi)
    assert np.median(diameters) == pytest.approx(16, abs=1.0)


def test_a_field_without_coverage_is_empty():
    _, labels = make_field(0, replace(PLAIN, coverage=0.0))
    assert labels.max() == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    MAKE["write_samples"](folder)
    return folder


def test_making_the_samples_again_gives_the_same_bytes(made, tmp_path):
    MAKE["write_samples"](tmp_path)
    files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    assert len(files) == 2 * len(NAMES) + 1 + 2 * (3 + 6) + 3 * 3 + 2 * 8
    for path in files:
        assert (made / path).read_bytes() == (tmp_path / path).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_samples_are_made_by_the_program(made, name):
    # Not to the byte: exp and sin differ in the last bit between machines.
    for folder in ("images", "labels"):
        kept, fresh = (tifffile.imread(root / folder / f"{name}.tif") for root in (sample_folder(), made))
        assert np.mean(kept == fresh) > 0.98


@pytest.mark.parametrize("name", NAMES)
def test_expected_counts_are_those_of_the_labels(name):
    expected = json.loads((sample_folder() / "expected.json").read_text())
    labels = tifffile.imread(sample_folder() / "labels" / f"{name}.tif")
    assert expected[f"{name}.tif"]["count"] == labels.max() == len(np.unique(labels)) - 1
    assert expected[f"{name}.tif"]["tolerance"] >= 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["images", "labels"])
def test_samples_state_their_pixel_size(folder, name):
    with tifffile.TiffFile(sample_folder() / folder / f"{name}.tif") as file:
        assert file.imagej_metadata["unit"] == "um"
        assert file.pages[0].tags["XResolution"].value == (2, 1)
        assert file.series[0].axes == "YX"


def test_samples_stay_small():
    assert sum(path.stat().st_size for path in sample_folder().rglob("*.*")) < 4_500_000


def test_recipes_are_found_by_name_with_and_without_ending():
    assert {"nuclei_2d", "land_cover", "membranes", "scribbles_2d"} <= set(recipes())
    assert find_recipe("nuclei_2d") == find_recipe("nuclei_2d.toml") == recipes()["nuclei_2d"]


def test_a_file_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "nuclei_2d.toml"
    mine.write_text("")
    assert find_recipe("nuclei_2d.toml").resolve() == mine
    assert find_recipe(mine) == mine


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("nuclei2d", "'nuclei_2d'"),
        ("nuclei", "did you mean 'nuclei_2d' or 'nuclei_3d'?"),
        ("land_cove.toml", "'land_cover'"),
        ("qqqqq", "one of: brain_tumour"),
    ],
)
def test_an_unknown_recipe_names_the_nearest(asked, hint):
    with pytest.raises(SettingsError) as caught:
        find_recipe(asked)
    assert str(caught.value).startswith(f"{asked}: no such recipe")
    assert hint in caught.value.hint


def test_a_missing_path_is_not_a_name():
    with pytest.raises(SettingsError, match="no such recipe"):
        find_recipe("elsewhere/nuclei_2d.toml")


def test_builtin_models_are_model_files():
    for name, path in builtin_models().items():
        assert path.is_file()
        assert path.name == f"{name}.safetensors"
