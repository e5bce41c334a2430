"""Small files as microscopes write them, made from what the packages that read them expect: LIF of Leica, ND2 of Nikon.

The pixels, and what is stated about them, are those that a test gives; everything else is left out.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

_DIMENSIONS = {"X": 1, "Y": 2, "Z": 3, "T": 4, "λ": 5, "M": 10}
_COLOURS = ("Gray", "Red", "Green", "Blue")


@dataclass(frozen=True)
class Picture:
    """An image in a file: an array, its axes, and what the file states: µm, seconds, names of channels."""

    array: np.ndarray
    axes: str
    spacing: dict[str, float] = field(default_factory=dict)
    interval: float | None = None
    dyes: tuple[str, ...] = ()
    luts: tuple[str, ...] = ()


def write_lif(path: Path, pictures: dict[str, Picture]) -> Path:
    """Write a project of images; a name ``A/R1`` is the image ``R1`` in the collection ``A``."""
    blocks: list[bytes] = []
    children: dict[str, list[str]] = {}
    for number, (name, picture) in enumerate(pictures.items()):
        collection, _, own = name.rpartition("/")
        block, data = f"MemBlock_{number}", np.ascontiguousarray(picture.array).tobytes()
        content = f'<Image>{_description(picture)}</Image></Data><Memory Size="{len(data)}" MemoryBlockID="{block}"/>'
        key = f"/{collection}" if collection else name
        children.setdefault(key, []).append(f"<Element Name={quoteattr(own)}><Data>{content}</Element>")
        blocks.append(_lif_block(block, data))
    elements = [
        f"<Element Name={quoteattr(key[1:])}><Data><Collection/></Data><Children>{''.join(own)}</Children></Element>"
        if key.startswith("/")
        else "".join(own)
        for key, own in children.items()
    ]
    root = f'<Element Name="project"><Data><Experiment/></Data><Children>{"".join(elements)}</Children></Element>'
    xml = f'<LMSDataContainerHeader Version="2">{root}</LMSDataContainerHeader>'
    path.write_bytes(_lif_head(xml) + b"".join(blocks))
    return path


def write_lof(path: Path, picture: Picture) -> Path:
    """Write one image as a file of its own."""
    data = np.ascontiguousarray(picture.array).tobytes()
    content = f'<Image>{_description(picture)}</Image></Data><Memory Size="{len(data)}" MemoryBlockID="MemBlock_0"/>'
    image = f"<Element Name={quoteattr(path.stem)}><Data>{content}</Element>"
    xml = f'<LMSDataContainerHeader Version="2">{image}</LMSDataContainerHeader>'
    versions = struct.pack("<BIBI", 0x2A, 2, 0x2A, 2)
    path.write_bytes(
        _lif_head("LMS_Object_File") + versions + struct.pack("<BQ", 0x2A, len(data)) + data + _lif_head(xml)
    )
    return path


def _lif_head(text: str) -> bytes:
    encoded = text.encode("utf-16-le")
    return struct.pack("<IIBI", 0x70, len(encoded) + 5, 0x2A, len(encoded) // 2) + encoded


def _lif_block(name: str, data: bytes) -> bytes:
    encoded = name.encode("utf-16-le")
    head = struct.pack("<IIBQBI", 0x70, len(encoded) + 14, 0x2A, len(data), 0x2A, len(encoded) // 2)
    return head + encoded + data


def _description(picture: Picture) -> str:
    """Return the XML of the channels and dimensions of an image."""
    array, item = picture.array, picture.array.dtype.itemsize
    strides = {axis: array[(0,) * n].nbytes // array.shape[n] for n, axis in enumerate(picture.axes)}
    lengths = dict(zip(picture.axes, array.shape, strict=True))
    channels = []
    letter = "S" if "S" in picture.axes else "C"
    for number in range(lengths.get(letter, 1)):
        tag = number + 1 if letter == "S" else 0
        dye = picture.dyes[number] if picture.dyes else ""
        found = f"<ChannelProperty><Key>DyeName</Key><Value>{dye}</Value></ChannelProperty>" if dye else ""
        lut = picture.luts[number] if picture.luts else _COLOURS[tag]
        channels.append(
            f'<ChannelDescription DataType="{int(array.dtype.kind == "f")}" ChannelTag="{tag}" Resolution="{8 * item}"'
            f' NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="{lut}" IsLUTInverted="0"'
            f' BytesInc="{number * strides.get(letter, 0)}" BitInc="0">{found}</ChannelDescription>'
        )
    dimensions = [
        f'<DimensionDescription DimID="{_DIMENSIONS[axis]}" NumberOfElements="{lengths[axis]}" Origin="0"'
        f' Length="{_length(axis, lengths[axis], picture)!r}" Unit="{"s" if axis == "T" else "m"}" BitInc="0"'
        f' BytesInc="{strides[axis]}"/>'
        for axis in reversed(picture.axes)
        if axis not in "CS"
    ]
    parts = f"<Channels>{''.join(channels)}</Channels><Dimensions>{''.join(dimensions)}</Dimensions>"
    return f"<ImageDescription>{parts}</ImageDescription>"


def _length(axis: str, count: int, picture: Picture) -> float:
    """Return the length from the first to the last element, in metres or seconds."""
    step = picture.interval if axis == "T" else picture.spacing.get(axis, 0.0) / 1e6
    return (step or 0.0) * (count - 1)


def write_nd2(path: Path, picture: Picture, names: tuple[str, ...] = (), *, recorded: int | None = None) -> Path:
    """Write an ND2 of version 2.1, whose metadata is XML, of axes P, T and Z in any order, then ``[C]YX`` or ``YXS``.

    `names` are those of positions; only the first `recorded` planes are written, all of them by default.
    """
    array, axes = picture.array, picture.axes
    frame_axes = "".join(axis for axis in axes if axis in "CYXS")
    loops = axes[: len(axes) - len(frame_axes)]
    counts = array.shape[: len(loops)]
    frames = array.reshape(-1, *array.shape[len(loops) :])
    if frame_axes == "CYX":
        frames = np.moveaxis(frames, 1, -1)
    frames = frames.reshape(*frames.shape[:3], -1)  # (n, y, x, c or s)
    frames = frames[: len(frames) if recorded is None else recorded]
    chunks: dict[bytes, bytes] = {}
    chunks[b"ImageAttributes!"] = _variant(_attributes(frames))
    chunks[b"ImageMetadataSeq|0!"] = _variant(_picture_metadata(picture, frames.shape[-1]))
    if loops:
        chunks[b"ImageMetadata!"] = _variant(_experiment([*zip(loops, counts, strict=True)], picture, names))
    for number, frame in enumerate(frames):
        chunks[f"ImageDataSeq|{number}!".encode()] = bytes(8) + np.ascontiguousarray(frame).tobytes()
    path.write_bytes(_nd2_file(chunks))
    return path


def _nd2_file(chunks: dict[bytes, bytes]) -> bytes:
    content = _nd2_chunk(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver2.1".ljust(64, b"\0"), 32)
    entries = b""
    for name, data in chunks.items():
        entries += name + struct.pack("<QQ", len(content), len(data))
        content += _nd2_chunk(name, data, 4072 if name.startswith(b"ImageDataSeq") else len(name))
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", len(content))
    return content + _nd2_chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", entries + end, 32)


def _nd2_chunk(name: bytes, data: bytes, reserved: int) -> bytes:
    return struct.pack("<IIQ", 0x0ABECEDA, reserved, len(data)) + name.ljust(reserved, b"\0") + data


def _variant(content: dict[str, Any]) -> bytes:
    return f'<variant version="1.0"><no_name>{_nodes(content)}</no_name></variant>'.encode()


def _nodes(content: dict[str, Any]) -> str:
    """Return values as elements; the first letters of a name say its type, as in NIS-Elements."""
    kinds = {int: "lx_uint32", float: "double", str: "CLxStringW", bool: "bool"}
    return "".join(
        f"<{name}>{_nodes(value)}</{name}>"
        if isinstance(value, dict)
        else f"<{name} runtype={quoteattr(kinds[type(value)])} value={quoteattr(str(value))}/>"
        for name, value in content.items()
    )


def _attributes(frames: np.ndarray) -> dict[str, Any]:
    _, height, width, components = frames.shape
    bits = 8 * frames.dtype.itemsize
    return {
        "uiWidth": width,
        "uiWidthBytes": width * components * frames.dtype.itemsize,
        "uiHeight": height,
        "uiComp": components,
        "uiBpcInMemory": bits,
        "uiBpcSignificant": bits,
        "uiSequenceCount": len(frames),
        "eCompression": 2,
        "dCompressionParam": 0.0,
    }


def _picture_metadata(picture: Picture, components: int) -> dict[str, Any]:
    is_colour = "S" in picture.axes
    dyes = picture.dyes or tuple(f"channel {n}" for n in range(1 if is_colour else components))
    probe = {"m_ExcitationSpectrum": {"uiCount": 0}, "m_EmissionSpectrum": {"uiCount": 0}}
    each = {"uiCompCount": components if is_colour else 1, "pFluorescentProbe": probe}
    planes = {f"a{n}": {"sDescription": name, "uiSampleIndex": n, **each} for n, name in enumerate(dyes)}
    return {
        "bCalibrated": "X" in picture.spacing,
        "dCalibration": picture.spacing.get("X", 1.0),
        "sPicturePlanes": {"uiCount": len(planes), "sPlaneNew": planes},
    }


def _experiment(loops: list[tuple[str, int]], picture: Picture, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the loops of an acquisition, each of which holds the next one."""
    (letter, count), *inner = loops
    if letter == "P":
        points = {
            f"p{n}": {"dPosX": 0.0, "dPosY": 0.0, "dPosZ": 0.0, "dPosName": names[n] if names else ""}
            for n in range(count)
        }
        kind, parameters = 2, {"bUseZ": False, "Points": points}
    elif letter == "T":
        period = 1000 * (picture.interval or 0.0)
        kind, parameters = 1, {"uiCount": count, "dStart": 0.0, "dPeriod": period, "dDuration": 0.0}
    else:
        kind, parameters = 4, {"uiCount": count, "dZStep": picture.spacing.get("Z", 0.0)}
    level = {"ppNextLevelEx": {"a0": _experiment(inner, picture, names)}} if inner else {}
    return {"eType": kind, "uLoopPars": parameters, **level}
