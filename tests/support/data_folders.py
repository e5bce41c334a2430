"""Folders of training data as people have them, drawn from a seed: mostly good, some with one or two things wrong."""

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import tifffile
from PIL import Image

from biounet.core import Recipe
from biounet.core.recipe import parse_recipe
from biounet.files import ReadOptions

LAYOUTS = ("two folders", "siblings", "sub-folders", "table", "cases", "common names", "nnunet")
FAULTS = (
    "missing annotation", "missing image", "two annotations", "two images", "hidden", "sidecar", "ending", "shape",
    "2D beside 3D", "nothing labelled", "no object", "parts alone", "channels", "damaged", "empty file", "link",
    "brain mask", "foreign", "fractions", "unknown value", "calibration", "tiny", "constant", "same image", "nan",
    "unlabelled value", "points", "no annotation",
)  # fmt: skip


@dataclass(frozen=True)
class DataFolder:
    """What is given to `check` and to `train`."""

    images: Path
    labels: Path | None
    recipe: Recipe
    options: ReadOptions
    validation: tuple[Path, Path | None] | None
    what: str


class _Maker:
    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.draw = root, np.random.default_rng(seed)
        draw = self.draw
        self.layout = str(draw.choice(LAYOUTS))
        self.dims = 3 if self.layout in ("cases", "common names", "nnunet") or draw.random() < 0.2 else 2
        self.kind = str(draw.choice(["instances", "classes", "scribbles"], p=[0.5, 0.4, 0.1]))
        several = self.layout in ("cases", "common names") or (self.layout == "nnunet" and draw.random() < 0.5)
        self.channels = ["flair", "t1"] if several else ["mri" if self.dims == 3 else "intensity"]
        volumes = (".nii.gz", ".nii", ".tif") if self.layout != "nnunet" else (".nii.gz",)
        self.end = str(draw.choice(volumes)) if self.dims == 3 else str(draw.choice([".tif", ".png"]))
        self.faults = set(draw.choice(FAULTS, size=int(draw.choice([0, 1, 2], p=[0.3, 0.5, 0.2])), replace=False))
        self.count = int(draw.integers(1, 5))

    def hit(self, fault: str, number: int) -> bool:
        """Whether a fault is that of this image."""
        return fault in self.faults and number == self.count - 1

    def recipe(self) -> Recipe:
        data: dict = {"kind": self.kind, "dims": self.dims, "channels": self.channels, "validation": 0.3}
        if self.kind == "classes":
            data["classes"] = ["one", "two"] if self.draw.random() < 0.3 else ["one"]
        if self.kind == "scribbles":
            data["classes"] = ["background", "cell"]
        if self.draw.random() < 0.2 and self.kind != "scribbles":
            data["slices"] = "z" if self.dims == 3 else "y"
        if self.draw.random() < 0.15 and self.dims == 2 and self.end == ".tif":
            data["pixel_size_um"] = 0.7
        if self.draw.random() < 0.05:
            data["annotation"] = str(self.draw.choice(["seg", "mask", "drawing"]))
        targets = {"unit": "um"} if self.draw.random() < 0.1 else {}
        train = {"patch": 16, "batch": 1, "steps_per_epoch": 1, "minutes": None, "epochs": 1}
        network = {"widths": [2, 2], "half_resolution": False}
        method = "zscore" if self.dims == 3 else "percentiles"
        return parse_recipe(
            {"data": data, "targets": targets, "train": train, "network": network, "normalise": {"method": method}}
        )

    def arrays(self, number: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Images of the channels, and labels."""
        shape = (7, 20, 24) if self.dims == 3 else (32, 40)
        if self.hit("tiny", number):
            shape = tuple(int(self.draw.integers(1, 5)) for _ in shape)
        objects = np.zeros(shape, np.int16)
        for n, (y, x) in enumerate([(2, 2), (2, 12), (11, 4)], 1):
            objects[(..., slice(y, y + 6), slice(x, x + 7))] = n
        if self.dims == 3:
            objects[[0, -1]] = 0
        if self.hit("2D beside 3D", number):
            objects = objects[1] if self.dims == 3 else np.stack([objects] * 3)
        images = [
            (100 + 80 * (objects > 0) + self.draw.normal(0, 9, objects.shape)).clip(0, 255).astype(np.uint8)
            for _ in self.channels
        ]
        if self.hit("constant", number):
            images = [np.full_like(image, 7) for image in images]
        labels = objects.copy()
        if self.kind == "classes":
            labels = np.where(objects == 3, 2, objects > 0).astype(np.int16)
            if len(self.made.data.classes) == 1:
                labels = np.minimum(labels, 1)
        if self.kind == "scribbles":
            labels = np.zeros_like(objects)
            labels[..., 3, :] = np.where(objects[..., 3, :] > 0, 2, 1)
        return images, self.spoil(labels, number)

    def spoil(self, labels: np.ndarray, number: int) -> np.ndarray:
        if self.hit("shape", number):
            labels = labels[..., :-1]
        if "no object" in self.faults or self.hit("nothing labelled", number):
            labels = np.zeros_like(labels)
        if self.hit("nothing labelled", number):
            labels = labels - 1
        if "parts alone" in self.faults:
            labels = np.where(labels > 0, labels, -1).astype(labels.dtype)
        if self.hit("unknown value", number):
            labels[..., :1, :1] = 77
        if self.hit("unlabelled value", number):
            labels[..., :3] = 255
        if self.hit("points", number):
            labels = np.zeros_like(labels)
            labels.reshape(-1)[::11] = np.arange(labels.reshape(-1)[::11].size) + 1
        return labels + 0.5 if self.hit("fractions", number) else labels

    def write(self, path: Path, array: np.ndarray, number: int, image: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if image and self.hit("channels", number) and self.end == ".tif":
            array = np.stack([array] * 2, axis=-3) if array.ndim == 2 else array[:, None].repeat(2, 1)
        if image and self.hit("nan", number) and self.end != ".png":
            array = np.where(np.arange(array.size).reshape(array.shape) == 3, np.nan, array).astype(np.float32)
        if self.end.startswith(".nii"):
            affine = np.diag([1.0, 1.0, 2.0, 1.0])
            if self.hit("calibration", number):
                affine[0, 0] = 1.5 if image else 1.0
            made = nibabel.Nifti1Image(array.T, affine)
            made.header.set_xyzt_units("mm")
            nibabel.save(made, path)
        elif self.end == ".png" and array.ndim == 2 and array.min() >= 0 and array.dtype.kind in "ui":
            Image.fromarray(array.astype(np.uint8)).save(path)
        else:
            axes = "ZCYX" if array.ndim == 4 else ("CYX" if self.dims == 2 else "ZYX")[-array.ndim :]
            known = self.calibrated and not self.hit("calibration", number)
            more = {"spacing": 2.0, "unit": "um"} if known else {}
            kept = array.astype(np.float32 if array.dtype.kind == "f" else np.int16)
            tag = {"resolution": (1.0, 1.0)} if known else {}
            tifffile.imwrite(path, kept.astype(np.float32), imagej=True, metadata={"axes": axes, **more}, **tag)
        if image and self.hit("damaged", number):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if image and self.hit("empty file", number):
            path.write_bytes(b"")

    def names(self, number: int) -> tuple[list[Path], Path]:
        """Where the channels and the annotation of a case are."""
        case, end = f"p{number}", self.end
        mask = str(self.draw.choice(["_masks", "_label", "_seg", "_cp_masks"]))
        if "brain mask" not in self.faults and self.draw.random() < 0.05:
            mask = "_mask"
        if "ending" in self.faults:
            mask = str(self.draw.choice(["_masken", "_drawing", "_MASK"]))
        if self.layout in ("two folders", "table"):
            return [self.root / "images" / f"{case}{end}"], self.root / "labels" / f"{case}{end}"
        if self.layout == "siblings":
            return [self.root / f"{case}{end}"], self.root / f"{case}{mask}{end}"
        if self.layout == "sub-folders":
            return [self.root / "images" / f"{case}{end}"], self.root / "masks" / f"{case}{end}"
        if self.layout == "nnunet":
            files = [self.root / "imagesTr" / f"{case}_{n:04d}{end}" for n in range(len(self.channels))]
            return files, self.root / "labelsTr" / f"{case}{end}"
        begin = self.root / case if self.layout == "cases" else self.root
        prefix = "" if self.layout == "cases" else f"{case}_"
        return [begin / f"{prefix}{name}{end}" for name in self.channels], begin / f"{prefix}{mask[1:]}{end}"

    def make(self) -> DataFolder:
        self.calibrated = bool(self.draw.random() < 0.6)
        self.made = self.recipe()
        rows = [self._one(number) for number in range(self.count)]
        if self.layout == "table":
            self._table(rows)
        images = {"table": self.root / "pairs.csv", "two folders": self.root / "images"}.get(self.layout, self.root)
        labels = self.root / "labels" if self.layout == "two folders" else None
        if self.layout == "nnunet" and self.draw.random() < 0.7:
            named = {str(n): name for n, name in enumerate(self.channels)}
            (self.root / "dataset.json").write_text(json.dumps({"channel_names": named}))
        elif self.layout == "nnunet":
            images, labels = self.root / "imagesTr", self.root / "labelsTr"
        spacing = (2.0, 1.0, 1.0)[-self.dims :] if self.draw.random() < 0.2 else None
        channel = 0 if self.draw.random() < 0.3 else None
        options = ReadOptions(dims=self.dims, spacing=spacing, channel=channel)
        validation = None
        if self.layout == "two folders" and self.draw.random() < 0.2:
            validation = (images, labels)
        what = f"{self.layout}, {self.dims}D {self.end} {self.kind}, {self.count}: {', '.join(sorted(self.faults))}"
        return DataFolder(images, labels, self.made, options, validation, what)

    def _one(self, number: int) -> tuple[list[Path], Path]:
        files, label = self.names(number)
        images, labels = self.arrays(0 if self.hit("same image", number) else number)
        if self.hit("same image", number) and number:
            images = [nothing * 0 + 5 for nothing in images]
        for file, image in zip(files, images, strict=True):
            self.write(file, image, number, True)
        self.write(label, labels, number, False)
        self._around(files, label, number)
        return files, label

    def _around(self, files: list[Path], label: Path, number: int) -> None:
        folder = files[0].parent
        if "hidden" in self.faults:
            (folder / f"._{files[0].name}").write_bytes(b"\0\5\x16\7" + bytes(99))
            (label.parent / ".DS_Store").write_bytes(bytes(9))
        if "sidecar" in self.faults:
            files[0].with_suffix(".json").write_text("{}")
            (folder / "notes.txt").write_text("notes")
        if self.hit("two annotations", number):
            other = label.with_name(label.name.replace(self.end, f"_masks{self.end}"))
            other.write_bytes(label.read_bytes())
        if self.hit("two images", number):
            other = files[0].with_name(files[0].name.replace(self.end, ".jpg" if self.end != ".jpg" else ".png"))
            other.write_bytes(files[0].read_bytes())
        if "brain mask" in self.faults:
            other = folder / f"brainmask{self.end}"
            other.write_bytes(label.read_bytes())
        if self.hit("foreign", number):
            (folder / "x.czi").write_bytes(b"ZISRAWFILE" + bytes(99))
        if self.hit("missing annotation", number) or "no annotation" in self.faults:
            label.unlink()
        if self.hit("missing image", number):
            files[-1].unlink()
        if self.hit("link", number):
            files[-1].unlink(missing_ok=True)
            files[-1].symlink_to(folder / "nowhere")

    def _table(self, rows: list[tuple[list[Path], Path]]) -> None:
        separator = str(self.draw.choice([",", ";", "\t"]))
        columns = self.channels if len(self.channels) > 1 else ["image"]
        lines = [[*columns, "label"]]
        lines += [[str(file.relative_to(self.root)) for file in (*files, label)] for files, label in rows]
        (self.root / "pairs.csv").write_text("\n".join(separator.join(line) for line in lines))


def make_data_folder(root: Path, seed: int) -> DataFolder:
    """Write a data set that depends on the seed alone."""
    return _Maker(root, seed).make()
