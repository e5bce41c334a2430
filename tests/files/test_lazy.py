"""Images read region by region: each region is that of the image in memory, with the same grid, channels and notes."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import InputError, NoteCode, note_code
from biounet.files import ReadOptions, can_open_lazy, open_lazy, read_volume
from biounet.files.lazy.zarr_chunks import ZarrChunks

STACK = np.random.default_rng(0).integers(0, 60_000, (5, 3, 70, 90)).astype(np.uint16)  # z, c, y, x
GREY = np.repeat(STACK[0, 0, :, :, None] >> 8, 3, -1).astype(np.uint8)


def write_tiff(pixels, **how):
    return lambda path: tifffile.imwrite(path, pixels, **how)


def write_zarr(version, shards=None, **how):
    def write(path):
        array = zarr.create_array(
            path, shape=STACK.shape, chunks=(2, 1, 16, 32), shards=shards, dtype="u2", zarr_format=version, **how
        )
        array[:, :, :40] = STACK[:, :, :40]

    return write


def write_ome_zarr(version, **omero):
    """Write an image of one level, as the specification has it."""

    def write(path):
        group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
        array = group.create_array("0", shape=STACK.shape, chunks=(1, 1, 32, 32), dtype="u2")
        array[...] = STACK
        axes = [{"name": "z", "type": "space", "unit": "micrometer"}, {"name": "c", "type": "channel"}]
        axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
        scale = [{"type": "scale", "scale": [2.0, 1.0, 0.5, 0.5]}]
        levels = [{"path": "0", "coordinateTransformations": scale}]
        names = {"omero": {"channels": [{"label": name} for name in ("DAPI", "GFP", "RFP")]}}
        ome = {"version": version, "multiscales": [{"axes": axes, "datasets": levels}], **names, **omero}
        group.attrs.update(ome if version == "0.4" else {"ome": ome})

    return write


def write_nifti(slope, inter):
    def write(path):
        image = nibabel.Nifti1Image(STACK[:, 0].T.astype(np.int16), np.diag([-1, 1, 2, 1]))
        image.header.set_slope_inter(slope, inter)
        nibabel.save(image, path)

    return write


def write_npy(pixels):
    return lambda path: np.save(path, pixels)


CHANNELS = ReadOptions(axes="ZCYX", dims=3, channel=1, measure=("all",))
FILES = {
    "tiles.ome.tif": (write_tiff(STACK, metadata={"axes": "ZCYX"}, tile=(16, 32), compression="zlib"), CHANNELS),
    "plane.ome.tif": (
        write_tiff(STACK, metadata={"axes": "ZCYX"}, tile=(16, 32), bigtiff=True),
        ReadOptions(plane=2),
    ),
    "project.ome.tif": (write_tiff(STACK, metadata={"axes": "ZCYX"}, tile=(16, 32)), ReadOptions(project="max")),
    "mean.ome.tif": (write_tiff(STACK, metadata={"axes": "ZCYX"}, tile=(16, 32)), ReadOptions(project="mean")),
    "imagej.tif": (write_tiff(STACK, imagej=True, metadata={"axes": "ZCYX"}), CHANNELS),
    "frame.tif": (write_tiff(STACK[:, 0], imagej=True, metadata={"axes": "TYX"}), ReadOptions(frames=3)),
    "strips.tif": (write_tiff(STACK[0, 0], compression="zlib", rowsperstrip=7, predictor=2), ReadOptions()),
    "big_endian.tif": (write_tiff(STACK[0, 0].astype(">u2"), byteorder=">"), ReadOptions()),
    "big_endian_tiles.tif": (
        write_tiff(STACK[0, 0].astype(">u2"), byteorder=">", tile=(16, 16), compression="zlib"),
        ReadOptions(),
    ),
    "separate.tif": (
        write_tiff(
            STACK[0, :, :64, :64], photometric="rgb", planarconfig="separate", tile=(16, 16), compression="zlib"
        ),
        ReadOptions(axes="CYX"),
    ),
    "turned.tif": (
        write_tiff(STACK[0, 0], tile=(16, 32), extratags=[(274, 3, 1, 6, True)]),
        ReadOptions(),
    ),
    "white.tif": (
        write_tiff(GREY[..., 0], photometric="miniswhite", tile=(16, 16), software="other", metadata=None),
        ReadOptions(),
    ),
    "mask.tif": (write_tiff(STACK[0, 0] > 9000, compression="zlib", rowsperstrip=8), ReadOptions()),
    "colours.tif": (write_tiff(GREY[:, ::-1] ^ GREY // 2 * [0, 1, 2], photometric="rgb"), ReadOptions(inputs=1)),
    "jpeg.tif": (write_tiff(GREY, photometric="rgb", tile=(32, 32), compression="jpeg"), ReadOptions(channel="red")),
    "grey.tif": (write_tiff(GREY, photometric="rgb", tile=(32, 32), compression="zlib"), ReadOptions(inputs=1)),
    "v2.zarr": (write_zarr(2), CHANNELS),
    "v2_nested.zarr": (write_zarr(2, chunk_key_encoding={"name": "v2", "separator": "/"}), CHANNELS),
    "v3.zarr": (write_zarr(3), CHANNELS),
    "shards.zarr": (write_zarr(3, (4, 1, 32, 64)), ReadOptions(axes="ZCYX", dims=2, plane=4)),
    "named.zarr": (write_zarr(3, dimension_names=["z", "c", "y", "x"]), ReadOptions(dims=3)),
    "0.4.ome.zarr": (write_ome_zarr("0.4"), ReadOptions(dims=3, channel="GFP", measure=("all",))),
    "0.5.ome.zarr": (write_ome_zarr("0.5"), ReadOptions(plane=1, channel="gfp")),
    "unscaled.nii": (write_nifti(1, 0), ReadOptions(dims=3)),
    "scaled.nii": (write_nifti(0.37, -12.5), ReadOptions(dims=3)),
    "array.npy": (write_npy(STACK), CHANNELS),
    "fortran.npy": (write_npy(np.asfortranarray(STACK)), CHANNELS),
    "half.npy": (write_npy(STACK[0, 0].astype(np.float16)), ReadOptions()),
}


@cache
def read_both(path, options):
    return read_volume(path, options), open_lazy(path, options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lazy")
    for name, (write, _) in FILES.items():
        write(folder / name)
    return folder


def regions(shape):
    return st.tuples(
        *(st.integers(0, n - 1).flatmap(lambda a, n=n: st.integers(a + 1, n).map(lambda b: slice(a, b))) for n in shape)
    )


@pytest.mark.parametrize("name", FILES)
def test_what_is_said_of_an_image_is_what_reading_it_says(folder, name):
    options = FILES[name][1]
    volume, image = read_volume(folder / name, options), open_lazy(folder / name, options)
    assert (image.grid, image.grid.header, image.notes) == (volume.grid, volume.grid.header, volume.notes)
    assert (image.channels, image.channel_names) == (volume.channels, volume.channel_names)
    assert image.dtype == volume.array.dtype
    assert image.measured == {name: channel.dtype for name, channel in volume.measured.items()}
    assert len(image.chunks) == len(image.grid.shape)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_region_is_that_of_the_image_in_memory(folder, name, data):
    options = FILES[name][1]
    volume, image = read_both(folder / name, options)
    image = pickle.loads(pickle.dumps(image))
    volume = volume.frame(0) if volume.times else volume
    region = data.draw(regions(volume.grid.shape))
    pixels = image.read(region)
    np.testing.assert_array_equal(pixels, volume.array[(slice(None), *region)], strict=True)
    for channel, measured in image.read_measured(region).items():
        np.testing.assert_array_equal(measured, volume.measured[channel][region], strict=True)
    value = image.constant_value(region)
    assert value is None or all((channel == one).all() for channel, one in zip(pixels, value, strict=True))


def test_files_of_one_channel_each_are_one_image(folder):
    names = ("strips.tif", "big_endian.tif")
    options = ReadOptions(channels=("a", "b"), measure=("b",), channel="a")
    for chosen in (ReadOptions(), options):
        volume = read_volume([folder / name for name in names], chosen)
        image = open_lazy([folder / name for name in names], chosen)
        region = (slice(3, 60), slice(8, 70))
        np.testing.assert_array_equal(image.read(region), volume.array[(slice(None), *region)])
        assert image.channel_names == volume.channel_names
        assert [*image.read_measured(region)] == [*volume.measured]


def test_threads_read_one_image(folder):
    name = "tiles.ome.tif"
    image, volume = open_lazy(folder / name, CHANNELS), read_volume(folder / name, CHANNELS)
    slabs = [(slice(0, 5), slice(y, y + 10), slice(0, 90)) for y in range(0, 70, 10)] * 4
    with ThreadPoolExecutor(4) as pool:
        for slab, pixels in zip(slabs, pool.map(image.read, slabs), strict=True):
            np.testing.assert_array_equal(pixels, volume.array[(slice(None), *slab)])


@pytest.mark.parametrize("name", ["v2.zarr", "v2_nested.zarr", "v3.zarr", "shards.zarr"])
def test_absent_chunks_are_the_fill_value_and_are_counted(folder, name):
    options = FILES[name][1]
    image = open_lazy(folder / name, options)
    (note,) = [note for note in image.notes if note_code(note) == NoteCode.CHUNKS_ABSENT]
    assert note.startswith("54 of 135 chunks are absent and read as 0: ")  # rows from 48 on, of chunks of 16
    before = (slice(0, 5),) * (image.grid.dims - 2)
    assert image.constant_value((*before, slice(48, 70), slice(0, 90))) == (0,) * image.channels
    assert image.constant_value((*before, slice(47, 70), slice(0, 90))) is None


def test_a_damaged_chunk_is_named(tmp_path):
    for name, version, shards in (("a.zarr", 2, None), ("b.zarr", 3, None), ("c.zarr", 3, (2, 1, 32, 64))):
        write_zarr(version, shards)(tmp_path / name)
        image = open_lazy(tmp_path / name, CHANNELS)
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file() and path.name[0] in "0123456789"]
        for path in files:
            content = bytearray(path.read_bytes())
            content[: len(content) // 3] = bytes(len(content) // 3)
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"chunk 0/1/0/0 (in shard c/0/1/0/0 )?cannot be decoded") as caught:
            image.read((slice(0, 1), slice(0, 3), slice(0, 4)))
        assert "\n" not in str(caught.value)
        assert "copy this file again" in str(caught.value)


def test_a_damaged_tile_is_named(tmp_path):
    FILES["tiles.ome.tif"][0](tmp_path / "a.ome.tif")
    image = open_lazy(tmp_path / "a.ome.tif", CHANNELS)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        page = tif.pages[4]
        offset, count = page.dataoffsets[7], page.databytecounts[7]
    with (tmp_path / "a.ome.tif").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    image.read((slice(0, 1), slice(0, 70), slice(0, 90)))
    with pytest.raises(InputError, match="tile 7 of 15 of page 4, at row 32 and column 32, cannot be decoded"):
        image.read((slice(1, 2), slice(0, 70), slice(0, 90)))


def test_pixels_that_are_no_numbers_are_an_error_where_they_are_read(tmp_path):
    pixels = np.ones((40, 40), np.float32)
    pixels[30, 5] = np.nan
    np.save(tmp_path / "a.npy", pixels)
    image = open_lazy(tmp_path / "a.npy")
    image.read((slice(0, 30), slice(0, 40)))
    with pytest.raises(InputError, match="1 of 400 pixels are NaN"):
        image.read((slice(30, 40), slice(0, 40)))


def test_formats_of_whole_images_are_refused_with_a_way_out(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    nibabel.save(image, tmp_path / "a.nii.gz")
    nibabel.save(image, tmp_path / "a.nii")
    assert can_open_lazy(tmp_path / "a.nii")
    assert not can_open_lazy(tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"has to be read as a whole .*OME-Zarr"):
        open_lazy(tmp_path / "a.nii.gz", ReadOptions(dims=3))


@pytest.mark.parametrize("shards", [None, (4, 1, 32, 64)])
def test_what_is_absent_is_counted_by_what_is_there(tmp_path, monkeypatch, shards):
    """As of 100 gigapixels in 10 million chunks of which hardly one is there: nothing is done for each."""
    write_zarr(3, shards)(tmp_path / "a.zarr")
    asked = []
    encode = ZarrChunks._file_of_shard
    monkeypatch.setattr(ZarrChunks, "_file_of_shard", lambda self, shard: asked.append(shard) or encode(self, shard))
    assert ZarrChunks.open(tmp_path / "a.zarr").find_absent().count == 54
    zarr.create_array(tmp_path / "b.zarr", shape=(320_000, 320_000), chunks=(100, 100), dtype="u1")
    (tmp_path / "b.zarr" / "c" / "7").mkdir(parents=True)
    for name in ("8", "junk", "3200", "09"):  # one chunk, and files that are none
        (tmp_path / "b.zarr" / "c" / "7" / name).write_bytes(b"")
    asked.clear()
    absent = ZarrChunks.open(tmp_path / "b.zarr").find_absent()
    assert (absent.count, absent.total) == (3200**2 - 1, 3200**2)
    assert absent.first == ((0, 0), (0, 1), (0, 2))
    assert len(asked) < 10
