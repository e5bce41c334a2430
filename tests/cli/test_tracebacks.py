"""No exception but ours reaches a user, and no name of a file steers a terminal."""

import json
import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biounet.core import Grid, InputError, Recipe, SettingsError, printable, read_recipe
from biounet.core.recipe import parse_recipe
from biounet.network import save_model
from support.commands import without_notes

QUICK = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
CODES = {0, 2, 3, 4, 5, 130, 143}


def refused(found, *, code):
    """Whether a command ended with one line of ours."""
    there, _, err = found
    assert there == code
    assert "defect of biounet" not in err
    assert err.startswith("ERROR ")
    assert len(err.splitlines()) == 1
    return True


NAMES = ["\x1b]0;pwned\a\x1b[31mred", "a\nERROR z.tif: forged", "\u202efit", "\x85\u2028\u2029\r\x0b\x0c", "ok\udcff"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_of_files_are_safe_to_print(biounet, untrained, tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    tifffile.imwrite(folder / f"{name}.tif", np.zeros((16, 16), np.uint8))
    (folder / f"{name}bad.tif").write_bytes(b"junk")
    save_model(untrained, tmp_path / "m.safetensors")
    code, out, err = biounet("segment", folder, "-m", "m.safetensors", "--jobs", 1)
    assert code == 3
    assert (len(out.splitlines()), len(err.splitlines())) == (3, 1)  # the last is on pixel sizes
    code, more, errors = biounet("segment", folder, "-m", "m.safetensors", "--dry-run")
    assert (len(more.splitlines()), len(errors.splitlines())) == (2, 1)
    code, named, last = biounet("segment", folder / f"{name}none.tif", "-m", "m.safetensors")
    assert (named, len(last.splitlines())) == ("", 1)
    for text in (out, err, more, errors, last):
        assert all(line == printable(line) for line in text.split("\n"))


@given(st.text())
def test_printable_text_is_one_line_and_keeps_letters(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Zl", "Zp", "Cs"}
    plain = "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")
    assert unicodedata.normalize("NFC", plain) == plain or printable(plain)


@pytest.mark.parametrize("text", ["é µm.tif", "細胞.tif", "می\u200cخواهم", "a b\u00a0c", "👩\u200d🔬"])
def test_letters_of_all_languages_are_kept(text):
    assert printable(text) == text


def test_an_error_is_one_line_for_any_path():
    assert str(InputError("no", path="a\nb\x1b")) == r"a\nb\x1b: no"


def test_a_full_disk_is_one_line(biounet, untrained, tmp_path):
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("needs /dev/full")
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((16, 16), np.uint8))
    save_model(untrained, tmp_path / "m.safetensors")
    code = "from biounet.cli import main; main()"
    arguments = [sys.executable, "-c", code, "segment", "x.tif", "-m", "m.safetensors", "--jobs", "1"]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(arguments, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        shown = "ERROR what is shown cannot be written: No space left on device\n"
        assert (done.returncode, without_notes(done.stderr)) == (5, shown)
        done = subprocess.run(arguments, cwd=tmp_path, stdout=full, stderr=full, check=False)
        assert done.returncode == 5


@pytest.mark.parametrize("given", [".", "", "\0", "=", "a=b", "[", "*", "**", "x" * 5000, "~", "²", "/dev/null"])
def test_any_path_as_an_image_is_one_line_or_a_row(biounet, untrained, tmp_path, given):
    save_model(untrained, tmp_path / "m.safetensors")
    found = biounet("segment", given, "-m", "m.safetensors", "--jobs", 1)
    assert found[0] in (2, 4)
    assert refused(found, code=found[0])


def test_the_current_folder_is_a_folder(biounet, untrained, tmp_path):
    save_model(untrained, tmp_path / "m.safetensors")
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((16, 16), np.uint8))
    assert biounet("segment", ".", "-m", "m.safetensors", "--jobs", 1)[0] == 0


def test_a_csv_with_an_impossible_file_name_is_refused(biounet, tmp_path):
    (tmp_path / "long.csv").write_text("image,label\n" + "x" * 5000 + ",y\n" + "x\0,y\n")
    code, _, err = biounet("check", "long.csv")
    assert code == 2
    assert "does not exist" in err
    assert "defect" not in err


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"channel_names": ' * 50_000, "[]", "\0", '{"channel_names": [1]}']
)
def test_an_invalid_dataset_json_is_refused(biounet, untrained, tmp_path, content):
    (tmp_path / "ds" / "imagesTr").mkdir(parents=True)
    (tmp_path / "ds" / "labelsTr").mkdir()
    tifffile.imwrite(tmp_path / "ds" / "imagesTr" / "a_0000.tif", np.zeros((16, 16), np.uint8))
    (tmp_path / "ds" / "dataset.json").write_text(content)
    save_model(untrained, tmp_path / "m.safetensors")
    for arguments in (["check", "ds"], ["segment", "ds", "-m", "m.safetensors", "--jobs", 1]):
        code, _, err = biounet(*arguments)
        assert code in CODES
        assert "defect" not in err


@pytest.mark.parametrize(
    "text", ["a=" + "[" * 50_000 + "]" * 50_000, "a=" + "{b=" * 5000, "\0", "a.b=1\na=2", "=" * 99]
)
def test_a_recipe_that_is_not_toml_is_refused(biounet, tmp_path, text):
    (tmp_path / "r.toml").write_text(text)
    assert refused(biounet("train", "r.toml", "--images", "i", "--labels", "l", "-o", "m"), code=2)


ABSURD = [
    "train.seed=-1",
    "train.seed=99999999999999999999999",
    "train.minutes=inf",
    "train.minutes=nan",
    "train.epochs=99999999999999999999",
    "train.learning_rate=inf",
    "train.patch=999999999",
    "train.patch=[999999999,16]",
    "train.batch=999999999",
    "data.pixel_size_um=1e-9",
    "data.pixel_size_um=nan",
    "data.voxel_size=[1e-9,1,1]",
    "data.unlabelled=99999999999999999999",
    "data.channels=[]",
    "data.slice_numbers=[-1]",
    "network.widths=[1000000,1000000]",
    "network.widths=[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]",
    "network.kernels=[[2,2]]",
    "network.fold=[1000,1000]",
    "augment.blur=1e9",
    "augment.scale=inf",
    "targets.border_sigma=1e30",
    "label.min_size=inf",
    "loss.dice=nan",
]


@pytest.mark.parametrize("line", ABSURD)
def test_an_absurd_setting_is_refused_by_its_name(biounet, tmp_path, line):
    name, _, value = line.partition("=")
    section, _, key = name.partition(".")
    (tmp_path / "r.toml").write_text(f"[{section}]\n{key}={value}\n")
    found = biounet("train", "r.toml", "--images", "i", "--labels", "l", "-o", "m")
    assert refused(found, code=2)
    assert key in found[2]


def test_a_working_grid_beyond_all_images_is_refused(biounet, tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "l").mkdir()
    calibration = {"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um", "axes": "YX"}}
    for name in "ab":
        tifffile.imwrite(tmp_path / "i" / f"{name}.tif", np.arange(1024, dtype="u2").reshape(32, 32), **calibration)
        tifffile.imwrite(
            tmp_path / "l" / f"{name}.tif",
            (np.arange(1024, dtype="u2").reshape(32, 32) > 500).astype("u2"),
            **calibration,
        )
    (tmp_path / "r.toml").write_text("[data]\npixel_size_um=1e-5\n")
    found = biounet("train", "r.toml", "--images", "i", "--labels", "l", "-o", "m", "--epochs", 1)
    assert refused(found, code=4)
    assert "this model works at 1e-05" in found[2]


def _leaves(kind, section=()):
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, type(Recipe()).__mro__[1]):
            yield from _leaves(inner, (*section, name))
        else:
            yield (*section, name)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 2**40), max_size=4),
    st.lists(st.lists(st.integers(-1, 20), max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.lists(st.integers(0, 3), max_size=2), max_size=2),
)


@QUICK
@given(st.lists(st.tuples(st.sampled_from(list(_leaves(Recipe))), VALUES), min_size=1, max_size=3))
def test_any_value_of_any_setting_is_accepted_or_refused(drawn):
    data: dict[str, dict[str, object]] = {}
    for (*section, key), value in drawn:
        place = data.setdefault(section[0], {}) if section else data
        place[key] = value
    try:
        recipe = parse_recipe(data)
    except SettingsError:
        pass
    else:
        json.loads(recipe.model_dump_json())
        assert parse_recipe(recipe.model_dump()) == recipe


def test_shipped_recipes_are_within_the_bounds():
    from biounet.core.resources import recipes

    assert [read_recipe(path).name for path in recipes().values()] == list(recipes())


TYPED = """. ² -1 0 1 nan inf 1e400 1,2 1,1 999999999999999999999999999999 x YX CZYX ٣ 1/2 ²/² cpu cuda cuda:99 meta
x.tif in m.safetensors nowhere/x = 0=x.tif ["""
WORDS = st.sampled_from([*TYPED.split(), "", "a\nb"])
OPTIONS = {
    "segment": [
        "--axes",
        "--spacing",
        "--channel",
        "--plane",
        "--diameter",
        "--block",
        "--jobs",
        "--shard",
        "--device",
    ],
    "check": ["--recipe", "--val-images", "--val-labels", "--axes", "--spacing", "--channel", "--plane"],
    "evaluate": ["--recipe", "--tolerance"],
    "verify": ["--images", "--model", "--device", "--jobs", "--fraction"],
    "train": ["--minutes", "--epochs", "--from", "--device", "--val-images", "--axes", "--spacing", "--channel"],
}


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_arguments_give_one_line_and_an_exit_code(biounet, untrained, tmp_path, data):
    if not (tmp_path / "x.tif").exists():
        tifffile.imwrite(tmp_path / "x.tif", np.zeros((16, 16), np.uint8))
        (tmp_path / "in").mkdir()
        save_model(untrained, tmp_path / "m.safetensors")
    name = data.draw(st.sampled_from(list(OPTIONS)))
    given = data.draw(st.lists(st.tuples(st.sampled_from(OPTIONS[name]), WORDS), max_size=2))
    first = data.draw(WORDS)
    places = {
        "segment": [first, "-m", "m.safetensors", "--dry-run"],
        "check": [first, *data.draw(st.lists(WORDS, max_size=1))],
        "evaluate": [first, data.draw(WORDS)],
        "verify": [first],
        "train": ["nuclei_2d", "--images", first, "--labels", data.draw(WORDS), "-o", "new.safetensors"],
    }
    arguments = [name, *places[name], *(word for pair in given for word in pair)]
    code, out, err = biounet(*arguments)
    assert code in CODES, (arguments, err)
    assert "defect of biounet" not in err, (arguments, err)
    assert "Traceback" not in out + err


def test_an_annotation_of_a_plane_beside_a_volume_is_a_problem(biounet, tmp_path):
    for name, array in (("i", np.arange(4096, dtype="u2").reshape(4, 32, 32)), ("l", np.eye(32, dtype="u2"))):
        (tmp_path / name).mkdir()
        axes = {"axes": "ZYX"[-array.ndim :]}
        tifffile.imwrite(tmp_path / name / "a.tif", array, imagej=True, metadata=axes)
    for slices in ('slices="z"\n', 'slices="z"\nslice_numbers=[0,3]\n', 'slices="x"\nslice_numbers=[99]\n', ""):
        (tmp_path / "r.toml").write_text(f'[data]\ndims=3\nkind="classes"\nclasses=["c"]\n{slices}')
        code, _, err = biounet("check", "i", "l", "--recipe", "r.toml")
        assert code == 2
        assert "a.tif" in err
        assert "defect" not in err


def test_invalid_grids_raise_errors_of_biounet():
    with pytest.raises(InputError):
        Grid((0, 2))
