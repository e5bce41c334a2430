"""Faults of files and of their names that no other test states; `stated_faults.py` says which test states which."""

import gzip
import os
import struct
import subprocess
import sys
import tracemalloc

import nibabel
import numpy as np
import pytest
import tifffile

from biounet.core import InputError
from biounet.files import ReadOptions, find_images, inspect_volume, read_volume, write_labels

GREY = np.random.default_rng(0).integers(0, 60000, (33, 47)).astype(np.uint16)
VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
VOLUME = ReadOptions(dims=3)
AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.tif"


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        read_volume(path, ReadOptions(**options))
    assert caught.value.path == path
    return str(caught.value)


def nifti(path, voxels=VOXELS, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(voxels.T, affine), path)
    return path


def test_a_codec_that_nobody_has_F011(path):
    tifffile.imwrite(path, GREY, compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages.first.tags["Compression"].overwrite(34712 + 1)
    assert "34713" in refusal(path)


@pytest.mark.parametrize(("tag", "at"), [("Compression", 0), ("StripOffsets", 2), ("StripByteCounts", 2)])
def test_a_tag_that_has_become_another_F010(path, tag, at):
    tifffile.imwrite(path, GREY, compression="zlib", metadata=None)
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        place = tif.pages.first.tags[tag].offset + at  # of its number, or of the type of its value
    for bit in range(8):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        refusal(path)


def test_a_page_of_all_the_tags_that_there_can_be_F013(path):
    tags = b"".join(struct.pack("<HHII", 40000 + n % 20000, 4, 1, n) for n in range(65535))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, 65535) + tags + bytes(4))
    refusal(path)


def test_thousands_of_pages_F013(path):
    with tifffile.TiffWriter(path) as tif:
        for _ in range(3000):
            tif.write(GREY[:2, :2].copy(), metadata=None, contiguous=False)
    assert "3000 pages" in refusal(path)


@pytest.mark.parametrize("place", ["file:///{secret}", "{secret}", "http://127.0.0.1:9/x"])
def test_an_entity_of_another_file_is_not_read_F014(tmp_path, path, place):
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden")
    xml = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "{place.format(secret=secret)}">]><OME>&e;</OME>'
    tifffile.imwrite(path, GREY, description=xml, metadata=None)
    assert "hidden" not in refusal(path)


def test_colours_and_numbers_that_are_no_intensities_F019(path):
    colours = np.zeros((8, 8, 4), np.uint8)
    tifffile.imwrite(path, colours, photometric="separated", metadata=None)
    assert "SEPARATED are not supported" in refusal(path)
    tifffile.imwrite(path, colours[..., :3].copy(), photometric="cielab", metadata=None)
    assert "CIELAB are not supported" in refusal(path)
    tifffile.imwrite(path, GREY.astype(np.complex64), metadata=None)
    assert "complex64 are not supported" in refusal(path)


def test_twelve_bits_are_read_exactly_F019(path):
    values = GREY[:8, :8] % 4096
    bits = "".join(f"{value:012b}" for value in values.ravel())
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    tags = [(256, 8), (257, 8), (258, 12), (259, 1), (262, 1), (273, 200), (277, 1), (278, 8), (279, len(packed))]
    page = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + page + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + packed)
    np.testing.assert_array_equal(read_volume(path).array[0], values)


@pytest.mark.parametrize(
    "name", ["a\nb.tif", "'\"$(x);.tif", os.fsdecode(b"\xff\xfe.tif"), "e\u0301.tif", "\u00e9.tif", "x" * 200 + ".tif"]
)
def test_any_name_is_found_and_read_F024_F104(tmp_path, name):
    tifffile.imwrite(tmp_path / "x.tif", GREY)
    (tmp_path / "x.tif").rename(tmp_path / name)
    (found,) = find_images([tmp_path])
    assert found.path.name == name
    np.testing.assert_array_equal(read_volume(found.path).array[0], GREY)


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_compressed_is_seen_and_not_believed_F030(tmp_path, packed):
    true, said = ("x.nii.gz", "y.nii") if packed else ("x.nii", "y.nii.gz")
    nifti(tmp_path / true).rename(tmp_path / said)
    np.testing.assert_array_equal(read_volume(tmp_path / said, VOLUME).array[0], VOXELS)


def test_a_gzip_that_grows_a_thousandfold_takes_no_memory_F032(tmp_path):
    path = nifti(tmp_path / "x.nii.gz")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(2**25)))
    tracemalloc.start()
    try:
        assert "holds more" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_the_sform_counts_and_both_come_back_F036(tmp_path):
    image = nibabel.Nifti1Image(VOXELS.T, None)
    image.set_sform(np.diag([0.5, 0.5, 2.0, 1.0]), 2)
    image.set_qform(np.diag([3.0, 3.0, 3.0, 1.0]), 1)
    nibabel.save(image, tmp_path / "x.nii.gz")
    volume = read_volume(tmp_path / "x.nii.gz", VOLUME)
    assert volume.grid.spacing == (2.0, 0.5, 0.5)
    (note,) = volume.notes
    assert note.startswith("sform and qform differ by up to 9.07 mm; used is the sform: aligned, RAS, voxels of 0.5 x ")
    assert "not the qform: scanner, RAS, voxels of 3 x 3 x 3 mm from (0, 0, 0)" in note
    write_labels(tmp_path / "y.nii.gz", VOXELS.astype(np.int32), volume.grid)
    written = nibabel.load(tmp_path / "y.nii.gz").header
    for name in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "pixdim"):
        np.testing.assert_array_equal(written[name], image.header[name])


@pytest.mark.parametrize("read", [read_volume, inspect_volume])
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.tif"])
def test_objects_of_python_are_no_image_F081(tmp_path, monkeypatch, read, name):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    save = np.savez if name.endswith("z") else np.save
    with (tmp_path / name).open("wb") as file:
        save(file, np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(InputError, match="not a TIFF" if name.endswith("z") else "Python objects, not an image"):
        read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("given", ["a/../x.tif", "a/../../{name}/x.tif", "a/../*.tif", "a/.."])
def test_results_stay_below_the_output_folder_F082(tmp_path, monkeypatch, given):
    (tmp_path / "a").mkdir()
    tifffile.imwrite(tmp_path / "x.tif", GREY)
    monkeypatch.chdir(tmp_path)
    for one in (given.format(name=tmp_path.name), tmp_path / given.format(name=tmp_path.name)):
        (found,) = find_images([one])
        assert found.relative.as_posix() == "x.tif"


def test_pipes_devices_and_links_that_lead_nowhere_F106(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "device.tif").symlink_to("/dev/zero")
    (tmp_path / "round.tif").symlink_to("round.tif")
    (tmp_path / "nowhere.tif").symlink_to("none")
    for name, cause in (("pipe", "not a file"), ("device", "not a file"), ("nowhere", "no such file"), ("round", "")):
        assert cause in refusal(tmp_path / f"{name}.tif")
    tifffile.imwrite(tmp_path / "x.tif", GREY)
    found = [image.path.name for image in find_images([tmp_path])]
    assert found == ["device.tif", "nowhere.tif", "pipe.tif", "round.tif", "x.tif"]


LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "comma": {"LC_ALL": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8"},
}


@pytest.mark.parametrize("locale", LOCALES.values(), ids=LOCALES.keys())
def test_any_locale_shows_any_text_F107(tmp_path, locale):
    for name in ("Zellen µ.tif", os.fsdecode(b"\xff.tif")):
        image = tmp_path / "x.tif"
        tifffile.imwrite(image, GREY + len(name), imagej=True, resolution=(2, 2), metadata={"unit": "um"})
        image.rename(tmp_path / name)
        tifffile.imwrite(image, np.pad(np.ones((9, 9), np.uint8), ((5, 19), (5, 33))))
        image.rename(tmp_path / name.replace(".tif", "_masks.tif"))
    code = "from biounet.cli import main; main()"
    command = [sys.executable, "-c", code, "check", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | locale, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"0.5 x 0.5" in done.stdout


def test_nobody_reads_what_is_printed_F107(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", GREY)
    code = "from biounet.cli import main; main()"
    command = [sys.executable, "-c", code, "check", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdout.close()
        assert b"Traceback" not in child.stderr.read()
