"""Files appear whole or not at all, with the same bytes each time, and the exact pixel size of their source."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import Grid, InputError, MachineError, Volume
from biounet.files import ReadOptions, atomic_path, inspect_volume, read_labels, read_volume, write_labels, write_text

LABELS = np.array([[0, 1, 1, 2], [3, 3, 0, 2], [0, 0, 0, 4]], np.int32)
MANY = LABELS * 70_000
UM = Grid((3, 4), (0.325, 0.65), "um")
whole = st.integers(1, 2**32 - 1)


@pytest.mark.parametrize("labels", [LABELS, MANY, LABELS.astype(np.uint8)], ids=["16 bits", "32 bits", "from uint8"])
@pytest.mark.parametrize("grid", [UM, Grid((3, 4)), Grid((3, 4), (0.5, 0.5), "mm")], ids=["um", "none", "mm"])
def test_written_labels_are_read_on_the_grid_of_their_source(tmp_path, labels, grid):
    path = tmp_path / "x_labels.tif"
    write_labels(path, labels, grid)
    np.testing.assert_array_equal(read_labels(path), labels)
    expected = None if grid.spacing is None else tuple(s * (1000 if grid.unit == "mm" else 1) for s in grid.spacing)
    assert inspect_volume(path).grid.spacing == expected
    assert inspect_volume(path).dtype == ("uint32" if labels.max() > 65535 else "uint16")


@given(
    pixels=whole, length=whole, decimal=st.integers(10**4, 2**32 - 1), depth=st.floats(1e-3, 999), wide=st.booleans()
)
@settings(max_examples=50, deadline=None)
def test_pixel_sizes_are_written_to_the_last_bit(tmp_path_factory, pixels, length, decimal, depth, wide):
    # A TIFF tag is a ratio of two numbers of 32 bits: `length / pixels`, or a decimal of up to 429.4967295.
    path = tmp_path_factory.getbasetemp() / "x.tif"
    from_tag, size = min(max(length / pixels, 1e-5), 900.0), decimal / 10**7
    write_labels(path, MANY if wide else LABELS, Grid((3, 4), (from_tag, size), "um"))
    assert inspect_volume(path).grid.spacing == (from_tag, size)
    stack = np.stack([LABELS, LABELS[::-1]]) * (70_000 if wide else 1)
    write_labels(path, stack, Grid((2, 3, 4), (depth, from_tag, size), "um"))
    volume = read_volume(path, ReadOptions(dims=3))
    assert volume.grid.spacing == (depth, from_tag, size)
    np.testing.assert_array_equal(volume.array[0], stack)


@pytest.mark.parametrize("factor", [1, 70_000])
def test_written_volumes_are_read_back(tmp_path, factor):
    labels = np.stack([LABELS, LABELS[::-1]]) * factor
    grid = Grid(labels.shape, (2.5, 0.325, 0.325), "um")
    write_labels(tmp_path / "x.tif", labels, Volume(np.zeros((1, *labels.shape)), grid))
    np.testing.assert_array_equal(read_labels(tmp_path / "x.tif"), labels)
    assert read_volume(tmp_path / "x.tif", ReadOptions(dims=3)).grid == grid


def test_fiji_and_qupath_find_their_tags(tmp_path):
    write_labels(tmp_path / "x.tif", LABELS, UM)
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        assert tif.is_imagej
        assert tif.imagej_metadata["unit"] == "um"
        assert tif.pages.first.tags.valueof("XResolution") == (20, 13)
    write_labels(tmp_path / "x.tif", MANY, UM)
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "YX"
        assert 'PhysicalSizeX="0.65" PhysicalSizeXUnit="&#181;m"' in tif.ome_metadata


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)], ids=["image", "stack"])
def test_fiji_shows_labels_in_colours(tmp_path, shape):
    """As ImageJ saves a look-up table of an image of 16 bits: 256 colours in the tag ColorMap of the first page."""
    write_labels(tmp_path / "x.tif", np.broadcast_to(LABELS, shape), Grid(shape))
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        tag, page = tif.pages.first.tags["ColorMap"], tif.pages.first
        assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK  # to others the values are no colours
        assert (tag.count, tag.dtype) == (768, tifffile.DATATYPE.SHORT)
        assert all("ColorMap" not in page.tags for page in tif.pages[1:])
        colours = np.array(tag.value).reshape(3, 256).T >> 8
    assert colours[0].tolist() == [0, 0, 0]
    assert len(np.unique(colours, axis=0)) == 256
    assert (colours[1:].max(axis=1) > 80).all()
    np.testing.assert_array_equal(read_labels(tmp_path / "x.tif"), np.broadcast_to(LABELS, shape))


@pytest.mark.parametrize(("count", "shown"), [(4, 255), (255, 255), (300, 300), (65_535, 65_535)])
def test_fiji_shows_the_range_of_the_labels(tmp_path, count, shown):
    """Up to 255 objects each has a colour of its own; of more, ImageJ spreads the colours over all."""
    write_labels(tmp_path / "x.tif", np.minimum(LABELS, 1) * count, UM)
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        assert (tif.imagej_metadata["min"], tif.imagej_metadata["max"]) == (0, shown)


def test_a_pixel_of_unknown_size_is_not_taken_for_one_micrometre(tmp_path):
    """Bio-Formats, which QuPath reads with, takes the 1 of the TIFF tags for µm unless the unit is another."""
    write_labels(tmp_path / "x.tif", LABELS, Grid((3, 4)))
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        assert tif.imagej_metadata["unit"] == "pixel"
        assert tif.pages.first.tags.valueof("XResolution") == (1, 1)
        assert tif.pages.first.tags.valueof("ResolutionUnit") == tifffile.RESUNIT.NONE
    assert inspect_volume(tmp_path / "x.tif").grid.spacing is None


@pytest.mark.parametrize("labels", [LABELS, MANY], ids=["16 bits", "32 bits"])
def test_equal_labels_give_equal_bytes(tmp_path, labels):
    for name in ("a.tif", "b.tif"):
        write_labels(tmp_path / name, labels, UM)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize(
    "wrong", [LABELS.astype(float), -LABELS, LABELS > 0, LABELS[:2], LABELS.astype(np.int64) << 31], ids=str
)
def test_invalid_label_images_are_not_written(tmp_path, wrong):
    with pytest.raises(InputError):
        write_labels(tmp_path / "x.tif", wrong, UM)
    assert not list(tmp_path.iterdir())


def test_text_has_the_same_bytes_everywhere(tmp_path):
    write_text(tmp_path / "x.csv", "area_µm2\n1\n")
    assert (tmp_path / "x.csv").read_bytes() == "area_µm2\n1\n".encode()


def fail_while_writing(path, error):
    with atomic_path(path) as part:
        part.write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), InputError("x"), OSError(errno.ENOSPC, "x")])
def test_an_error_leaves_only_the_old_file(tmp_path, error):
    path = tmp_path / "x.txt"
    write_text(path, "old")
    expected = MachineError if type(error) is OSError else type(error)
    with pytest.raises(expected):
        fail_while_writing(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_disk_errors_have_a_hint(tmp_path):
    with pytest.raises(MachineError, match="make the folder first"):
        write_text(tmp_path / "none" / "x.txt", "x")
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="is a file and no folder"):
        write_text(tmp_path / "file" / "x.txt", "x")
    (tmp_path / "file").unlink()
    with pytest.raises(MachineError, match="free some space") as caught:
        fail_while_writing(tmp_path / "x", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert caught.value.path == tmp_path / "x"


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("µ" * 120, "𝔘" * 62):
        path = tmp_path / f"{name}.txt"
        write_text(path, "x")
        assert path.read_text() == "x"
    with pytest.raises(MachineError, match="shorter name"):
        write_text(tmp_path / ("x" * 300), "x")


def test_a_killed_write_does_not_block_the_next(tmp_path):
    code = (
        "import os, sys, signal\nfrom pathlib import Path\nfrom biounet.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as part:\n"
        "    part.write_bytes(b'half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "x.tif"
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not path.exists()
    assert all(left.name.startswith(".") and left.suffix == ".part" for left in tmp_path.iterdir())


def test_importing_loads_no_slow_package():
    code = "import sys, biounet.files; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "monai", "pandas", "pyarrow", "PIL", "scipy", "skimage", "matplotlib"} & set(loaded)
