"""Images larger than memory, made from ../shared/data and written one shard at a time, with the same bytes in each run.

python benchmarks/large_inputs.py confluent 8192 x.ome.zarr         nuclei2d/val without gaps, 8192 x 8192, uint8
python benchmarks/large_inputs.py volume 512 x.ome.zarr --times 8   nuclei3d-embryo without gaps, 8 cubes of 512, uint16
python benchmarks/large_inputs.py sparse 320000 x.ome.zarr          known nuclei far apart, all else absent, uint8

The places of the known nuclei are written to x.ome.zarr.json. Nothing holds more than a few shards in memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, find_objects

SHARD, CHUNK = 4096, 512  # pixels of a side in 2D
SHARD_3D, CHUNK_3D = 256, 64
TILE, LEAST_FOREGROUND = 128, 0.3  # of the windows that a confluent field is made of
TILE_3D, LEAST_FOREGROUND_3D = (24, 32, 32), 0.3
FADE = 0.25  # of the side of a window, over which it fades at its edges; another window is in full light there
DARK, BRIGHT = {2: 10, 3: 100}, {2: 200, 3: 600}  # background and bright nuclei, to which real images are scaled
EMBRYO_UM = (1.75, 0.8, 0.8)
SQUARE, SLOTS = 512, 3  # pixels of a scanned square of a sparse field; nuclei along each of its sides
NOISE = (10.0, 1.5)  # mean and standard deviation of the background of such a square
PEAK = 160.0  # of a nucleus above it
Block = Callable[[tuple[slice, ...]], NDArray[Any]]


def data_folder() -> Path:
    """Return the folder of real images, beside this repository or above it."""
    above = Path(__file__).resolve().parents[2:]
    return next((one / "shared/data" for one in above if (one / "shared/data").is_dir()), Path("../shared/data"))


def write_confluent(path: Path, side: int) -> None:
    """Write windows of ``nuclei2d/val`` in which nuclei lie close, turned and mirrored at random, side by side."""
    windows = confluent_windows()
    write_ome_zarr(path, (side, side), np.dtype(np.uint8), lambda part: mosaic(part, windows))


def write_volume(path: Path, edge: int, times: int = 1) -> None:
    """Write windows of ``nuclei3d-embryo`` side by side: so many cubes of an edge, as a cube."""
    count = round(times ** (1 / 3))
    if count**3 != times:
        raise SystemExit(f"{times} cubes are no cube: 1, 8, 27 or 64")
    windows = embryo_windows()
    write_ome_zarr(path, (edge * count,) * 3, np.dtype(np.uint16), lambda part: mosaic(part, windows), EMBRYO_UM)


def write_sparse(path: Path, side: int, squares: int = 400) -> int:
    """Write scanned squares with nuclei far apart, and nothing between them; return the number of nuclei.

    Half of the squares lie across the border of two shards, or of four, with nuclei on it. Chunks without a square are
    absent, as those that a microscope did not scan; the value of their pixels is 0, which no other pixel has.
    """
    places = square_places(side, squares)
    by_shard: dict[tuple[int, int], list[int]] = {}
    for number, (top, left) in enumerate(places):
        for shard in product(*({at // SHARD, (at + SQUARE - 1) // SHARD} for at in (top, left))):
            by_shard.setdefault(shard, []).append(number)
    array = create(path, (side, side), np.dtype(np.uint8))
    for (row, column), numbers in sorted(by_shard.items()):
        # Only what squares cover: to look through the rest of a shard for pixels takes most of the time.
        shard = (row * SHARD, column * SHARD)
        corner = [max(shard[n], min(places[number][n] for number in numbers)) for n in (0, 1)]
        ends = [min(shard[n] + SHARD, max(places[number][n] for number in numbers) + SQUARE, side) for n in (0, 1)]
        block = np.zeros([end - at for at, end in zip(corner, ends, strict=True)], np.uint8)
        for number in numbers:
            target, source = overlap(places[number], (SQUARE, SQUARE), corner, block.shape)
            block[target] = draw_square(number)[0][source]
        array[tuple(slice(at, at + size) for at, size in zip(corner, block.shape, strict=True))] = block
    centres = [(top + y, left + x) for number, (top, left) in enumerate(places) for y, x in draw_square(number)[1]]
    truth = {"count": len(centres), "nuclei": centres, "squares": places, "side": SQUARE}
    path.with_name(f"{path.name}.json").write_text(json.dumps(truth))
    return len(centres)


def square_places(side: int, count: int) -> list[tuple[int, int]]:
    """Return the corners of squares: in shards far apart, in turn inside one, across a border, and on a corner."""
    rng = np.random.default_rng(0)
    shards = -(-side // SHARD) - 1  # the last one may be cut
    if count > (shards // 2) ** 2:
        raise SystemExit(f"{count} squares need a side of {2 * SHARD * (int(count**0.5) + 1)} pixels or more")
    cells = rng.permutation((shards // 2) ** 2)[:count]  # every second shard, so that squares are far apart
    places = []
    for number, cell in enumerate(cells):
        corner = [2 * SHARD * int(at) for at in divmod(int(cell), shards // 2)]
        inside = rng.integers(1, SHARD // CHUNK - 1, 2) * CHUNK
        across = SHARD - SQUARE // 2  # nuclei in the middle of the square are cut by the border
        kinds = ((inside[0], inside[1]), (across, inside[1]), (inside[0], inside[1]), (across, across))
        places.append(tuple(at + int(more) for at, more in zip(corner, kinds[number % 4], strict=True)))
    return places


@cache
def draw_square(number: int) -> tuple[NDArray[np.uint8], list[tuple[int, int]]]:
    """Return a square of noise with nuclei in the middle of its nine parts, and their centres."""
    rng = np.random.default_rng((1, number))
    light = rng.normal(*NOISE, (SQUARE, SQUARE))
    nuclei, centres = single_nuclei(), []
    for slot in product(range(SLOTS), repeat=2):
        nucleus = turn(nuclei[rng.integers(len(nuclei))], rng)
        centre = [int((at + 0.5) * SQUARE / SLOTS) for at in slot]
        part = tuple(
            slice(at - size // 2, at - size // 2 + size) for at, size in zip(centre, nucleus.shape, strict=True)
        )
        light[part] += nucleus
        centres.append((centre[0], centre[1]))
    return np.clip(np.rint(light), 1, 255).astype(np.uint8), centres


@cache
def single_nuclei() -> list[NDArray[np.float32]]:
    """Return real nuclei that lie alone, from 0 at their edge to `PEAK`."""
    found = []
    for image, labels in _pairs(data_folder() / "nuclei2d" / "val"):
        for label, box in enumerate(find_objects(labels), 1):
            if box is None or not 14 <= min(one.stop - one.start for one in box) <= 40:
                continue
            part = tuple(slice(one.start - 12, one.stop + 12) for one in box)
            if any(one.start < 0 or one.stop > n for one, n in zip(part, labels.shape, strict=True)):
                continue
            near, pixels = labels[part], image[part].astype(np.float32)
            ring = binary_dilation(near == label, iterations=10) & (near != label)
            if near[ring].any() or not _is_plain(near == label, pixels, ring):
                continue
            above = np.clip(pixels - np.median(pixels[ring]), 0, None)
            fade = np.clip(1 - distance_transform_edt(near != label) / 6, 0, 1)
            found.append(np.asarray(above * fade * PEAK / np.percentile(above[near == label], 95), np.float32))
    return found


def _is_plain(mask: NDArray[np.bool_], pixels: NDArray[np.float32], ring: NDArray[np.bool_]) -> bool:
    """Whether a nucleus is round, bright and even, so that nobody would count it as two or none."""
    height, width = np.ptp(np.nonzero(mask)[0]) + 1, np.ptp(np.nonzero(mask)[1]) + 1
    inside, outside = pixels[mask], pixels[ring]
    is_round = mask.sum() > 0.7 * height * width and max(height, width) < 1.4 * min(height, width)
    is_bright = np.median(inside) - np.median(outside) > 8 * max(1.0, outside.std())
    return bool(is_round and is_bright and inside.std() < 0.3 * (inside.mean() - np.median(outside)))


@cache
def confluent_windows() -> NDArray[np.uint8]:
    """Return windows of ``nuclei2d/val`` that nuclei fill."""
    return _windows(_pairs(data_folder() / "nuclei2d" / "val"), (TILE, TILE), LEAST_FOREGROUND).astype(np.uint8)


@cache
def embryo_windows() -> NDArray[np.uint16]:
    """Return parts of ``nuclei3d-embryo`` that nuclei fill."""
    folder = data_folder() / "nuclei3d-embryo"
    pairs = (pair for part in ("train", "val") for pair in _pairs(folder / part))
    return _windows(pairs, TILE_3D, LEAST_FOREGROUND_3D).astype(np.uint16)


def _windows(
    pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], size: tuple[int, ...], least: float
) -> NDArray[np.float32]:
    """Return the windows of images of which so much is foreground, on one scale of intensity, dark at their edges."""
    dark, bright = DARK[len(size)], BRIGHT[len(size)]
    weight = np.ones(size, np.float32)
    for axis, length in enumerate(size):
        edge = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
        ramp = np.clip(edge / (FADE * length), 0, 1).astype(np.float32)
        weight *= ramp.reshape([-1 if n == axis else 1 for n in range(len(size))])
    found = []
    for image, labels in pairs:
        if labels.any():
            low, high = np.percentile(image[labels == 0], 25), np.percentile(image[labels > 0], 95)
            above = (image.astype(np.float32) - low) * (bright - dark) / max(high - low, 1)
            most = 255 - dark if len(size) == 2 else 4 * bright
            found += [np.clip(above[part], -dark, most) * weight for part in _full_parts(labels, size, least)]
    return np.rint(np.stack(found) + dark)


def _pairs(folder: Path) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    for path in sorted((folder / "images").glob("*.tif")):
        yield tifffile.imread(path), tifffile.imread(folder / "labels" / path.name)


def _full_parts(labels: NDArray[Any], size: Sequence[int], least: float) -> Iterator[tuple[slice, ...]]:
    """Yield the parts of an image, half of their size apart, of which so much is foreground."""
    starts = (range(0, length - n + 1, n // 2) for length, n in zip(labels.shape, size, strict=True))
    for corner in product(*starts):
        part = tuple(slice(at, at + n) for at, n in zip(corner, size, strict=True))
        if (labels[part] > 0).mean() >= least:
            yield part


def mosaic(part: tuple[slice, ...], windows: NDArray[Any]) -> NDArray[Any]:
    """Return a part of an endless field of windows, each chosen and turned by its place alone.

    Fields that are moved by half a window along some axes lie over each other, and the brightest counts, so that no
    seam is left.
    """
    tile = windows.shape[1:]
    corner, shape = [one.start for one in part], [one.stop - one.start for one in part]
    out = np.zeros(shape, windows.dtype)
    for layer, moved in enumerate(product((0, 1), repeat=len(tile))):
        shift = [n // 2 * more for n, more in zip(tile, moved, strict=True)]
        sides = zip(corner, shape, tile, shift, strict=True)
        spans = [range((at + more) // n, -(-(at + size + more) // n)) for at, size, n, more in sides]
        for place in product(*spans):
            window = _window_at((layer, *place), windows)
            begin = [at * n - more for at, n, more in zip(place, tile, shift, strict=True)]
            target, source = overlap(begin, tile, corner, shape)
            np.maximum(out[target], window[source], out=out[target])
    return out


def _window_at(place: tuple[int, ...], windows: NDArray[Any]) -> NDArray[Any]:
    rng = np.random.default_rng(place)
    return turn(windows[rng.integers(len(windows))], rng)


def turn(pixels: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return an image mirrored at random, and with rows and columns exchanged where it is square."""
    flips = tuple(slice(None, None, int(step)) for step in rng.choice((-1, 1), pixels.ndim))
    pixels = pixels[flips]
    exchange = pixels.shape[-1] == pixels.shape[-2] and rng.random() < 0.5
    return pixels.swapaxes(-1, -2) if exchange else pixels


def overlap(
    begin: Sequence[int], size: Sequence[int], corner: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return what a piece and a block share, as an index of the block and of the piece."""
    sides = zip(begin, size, corner, shape, strict=True)
    shared = [(max(a, c), min(a + n, c + m)) for a, n, c, m in sides]
    target = tuple(slice(a - c, b - c) for (a, b), c in zip(shared, corner, strict=True))
    return target, tuple(slice(a - c, b - c) for (a, b), c in zip(shared, begin, strict=True))


def write_ome_zarr(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], block: Block, spacing: Sequence[float] | None = None
) -> None:
    """Write an image, shard by shard, of which `block` gives the parts."""
    array = create(path, shape, dtype, spacing)
    for corner in product(*(range(0, n, m) for n, m in zip(shape, array.shards or array.chunks, strict=True))):
        ends = (min(at + m, n) for at, m, n in zip(corner, array.shards or array.chunks, shape, strict=True))
        part = tuple(slice(at, end) for at, end in zip(corner, ends, strict=True))
        array[part] = block(part)


def create(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], spacing: Sequence[float] | None = None
) -> zarr.Array[Any]:
    """Create an OME-Zarr 0.5 of one level, in place of an older one."""
    shutil.rmtree(path, ignore_errors=True)
    group = zarr.create_group(path, zarr_format=3)
    names, is_flat = "zyx"[-len(shape) :], len(shape) == 2
    unit = {} if spacing is None else {"unit": "micrometer"}
    scale = [{"type": "scale", "scale": [float(step) for step in spacing or (1.0,) * len(shape)]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [{"name": name, "type": "space", **unit} for name in names],
                "datasets": [{"path": "0", "coordinateTransformations": scale}],
            }
        ],
    }
    chunk, shard = (CHUNK, SHARD) if is_flat else (CHUNK_3D, SHARD_3D)
    shard = min(shard, -(-max(shape) // chunk) * chunk)
    return group.create_array(
        "0",
        shape=shape,
        dtype=dtype,
        chunks=(chunk,) * len(shape),
        shards=(shard,) * len(shape),
        compressors=zarr.codecs.ZstdCodec(level=1),
        fill_value=0,
        dimension_names=list(names),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("confluent", "volume", "sparse"))
    parser.add_argument("size", type=int, help="pixels of a side; of a volume, voxels of the edge of one cube")
    parser.add_argument("path", type=Path)
    parser.add_argument("--times", type=int, default=1, help="cubes of a volume: 1, 8 or 64")
    parser.add_argument("--squares", type=int, default=400, help="scanned squares of a sparse field, of 9 nuclei each")
    options = parser.parse_args()
    began = time.perf_counter()
    if options.kind == "confluent":
        write_confluent(options.path, options.size)
    elif options.kind == "volume":
        write_volume(options.path, options.size, options.times)
    else:
        print(f"{write_sparse(options.path, options.size, options.squares)} nuclei")
    print(f"{options.path}: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
