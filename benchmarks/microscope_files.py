"""Files of microscopes against the packages that read them: python benchmarks/microscope_files.py [FILE ...].

Without files it makes a plate: an ND2 of 96 positions and a LIF of 96 images with nuclei of `nuclei2d/val`, to time how
long it takes to list and to read them, and to compare GFP per nucleus with scikit-image. With files it reads each image
in them as the package does, and compares the pixels; prints a row of a Markdown table for each image.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import regionprops_table

from biounet.core import BiounetError
from biounet.files import IsolatedReader, ReaderPool, ReadOptions, find_images, read_volume, resolve_images
from biounet.files.formats.opening import list_scenes, open_raw
from biounet.measurement import MeasureOptions, measure

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.microscopes import Picture, write_lif, write_nd2

DATA = Path(__file__).parents[2] / "shared" / "data" / "nuclei2d" / "val"
POSITIONS, EDGE = 96, 512


def theirs(path: Path) -> Iterator[np.ndarray]:
    """Yield the images of a file as the package gives them."""
    if path.suffix == ".nd2":
        from nd2 import ND2File

        with ND2File(path) as nd2:
            for number in range(nd2.sizes.get("P", 1)):
                yield nd2.asarray(position=number)
    elif path.suffix in (".lif", ".lof"):
        from liffile import LifFile

        with LifFile(path) as lif:
            for image in lif.images:
                yield image.asarray()
    else:
        from czifile import CziFile

        with CziFile(path) as czi:
            for image in czi.scenes.values():
                yield image.asarray()


def compare(path: Path) -> None:
    """Print how each image of a file is read, and whether its pixels are those of the package."""
    for scene, expected in zip(list_scenes(path), theirs(path), strict=True):
        raw = open_raw(path, scene=scene.key)
        same = np.array_equal(raw.load(), expected.reshape(raw.shape))
        size = ", ".join(f"{axis} {length:.4g}" for axis, length in sorted(raw.spacing.items()))
        shape = " x ".join(map(str, raw.shape))
        names = ", ".join(raw.channel_names[:3]) + (", …" if len(raw.channel_names) > 3 else "")
        interval = "" if raw.interval is None else f"{raw.interval:.4g} s"
        cells = (path.name, str(scene), raw.axes, shape, str(raw.dtype), names, size, interval, "yes" if same else "NO")
        print(f"| {' | '.join(cells)} |")


def fields() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images of two channels and labels, again from the first when all were used."""
    pairs = [
        (read_volume(image).array[0], read_volume(DATA / "labels" / image.name).array[0])
        for image in sorted((DATA / "images").glob("*.tif"))
    ]
    whole = [pair for pair in pairs if min(pair[0].shape) >= EDGE] or pairs
    while True:
        for grey, labels in whole:
            crop = (slice(EDGE), slice(EDGE))
            grey = grey[crop].astype(np.uint16)
            yield np.stack([grey, grey[::-1, ::-1]]), labels[crop]


def timed(what: str, function: Any, *arguments: Any) -> Any:
    start = time.perf_counter()
    result = function(*arguments)
    print(f"{what}: {time.perf_counter() - start:.3f} s")
    return result


def read_plate(path: Path, readers: ReaderPool) -> None:
    """Time how a file of many images is listed and read."""
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB")
    images = timed("  listed", resolve_images, find_images([path]), ReadOptions(), readers)
    assert len(images) == POSITIONS
    with IsolatedReader() as reader:
        reader.read(path, ReadOptions(scene="0"))
        reads = [ReadOptions(scene=image.scene) for image in images]
        timed("  all headers", lambda: [reader.read_header(path, read) for read in reads])
        timed("  all pixels, with the hash of the file", lambda: [reader.read_hashed(path, read) for read in reads])
    timed("  all pixels by the package alone", lambda: [np.array(array) for array in theirs(path)])


def measure_plate(path: Path, all_labels: list[np.ndarray], pixels: list[np.ndarray]) -> None:
    """Print how far the mean of GFP in each nucleus is from that of scikit-image, at most."""
    worst, count = 0.0, 0
    for number in range(8):
        labels = all_labels[number]
        table = measure(labels, path, options=MeasureOptions(scene=number)).table
        expected = regionprops_table(labels, pixels[number][1], properties=["intensity_mean"])["intensity_mean"]
        worst = max(worst, float(np.abs(table["intensity_mean_GFP"].to_numpy() / expected - 1).max()))
        count += len(table)
    print(f"{path.name}: GFP of {count} nuclei, largest relative difference {worst:.1e}")


def main() -> None:
    if files := [Path(name) for name in sys.argv[1:]]:
        print("| file | image | axes | shape | type | channels | µm | interval | pixels of the package |")
        print("|---|---|---|---|---|---|---|---|---|")
        for file in files:
            try:
                compare(file)
            except BiounetError as error:
                print(f"| {file.name} | {error} |")
        return
    source = fields()
    made = [next(source) for _ in range(POSITIONS)]
    pixels, labels = [one[0] for one in made], [one[1] for one in made]
    um, names = {"X": 0.5, "Y": 0.5}, [f"{'ABCDEFGH'[n // 12]}{n % 12 + 1}" for n in range(POSITIONS)]
    shape = np.minimum.reduce([image.shape for image in pixels])
    pixels = [image[tuple(map(slice, shape))] for image in pixels]
    labels = [one[tuple(map(slice, shape[1:]))] for one in labels]
    with tempfile.TemporaryDirectory() as folder, ReaderPool() as readers:
        plate = Picture(np.stack(pixels), "PCYX", um, dyes=("DAPI", "GFP"))
        nd2 = write_nd2(Path(folder, "plate.nd2"), plate, tuple(names))
        pictures = {
            name: Picture(image, "CYX", um, dyes=("DAPI", "GFP")) for name, image in zip(names, pixels, strict=True)
        }
        lif = write_lif(Path(folder, "plate.lif"), pictures)
        for path in (nd2, lif):
            read_plate(path, readers)
            measure_plate(path, labels, pixels)


if __name__ == "__main__":
    main()
