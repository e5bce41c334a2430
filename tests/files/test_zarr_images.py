"""A folder of Zarr is one image: found, read, hashed and paired like a file; and what is wrong with it is said."""

import json
import shutil

import numpy as np
import pytest
import zarr

from biounet.core import InputError
from biounet.files import (
    IsolatedReader,
    ReaderPool,
    ReadOptions,
    find_images,
    find_pairs,
    hash_image,
    image_state,
    inspect_volume,
    open_lazy,
    read_labels,
    read_volume,
    resolve_images,
)

PIXELS = np.random.default_rng(0).integers(1, 200, (40, 50)).astype(np.uint8)


def write_image(path, pixels=PIXELS, **attributes):
    """Write an OME-Zarr 0.5 in micrometres."""
    group = zarr.create_group(path, zarr_format=3)
    group.create_array("0", data=pixels, chunks=(16, 16))
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5]}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}], **attributes}
    return group


def write_labels_below(path, *names):
    zarr.open_group(path).create_group("labels").attrs["ome"] = {"version": "0.5", "labels": list(names)}
    for number, name in enumerate(names, 1):
        write_image(path / "labels" / name, np.full_like(PIXELS, number), **{"image-label": {}})


def test_a_store_is_one_image_and_what_is_in_it_none(tmp_path):
    write_image(tmp_path / "in/a.ome.zarr")
    write_image(tmp_path / "in/b.zarr")
    write_image(tmp_path / "in/unnamed")
    write_image(tmp_path / "in/a_labels.ome.zarr")
    np.save(tmp_path / "in/c.npy", PIXELS)
    expected = ["a", "b", "c", "unnamed"]
    assert [image.stem for image in find_images([tmp_path / "in"])] == expected
    assert [image.stem for image in find_images([str(tmp_path / "in" / "*.zarr")])] == ["a", "b"]
    assert [image.stem for image in find_images([str(tmp_path / "in" / "**" / "*")])] == ["a", "b", "c"]
    (named,) = find_images([tmp_path / "in/a_labels.ome.zarr"])
    assert named.relative.name == "a_labels.ome.zarr"


def test_a_store_is_read_in_another_process_with_its_state(tmp_path):
    path = tmp_path / "a.ome.zarr"
    write_image(path)
    info = inspect_volume(path)
    assert (info.axes, info.axes_source, info.grid.spacing, info.grid.unit) == ("YX", "OME-Zarr", (0.5, 0.5), "um")
    with IsolatedReader() as reader:
        volume, (state,) = reader.read_hashed(path)
    np.testing.assert_array_equal(volume.array[0], PIXELS)
    assert (state.size, state.mtime_ns, state.sha256) == (*image_state(path), hash_image(path))
    chunk = path / "0/c/1/1"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    assert hash_image(path) != state.sha256
    assert image_state(path)[1] > state.mtime_ns


def test_labels_are_those_of_a_store_or_in_it(tmp_path):
    write_image(tmp_path / "a.ome.zarr")
    write_image(tmp_path / "a_labels.ome.zarr", PIXELS, **{"image-label": {}})
    (pair,) = find_pairs(tmp_path)
    assert (pair.image.name, pair.label.name) == ("a.ome.zarr", "a_labels.ome.zarr")
    np.testing.assert_array_equal(read_labels(pair.label), PIXELS)
    write_labels_below(tmp_path / "a.ome.zarr", "cells")
    assert (read_labels(tmp_path / "a.ome.zarr") == 1).all()
    shutil.rmtree(tmp_path / "a.ome.zarr/labels")
    write_labels_below(tmp_path / "a.ome.zarr", "cells", "nuclei")
    with pytest.raises(InputError, match=r"holds 2 label images: cells, nuclei .*labels/cells"):
        read_labels(tmp_path / "a.ome.zarr")
    assert (read_labels(tmp_path / "a.ome.zarr/labels/nuclei") == 2).all()


@pytest.mark.parametrize("layout", ["series", "plate"])
def test_images_of_a_set_are_scenes(tmp_path, layout):
    root = zarr.create_group(tmp_path / "set.zarr", zarr_format=3)
    if layout == "series":
        root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
        places = ["0", "1"]
    else:
        root.attrs["ome"] = {"version": "0.5", "plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}
        places = ["A/1/0", "B/2/0"]
        for well in ("A/1", "B/2"):
            well_group = zarr.create_group(tmp_path / "set.zarr" / well, zarr_format=3)
            well_group.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}]}}
    for number, place in enumerate(places):
        write_image(tmp_path / "set.zarr" / place, PIXELS + number)
    with ReaderPool() as readers:
        found = resolve_images(find_images([tmp_path]), ReadOptions(), readers)
    assert [image.scene for image in found] == ["0", "1"]
    for scene in ("1", places[1]):
        image = open_lazy(found[0].path, ReadOptions(scene=scene))
        np.testing.assert_array_equal(image.read((slice(0, 40), slice(0, 50)))[0], PIXELS + 1)
    with pytest.raises(InputError, match="holds 2 images"):
        read_volume(tmp_path / "set.zarr")


def damage(change):
    """Return what changes the metadata of a group."""

    def apply(path):
        file = path / "zarr.json"
        content = json.loads(file.read_text())
        change(content["attributes"]["ome"])
        file.write_text(json.dumps(content))

    return apply


def unknown_codec(path):
    file = path / "0/zarr.json"
    content = json.loads(file.read_text())
    content["codecs"][-1] = {"name": "acme", "configuration": {}}
    file.write_text(json.dumps(content))


DAMAGED = {
    "no multiscales": (damage(lambda ome: ome.pop("multiscales")), "without 'multiscales'.* name an image or array"),
    "empty multiscales": (damage(lambda ome: ome.update(multiscales=[])), "'multiscales' lists no levels"),
    "no levels": (damage(lambda ome: ome["multiscales"][0].update(datasets=[])), "'multiscales' lists no levels"),
    "level 0 missing": (lambda path: shutil.rmtree(path / "0"), "level of full resolution, '0', is not there"),
    "unknown axis": (
        damage(lambda ome: ome["multiscales"][0]["axes"][0].update(name="angle")),
        "axes angle, x are not understood",
    ),
    "too many axes": (
        damage(lambda ome: ome["multiscales"][0]["axes"].append({"name": "z"})),
        "axes y, x, z, and an array",
    ),
    "outside": (damage(lambda ome: ome["multiscales"][0]["datasets"][0].update(path="../b")), "lies outside of it"),
    "scale of text": (
        damage(lambda ome: ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0].update(scale=["a", 1])),
        "cannot be read",
    ),
    "metadata cut": (lambda path: (path / "zarr.json").write_text('{"attributes": {'), "no JSON"),
    "metadata gone": (lambda path: (path / "zarr.json").unlink(), "without metadata of Zarr"),
    "unknown codec": (unknown_codec, "acme"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_wrong_with_a_store_is_one_line(tmp_path, name):
    change, cause = DAMAGED[name]
    write_image(tmp_path / "a.ome.zarr")
    change(tmp_path / "a.ome.zarr")
    for read in (read_volume, open_lazy, inspect_volume):
        with pytest.raises(InputError, match=cause) as caught:
            read(tmp_path / "a.ome.zarr")
        assert "\n" not in str(caught.value)
        assert str(tmp_path / "a.ome.zarr") in str(caught.value)
