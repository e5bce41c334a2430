"""OME-XML that lists several images: what is read belongs to the image that is read, and complete images pass."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from biounet.core import InputError
from biounet.files import ReadOptions, inspect_volume, read_volume
from biounet.files.read import open_raw

HEAD = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
RNG = np.random.default_rng(0)


def image_xml(number, shape, size, name="", channel="c", files=(), z=1):
    """One image, whose planes lie in `files`, pairs of the first page and an UUID; none: in the file itself."""
    sizes = f'PhysicalSizeX="{size}" PhysicalSizeY="{size}"' if size else ""
    data = "".join(
        f'<TiffData IFD="{page}" FirstZ="{n}" PlaneCount="1">{uuid}</TiffData>' for n, (page, uuid) in enumerate(files)
    )
    return (
        f'<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" DimensionOrder="XYZCT" Type="uint16"'
        f' SizeX="{shape[1]}" SizeY="{shape[0]}" SizeZ="{z}" SizeC="1" SizeT="1" {sizes}>'
        f'<Channel ID="Channel:{number}:0" SamplesPerPixel="1" Name="{channel}"/>{data}</Pixels></Image>'
    )


def uuid(name, text):
    return f'<UUID FileName="{name}">urn:uuid:{text}</UUID>'


def write(path, arrays, xml, own="", reduced=()):
    root = f'{HEAD} UUID="urn:uuid:{own}">' if own else f"{HEAD}>"
    with tifffile.TiffWriter(path) as tif:
        for n, array in enumerate(arrays):
            tif.write(
                array,
                description=f"{root}{xml}</OME>" if n == 0 else None,
                metadata=None,
                photometric="minisblack",
                subfiletype=int(n in reduced),
            )
    return path


def pixels(*shape):
    return RNG.integers(0, 60000, shape).astype(np.uint16)


BESIDE = ["label", "Macro", "overview", "thumbnail", "Label Image", "macro image"]
BESIDE += [
    "macro mask image",
    "Overview Scan",
    "overview_1",
    "slide overview",
    "Image:label",
    "label.tif - label",
    "barcode",
]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", [*BESIDE, "reduced"])
def test_pixel_size_and_channels_are_those_of_the_image_read(tmp_path, name, first):
    shapes, sizes = [(9, 7), (40, 32)], [8.0, 0.5]
    names, channels = [name, "slide"], ["camera", "DAPI"]
    order = [0, 1] if first else [1, 0]
    arrays = [pixels(*shapes[n]) for n in order]
    xml = "".join(
        image_xml(place, shapes[n], sizes[n], names[n], channels[n], [(place, "")]) for place, n in enumerate(order)
    )
    reduced = [order.index(0)] if name == "reduced" else []
    path = write(tmp_path / "x.ome.tif", arrays, xml, reduced=reduced)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array[0], arrays[order.index(1)])
    assert volume.grid.spacing == (0.5, 0.5)
    assert open_raw(path).channel_names == ("DAPI",)


@pytest.mark.parametrize("name", ["GFP label", "label-free", "scan 2", "Image", ""])
def test_an_image_of_any_other_name_is_never_skipped(tmp_path, name):
    arrays = [pixels(9, 7), pixels(40, 32)]
    xml = image_xml(0, (9, 7), 8.0, name, files=[(0, "")]) + image_xml(1, (40, 32), 0.5, "slide", files=[(1, "")])
    with pytest.raises(InputError, match="holds 2 images"):
        read_volume(write(tmp_path / "x.ome.tif", arrays, xml))


@pytest.mark.parametrize("sizes", [('SizeX="7"', 'SizeX="7.0"'), ('SizeZ="1"', 'SizeZ=""'), ('IFD="0"', 'IFD="first"')])
def test_xml_with_invalid_sizes_is_ignored_and_noted(tmp_path, sizes):
    array = pixels(9, 7)
    volume = read_volume(write(tmp_path / "x.tif", [array], image_xml(0, (9, 7), 0.5, files=[(0, "")]).replace(*sizes)))
    np.testing.assert_array_equal(volume.array[0], array)
    assert volume.grid.spacing is None
    assert "OME-XML is damaged and ignored" in volume.notes


@pytest.mark.parametrize("first", ["slide", "label"])
def test_a_grey_image_next_to_one_in_colour_is_complete(tmp_path, first):
    arrays = {"slide": pixels(40, 32), "label": RNG.integers(0, 255, (9, 7, 3)).astype(np.uint8)}
    order = [first, *(name for name in arrays if name != first)]
    xml = "".join(image_xml(n, arrays[name].shape[:2], 0.5, name, files=[(n, "")]) for n, name in enumerate(order))
    colours = f'Name="label"><Pixels ID="Pixels:{order.index("label")}" DimensionOrder="XYZCT" Type="uint16"'
    assert colours in xml
    head, tail = xml.split(colours)
    tail = tail.replace('SizeC="1"', 'SizeC="3"', 1).replace('SamplesPerPixel="1"', 'SamplesPerPixel="3"', 1)
    path = tmp_path / "x.ome.tif"

    def rewrite(pages):
        with tifffile.TiffWriter(path) as tif:
            for n, name in enumerate(order[:pages]):
                about = f"{HEAD}>{head}{colours.replace('uint16', 'uint8')}{tail}</OME>" if n == 0 else None
                kind = "rgb" if name == "label" else "minisblack"
                tif.write(arrays[name], description=about, metadata=None, photometric=kind)

    rewrite(2)
    np.testing.assert_array_equal(read_volume(path).array[0], arrays["slide"])
    rewrite(1)
    with pytest.raises(InputError, match=r"truncated: 4 planes declared, 1 pages are there"):
        read_volume(path)


def test_an_image_without_pages_is_not_counted(tmp_path):
    array = pixels(9, 7)
    xml = image_xml(0, (90, 70), 8.0, "elsewhere", z=5) + image_xml(1, (9, 7), 0.5, "here", files=[(0, "")])
    volume = read_volume(write(tmp_path / "x.ome.tif", [array], xml))
    np.testing.assert_array_equal(volume.array[0], array)
    assert volume.grid.spacing == (0.5, 0.5)
    alone = read_volume(write(tmp_path / "y.ome.tif", [array], image_xml(0, (9, 7), 0.5)))
    assert alone.grid.spacing == (0.5, 0.5)


def test_an_image_called_label_is_read_if_it_is_the_only_one(tmp_path):
    array = pixels(9, 7)
    path = write(tmp_path / "x.ome.tif", [array], image_xml(0, (9, 7), 0.5, "label", files=[(0, "")]))
    np.testing.assert_array_equal(read_volume(path).array[0], array)


def test_xml_of_another_image_gives_no_pixel_size(tmp_path):
    path = write(tmp_path / "x.ome.tif", [pixels(9, 7)], image_xml(0, (90, 70), 0.5, files=[(0, "")]))
    volume = read_volume(path)
    assert volume.grid.spacing is None
    assert "pixel size unknown: OME-XML is about an image of 70 x 90 pixels" in volume.notes


def test_the_resolution_tag_is_that_of_the_image_read(tmp_path):
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as tif:
        for array, per_cm, reduced in ((pixels(9, 7), 2500, 1), (pixels(40, 32), 20000, 0)):
            tif.write(array, resolution=(per_cm, per_cm), resolutionunit=3, metadata=None, subfiletype=reduced)
    volume = read_volume(path)
    assert volume.array.shape == (1, 40, 32)
    assert volume.grid.spacing == (0.5, 0.5)


def positions(sizes, own="{n}"):
    """OME-XML of one image for each file, as Micro-Manager writes it into each of them."""
    return "".join(
        image_xml(n, (9, 7), size, f"Pos{n}", files=[(0, uuid(f"Pos{n}.ome.tif", own.format(n=n)))])
        for n, size in enumerate(sizes)
    )


@pytest.mark.parametrize("own", ["", "{n}"], ids=["known by its name", "known by its identifier"])
def test_each_position_is_a_complete_image(tmp_path, own):
    sizes = [0.4, 0.5, 0.6]
    for n, size in enumerate(sizes):
        array = pixels(9, 7)
        path = write(tmp_path / f"Pos{n}.ome.tif", [array], positions(sizes), own.format(n=n))
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array[0], array)
        assert volume.grid.spacing == (size, size)
        if own:  # and whatever it is called
            renamed = path.rename(tmp_path / f"renamed{n}.tif")
            assert read_volume(renamed).grid.spacing == (size, size)


def test_a_single_file_may_be_renamed(tmp_path):
    path = write(tmp_path / "new.tif", [pixels(9, 7)], positions([0.4]))
    assert read_volume(path).grid.spacing == (0.4, 0.4)


def test_a_file_without_an_image_of_its_own_is_refused(tmp_path):
    path = write(tmp_path / "other.tif", [pixels(9, 7)], positions([0.4, 0.5]))
    with pytest.raises(InputError, match=r"several files: Pos0\.ome\.tif, Pos1\.ome\.tif"):
        read_volume(path)


@given(st.data())
def test_only_files_without_all_planes_of_their_image_are_refused(tmp_path_factory, data):
    """Any number of images of any number of planes, each plane in any file: this file's is read, or a part."""
    files, sizes = data.draw(st.integers(1, 3)), data.draw(st.lists(st.sampled_from([0.4, 0.5, 0.6]), min_size=1))
    where = [data.draw(st.lists(st.integers(0, files - 1), min_size=1, max_size=3)) for _ in sizes]
    arrays, xml, inside = [], "", []
    for number, (size, planes) in enumerate(zip(sizes, where, strict=True)):
        if 0 in planes:
            inside.append(number)
        here = []
        for file in planes:
            here.append((len(arrays) if file == 0 else 0, uuid(f"{file}.tif", file)))
            arrays += [pixels(9, 7)] if file == 0 else []
        xml += image_xml(number, (9, 7), size, f"Pos{number}", f"ch{number}", here, z=len(planes))
    path = tmp_path_factory.mktemp("any") / "0.tif"
    write(path, arrays or [pixels(9, 7)], xml, own="0")
    options = ReadOptions(dims=3, spacing=None)
    if not inside or any(set(where[number]) != {0} for number in inside):
        with pytest.raises(InputError, match="several files"):
            read_volume(path, options)
    elif len(inside) > 1:
        with pytest.raises(InputError, match=f"holds {len(inside)} images"):
            inspect_volume(path, options)
    elif len(where[inside[0]]) > 1:
        assert open_raw(path).channel_names == (f"ch{inside[0]}",)
        np.testing.assert_array_equal(read_volume(path, options).array[0], arrays)
    else:
        assert read_volume(path).grid.spacing == (sizes[inside[0]],) * 2
