"""Images of which each channel is a file of its own, found by what microscopes and people write into the names.

This is not done unless a channel is asked for: `x_C1.tif` and `x_C2.tif` may as well be two cells.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from biounet.core import InputError, list_some
from biounet.files.axes import ReadOptions
from biounet.files.channels import as_names
from biounet.files.dataset_index.cases import FoundImage, split_channel
from biounet.files.dataset_index.names import stem_of
from biounet.files.isolation.client import ReaderPool

# MetaXpress appends one to each name
_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
# What precedes the marker of the channel, its text with a number, the name of the channel, and what follows.
_MARKERS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # MetaMorph, ImageXpress: x_w1.tif, x_w1DAPI_s3.tif
        r"(?P<before>.+)[_-](?P<marker>w(?P<number>\d))(?P<name>[^_]*)(?P<after>(?:_.*)?)",
        # Leica: x_ch00.tif; Opera: r01c01f01p01-ch1sk1fk1fl1.tiff; Micro-Manager: x_channel000_z000.tif
        r"(?P<before>.+)[_-](?P<marker>ch(?:annel)?(?P<number>\d{1,3}))(?P<name>)(?P<after>(?:(?:[_-]|sk\d).*)?)",
        # Bio-Formats and ZEN: x_C0.tif, x_C=0.tif, x_c1.tif; two digits are a well
        r"(?P<before>.+)[_-](?P<marker>c=?(?P<number>\d))(?P<name>)(?P<after>(?:[_-].*)?)",
        # Fiji: C1-x.tif
        r"(?P<before>)(?P<marker>c(?P<number>\d))(?P<name>)-(?P<after>.+)",
    )
)
_MOST_CHANNELS = 8  # of files that are taken for channels without being asked to


@dataclass(frozen=True)
class _ChannelFile:
    """A file that is one channel: the image it belongs to, and the order and the name of the channel."""

    image: FoundImage
    name: str  # of the image; empty if it is that of the folder
    order: int
    channel: str

    @property
    def key(self) -> tuple[Path, str]:
        return self.image.path.parent, self.name.casefold()


_Groups = dict[tuple[Path, str], list[_ChannelFile]]
_Split = Callable[[FoundImage], _ChannelFile | None]


def join_channel_files(images: Sequence[FoundImage], options: ReadOptions, readers: ReaderPool) -> list[FoundImage]:
    """Join files that are one channel each, if the options choose or name channels for a model of one.

    They are told by names of channels at the end (``x_DAPI.tif``) or by numbers (``x_w1.tif``, ``x_ch00.tif``,
    ``x_C0.tif``, ``C1-x.tif``), and have the rest of the name in common. An image without a file for each channel
    that others have gets a problem. Files that hold several channels, as `readers` find, are images by themselves.
    """
    if options.inputs != 1 or not options.chooses_channels:
        return list(images)
    joined, left = [], list(images)
    for split in (*_splits_by_name(options), *map(_by_marker, _MARKERS)):
        groups = _group(left, split)
        if groups is None or not _hold_one(groups, options, readers):
            continue
        orders = _channels_of(groups)
        joined += [_as_image(files, orders, options) for files in groups.values()]
        used = {file.image.path for files in groups.values() for file in files}
        left = [image for image in left if image.path not in used]
    return [*joined, *left]


def describe_channel_files(images: Sequence[FoundImage]) -> str:
    """Return one line on files whose names are those of channels, and how to join them; empty if there are none."""
    for split in map(_by_marker, _MARKERS):
        groups = _group(images, split) or {}
        if likely := _likely_channels(groups):
            first = next(files for files in groups.values() if len(files) == len(likely))
            names = ", ".join(file.image.path.name for file in first)
            several = f"{len(groups)} images, such as" if len(groups) > 1 else "one image:"
            how = f"--channel {first[0].channel} --measure all segments one channel and measures the others"
            return f"the names look like channels of {several} {names}; if they are, {how}"
    return ""


def _likely_channels(groups: _Groups) -> tuple[int, ...]:
    """Return the numbers that most images have, if channels are numbered like that: few, from 0 or 1, without gaps."""
    counts = Counter(tuple(file.order for file in files) for files in groups.values())
    numbers, images = counts.most_common(1)[0] if counts else ((), 0)
    without_gaps = len(numbers) > 1 and numbers == tuple(range(numbers[0], numbers[0] + len(numbers)))
    is_likely = without_gaps and numbers[0] < 2 and len(numbers) <= _MOST_CHANNELS and 2 * images > len(groups)
    return numbers if is_likely else ()


def parse_channel_files(inputs: Sequence[str]) -> FoundImage:
    """Return the image whose channels inputs such as ``DAPI=a.tif`` name; raise an `InputError` if they are none."""
    files: dict[str, Path] = {}
    for text in inputs:
        name, _, path = text.partition("=")
        if name.casefold() in map(str.casefold, files):
            raise InputError(f"a second file for channel '{name}'", path=path, hint="one image at a time, or a folder")
        if not (Path(path).is_file() or Path(path).is_dir()):
            raise InputError("no such file", path=path)
        if twice := next((other for other, file in files.items() if file.absolute() == Path(path).absolute()), None):
            raise InputError(f"both '{twice}' and '{name}'", path=path, hint="name one file for each channel")
        files[name] = Path(path)
    names, paths = as_names(tuple(files)), list(files.values())
    return FoundImage(paths[0], Path(_common_name(paths, names)), tuple(paths[1:]), channels=names)


def _common_name(paths: Sequence[Path], names: Sequence[str]) -> str:
    """Return what the names of files have in common, without those of channels; else that of the first."""
    images = [FoundImage(path, Path(path.name)) for path in paths]
    for split in (_by_names(names), *map(_by_marker, _MARKERS)):
        common = {found.name if (found := split(image)) is not None else "" for image in images}
        if len(common) == 1 and (name := common.pop()):
            return name
    return stem_of(paths[0])


def _splits_by_name(options: ReadOptions) -> list[_Split]:
    """Return how to split the names of files by names of channels, if the options give more than one."""
    chosen = (options.channel, *options.measure)
    names = options.channels or tuple(dict.fromkeys(name for name in chosen if isinstance(name, str)))
    return [_by_names(names)] if len(names) > 1 else []


def _by_names(names: Sequence[str]) -> _Split:
    def split(image: FoundImage) -> _ChannelFile | None:
        found = split_channel(image.path, names, {})
        if found is None:
            return None
        return _ChannelFile(image, found[0], found[1], names[found[1]])

    return split


def _by_marker(marker: re.Pattern[str]) -> _Split:
    def split(image: FoundImage) -> _ChannelFile | None:
        match = marker.fullmatch(_GUID.sub("", stem_of(image.path)))
        if match is None:
            return None
        before, after = match["before"], match["after"]
        name = f"{before}_{after}" if before and after and after[0].isalnum() else before + after
        return _ChannelFile(image, name, int(match["number"]), match["name"].strip() or match["marker"])

    return split


def _group(images: Iterable[FoundImage], split: _Split) -> _Groups | None:
    """Return the files of each image in the order of their channels; None if no image has several."""
    groups: _Groups = defaultdict(list)
    for image in images:
        if not (image.is_case or image.problem) and (file := split(image)) is not None:
            groups[file.key].append(file)
    several = any(len({file.order for file in files}) > 1 for files in groups.values())
    return {key: sorted(files, key=lambda file: file.order) for key, files in groups.items()} if several else None


def _hold_one(groups: _Groups, options: ReadOptions, readers: ReaderPool) -> bool:
    """Whether the files of the first image hold one channel each, or cannot be read."""
    options = replace(options, channel=None, channels=None, measure=())
    for file in next(files for files in groups.values() if len(files) > 1):
        with suppress(InputError), readers.borrow() as reader:
            if reader.read_header(file.image.path, options)[0].channels > 1:
                return False
    return True


def _channels_of(groups: _Groups) -> dict[int, str]:
    """Return the channels of all images in their order, by the names that the first has."""
    names: dict[int, str] = {}
    for file in sorted((file for files in groups.values() for file in files), key=lambda file: file.order):
        names.setdefault(file.order, file.channel)
    return names


def _as_image(files: Sequence[_ChannelFile], channels: dict[int, str], options: ReadOptions) -> FoundImage:
    """Return files as one image, with its problem if they are not one for each channel."""
    first, problems = files[0].image, []
    orders = [file.order for file in files]
    for order, name in channels.items():
        if (number := orders.count(order)) != 1:
            names = list_some([file.image.path.name for file in files if file.order == order], _MOST_CHANNELS)
            problems.append(
                f"{number} files of channel '{name}': {names}" if number else f"no file of channel '{name}'"
            )
    if not problems and options.channels and len(options.channels) != len(files):
        problems.append(f"{len(files)} files, and {len(options.channels)} names ({', '.join(options.channels)})")
    own = [file.channel for file in files]
    # Names that are equal are those of settings, such as "Confocal": the markers differ.
    names_differ = len({name.casefold() for name in own}) == len(own)
    markers = tuple(own) if names_differ else tuple(f"{name}_{order}" for name, order in zip(own, orders, strict=True))
    parent, name = first.relative.parent, files[0].name
    relative = parent / name if name else parent if parent.name else Path(first.path.absolute().parent.name)
    return replace(
        first,
        relative=relative,
        others=tuple(file.image.path for file in files[1:]),
        channels=options.channels or markers,
        problem=f"image '{relative.name}': {'; '.join(problems)}" if problems else "",
    )
