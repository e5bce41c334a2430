"""A model is called with whatever holds images, and gives a list of results."""

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import biounet
from biounet.api import BatchKeywords, ImageKeywords, Keywords, Segmenter
from biounet.api.keywords import parse_keywords
from biounet.batch import BatchOptions
from biounet.cli import segmenting
from biounet.core import InputError, SettingsError, sample_folder
from biounet.core.recipe import parse_recipe
from biounet.files import ReadOptions, read_volume
from biounet.network import Card, Model, build_network, initialise_weights, output_channels
from biounet.segmentation import SegmentOptions
from support.images import discs

IMAGE, _ = discs((64, 72), 6, 1)


@pytest.fixture(scope="module")
def model(untrained) -> Segmenter:
    return Segmenter(untrained)


@pytest.fixture
def spoilt(few) -> Path:
    """A folder of three images and a file that is none."""
    (few / "broken.tif").write_bytes(b"II*\0 and no more")
    return few


def names(results):
    return [result.name for result in results]


def test_the_example_that_everybody_knows_runs_word_for_word(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (tmp_path / "path" / "to").mkdir(parents=True)
    picture = read_volume(sample_folder() / "images" / "nuclei.tif").array[0]
    scaled = (255 * (picture / picture.max())).astype(np.uint8)
    Image.fromarray(scaled).save(tmp_path / "path" / "to" / "image.jpg", quality=95)
    program = "\n".join(
        [
            "import biounet",
            'model = biounet.load("nuclei")',
            'results = model("path/to/image.jpg")',
            "results[0].show()",
            "print(results.counts.sum())",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 20 < int(done.stdout) < 50
    assert Path(done.stderr.strip().rpartition(" ")[2]).is_file()


def test_whatever_holds_images_is_taken(model, few):
    folder, pattern = str(few), str(few / "*.tif")
    first, second = few / "a.tif", str(few / "b.tif")
    array, volume = tifffile.imread(first), read_volume(first)
    assert names(model(first)) == ["a.tif"]
    assert names(model(folder)) == ["a.tif", "b.tif", "deep/c.tif"]
    assert names(model(pattern)) == ["a.tif", "b.tif"]
    assert names(model([second, first, second])) == ["b.tif", "a.tif", "b.tif"]
    assert sorted(names(model(few.glob("*.tif")))) == ["a.tif", "b.tif"]
    assert names(model([second, few / "deep"])) == ["b.tif", "c.tif"]
    assert names(model([array, first, volume])) == ["image_0", "a.tif", "a.tif"]
    assert len(model(array)) == len(model(volume)) == len(model({"DAPI": first})) == 1
    expected = model.segment(first)
    for image in (array, volume, {"DAPI": first}, {"DAPI": array}, first):
        assert np.array_equal(model(image)[0].labels, expected.labels)


def test_files_of_one_name_are_told_apart_by_their_folders(model, few):
    for folder in ("p1", "p2"):
        (few / folder).mkdir()
        tifffile.imwrite(few / folder / "f.tif", IMAGE)
    assert names(model([few / "p2" / "f.tif", few / "p1" / "f.tif"])) == ["p2/f.tif", "p1/f.tif"]


@pytest.mark.parametrize("images", [3, None, [3], [[IMAGE]], [], b"a.tif", {}, {1: IMAGE}, [None]])
def test_what_is_no_image_is_refused(model, images):
    with pytest.raises(SettingsError):
        model(images)


def test_one_channel_of_a_dict_is_chosen_by_name(model):
    other = IMAGE[::-1].copy()
    chosen = model({"GFP": other, "DAPI": IMAGE}, channel="DAPI", spacing=0.5)[0]
    assert np.array_equal(chosen.labels, model.segment(IMAGE).labels)
    assert chosen.volume.grid.spacing == (0.5, 0.5)
    with pytest.raises(InputError, match=r"channels GFP, DAPI, the model .* expects 1"):
        model({"GFP": other, "DAPI": IMAGE})
    with pytest.raises(InputError, match=r"no channel is called 'RFP' .*the channels are GFP, DAPI"):
        model({"GFP": other, "DAPI": IMAGE}, channel="RFP")
    with pytest.raises(InputError, match=r"DAPI: an array of shape \(2, 64, 72\) has 2 channels"):
        model({"DAPI": np.stack([IMAGE, IMAGE])})


def test_the_channels_of_a_model_go_in_its_order(tmp_path):
    recipe = parse_recipe({"network": {"widths": [4, 4]}, "data": {"channels": ["red", "green"]}})
    network = build_network(recipe)
    initialise_weights(network, 0)
    card = Card(recipe=recipe, inputs=("red", "green"), outputs=output_channels(recipe))
    two = Segmenter(Model(network.eval(), card))
    green = IMAGE[::-1].copy()
    result = two({"Green": green, "Red": IMAGE})[0]
    assert np.array_equal(result.volume.array, np.stack([IMAGE, green]))
    with pytest.raises(InputError, match="Green: not on the grid of Red: 63 x 72 voxels"):
        two({"Green": green[1:], "Red": IMAGE})
    for name, array in {"c1_green.tif": green, "c1_red.tif": IMAGE, "c2_red.tif": IMAGE, "c2_green.tif": green}.items():
        tifffile.imwrite(tmp_path / name, array)
    cases = two(sorted(tmp_path.glob("*.tif")))
    assert names(cases) == ["c1", "c2"]
    assert np.array_equal(cases[1].labels, result.labels)


def test_the_first_error_ends_a_call_unless_it_is_to_be_skipped(model, spoilt, caplog):
    with pytest.raises(InputError, match=r"broken\.tif.*errors='skip'"):
        model(spoilt)
    with pytest.raises(InputError) as alone:
        model(spoilt / "broken.tif")
    assert "skip" not in str(alone.value)
    results = model(spoilt, errors="skip")
    assert names(results) == ["a.tif", "b.tif", "deep/c.tif"]
    assert [failed.name for failed in results.failed] == ["broken.tif"]
    assert "left out" in caplog.text
    assert "broken.tif" in caplog.text
    assert results.counts.index.tolist() == ["a.tif", "b.tif", "deep/c.tif", "broken.tif"]
    assert results.counts.isna().tolist() == [False, False, False, True]
    assert "1 failed" in repr(results)
    assert "broken.tif" in results._repr_html_()
    with pytest.raises(InputError, match=r"broken\.tif"):
        model([spoilt / "broken.tif"], errors="skip")
    with pytest.raises(InputError, match=r"image_1: 2 pixels are NaN"):
        model([IMAGE, np.where(np.arange(72) < 2, np.nan, 1.0)[None, :]])
    with pytest.raises(SettingsError, match="errors 'ignore'"):
        model(spoilt, errors="ignore")


def test_a_stream_makes_one_result_at_a_time(model, spoilt, monkeypatch):
    made, done = [], model.segment(IMAGE)
    monkeypatch.setattr(Segmenter, "_segment_one", lambda self, image, name, choices: made.append(name) or done)
    stream = model([IMAGE, IMAGE, IMAGE], stream=True)
    assert made == []
    next(stream)
    assert made == ["image_0"]
    assert len(list(stream)) == 2


@pytest.mark.parametrize("image", [IMAGE, "a.tif"], ids=["array", "file"])
def test_keywords_mean_the_same_for_arrays_and_files(model, few, image):
    image = few / image if isinstance(image, str) else tifffile.imread(few / "a.tif")
    plain, coarse = model(image, spacing=0.5)[0], model(image, spacing=0.65)[0]
    assert coarse.volume.grid.spacing == (0.65, 0.65)
    ratio = coarse.table["area_um2"] / plain.table["area_um2"]
    assert np.allclose(ratio, (0.65 / 0.5) ** 2)
    assert np.array_equal(model(image, block=64)[0].labels, plain.labels)
    for keywords, cause in [
        ({"channel": 1}, "no channel 1: there is one"),
        ({"channel": "GFP"}, "no channel is called 'GFP'"),
        ({"axes": "ZYX"}, "axes ZYX do not fit"),
        ({"plane": 3}, "no plane 3: there is one"),
        ({"diameter": -1}, "diameter -1: a positive number"),
        ({"spacing": 0}, "positive numbers"),
        ({"project": "max"}, "project 'max'"),
        ({"min_size": "3 apples"}, "min_size"),
        ({"foreground": 1.5}, "foreground 1.5: a number from 0 to 1"),
        ({"diametre": 3}, r"no keyword is called 'diametre' \(hint: did you mean diameter\?\)"),
        ({"options": 3}, "options are SegmentOptions, not int"),
    ]:
        with pytest.raises((InputError, SettingsError), match=cause):
            model(image, **keywords)


def test_options_hold_where_no_keyword_says_otherwise(untrained):
    asked = parse_keywords(
        {"diameter": 11, "block": None}, untrained.card, SegmentOptions(block=64, diameter=9)
    ).segment
    assert asked == SegmentOptions(block=64, diameter=11)


def test_every_choice_of_reading_and_segmenting_is_a_keyword():
    """A new field gets its line in `Keywords`, unless it is none that a user chooses."""
    reading = {field.name for field in fields(ReadOptions)} - {"dims", "limit", "inputs"}
    segmenting = {field.name for field in fields(SegmentOptions)} - {"label"}
    assert {*Keywords.__annotations__} == reading | segmenting
    assert {*ImageKeywords.__annotations__} == {*Keywords.__annotations__, "unit"}
    batch = {field.name for field in fields(BatchOptions)} - {"read", "segment", "readers", "skipped", "on_parts"}
    exports = {"export", "columns"}
    assert {*BatchKeywords.__annotations__} == {*Keywords.__annotations__, "unit"} | batch | exports


def test_keywords_are_the_options_of_the_command():
    others = {"images", "model", "out", "dry_run", "quiet", "json_lines"}
    assert {*inspect.signature(segmenting.segment).parameters} - others == {*BatchKeywords.__annotations__}


def test_files_of_channels_are_joined_where_channels_are_chosen(model, tmp_path):
    for name, image in {"x_DAPI": IMAGE, "x_GFP": IMAGE[::-1], "y_DAPI": IMAGE, "y_GFP": IMAGE}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
    assert len(model(tmp_path)) == 4
    for images in (tmp_path, sorted(tmp_path.glob("*.tif"))):
        results = model(images, channel="DAPI", measure="GFP")
        assert names(results) == ["x", "y"]
        assert "intensity_mean_GFP" in results.table.columns
        assert np.array_equal(results[0].labels, model(IMAGE)[0].labels)


@pytest.mark.parametrize(
    ("function", "kind"),
    [(Segmenter.__call__, ImageKeywords), (Segmenter.segment, ImageKeywords), (biounet.segment_folder, BatchKeywords)],
)
def test_keywords_are_shown_one_by_one(function, kind):
    shown = inspect.signature(function).parameters
    assert {*kind.__annotations__} <= {*shown}
    assert "keywords" not in shown
    assert shown["min_size"].annotation == "float | str | None"


def test_colours_at_the_end_of_an_array_are_not_taken_for_rows(model):
    picture = np.stack([IMAGE] * 3, axis=-1)
    with pytest.raises(InputError, match=r"shape \(64, 72, 3\) has 64 channels.*axes='YXS' if it ends with colours"):
        model(picture)
    with pytest.raises(InputError, match=r"has 3 channels.*expects 1 .*list\(array\) if these are images"):
        model(np.stack([IMAGE] * 3))
    assert len(model(list(np.stack([IMAGE] * 3)))) == 3
    small = (IMAGE // 256 + np.arange(72)).astype(np.uint8)
    coloured = Image.fromarray(np.stack([small, small[::-1], small], axis=-1))
    assert np.array_equal(model(coloured, channel="red")[0].labels, model(small)[0].labels)
    assert np.array_equal(model(picture, axes="YXS", channel=0)[0].labels, model(IMAGE)[0].labels)
