"""Settings of images and annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from biounet.core.annotation import UNLABELLED, Kind
from biounet.core.volume import Unit


class Settings(BaseModel):
    """Base of settings: frozen, without unknown keys, with finite numbers.

    The bounds of fields only exclude values with which a foreign file could demand any memory or time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    former_names: ClassVar[Mapping[str, str]] = {}  # present names of settings by those of earlier versions

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
        if not isinstance(value, Mapping):
            return value
        for old, new in cls.former_names.items():
            if old in value and new in value:
                raise ValueError(f"'{old}' is the former name of '{new}': give only one of them")
        return {cls.former_names.get(name, name): setting for name, setting in value.items()}


class DataSettings(Settings):
    """Content of images and annotations.

    Attributes
    ----------
    annotation
        Names or patterns of annotations in the folder of the images of their case: ``"lesions"`` is
        ``p1/lesions.nii.gz``, ``p1/p1_lesions.nii.gz`` or ``p1_lesions.nii.gz``. Empty: the usual names, such as
        ``seg``, ``label``, ``lesions`` and ``tumour``, but not masks.
    classes
        Names of the values 1, 2, … of ``classes`` and ``scribbles``. 0 is background in ``classes`` and unlabelled in
        ``scribbles``, where a class may be called ``background``.
    unlabelled
        Value of unlabelled voxels on disk.
    palette
        For annotations in colours: the class, ``"background"`` or ``"unlabelled"`` of each ``"#RRGGBB"``.
    overlap
        Of outlines that other programs drew: where two objects overlap, the ``later`` one in the file is on top, or the
        pixels are ``unlabelled``.
    window_class
        Class or name of the regions, in files of outlines, in which everything was looked at: what is not outlined
        there is background, and elsewhere unlabelled. Without any, the whole image was looked at.
    cell_part
        Which outline is taken of cells in files of QuPath that have two: that of the ``cell`` or of its ``nucleus``.
    regions
        For ``classes``: the values of nested regions, from the outermost to the innermost. The network predicts each
        region, and a voxel gets the label of its innermost region (`region_label`).
    unknown
        For ``classes``: regions or classes that are not annotated in a case, by the name of its annotation or folder.
        They are unlabelled there.
    slices, slice_numbers
        Axis of the file along which only some slices are labelled, and their numbers from 0, or empty: those with any
        label. Contour and distance of objects in volumes are then learned from sections.
    pixel_size_um
        Pixel size of the working grid in µm; None: images are not resampled.
    voxel_size, voxel_unit
        Voxel size of the working grid of volumes, ``(z, y, x)``, in ``mm`` (NIfTI) or ``um`` (TIFF), the only unit of
        images then; empty: training takes the median of the training images. For volumes with an affine the axes are
        those of the patient, superior, anterior and right.
    min_lesion_mm3
        For ``classes`` of volumes: smaller lesions are not counted, in tables and in evaluation. They stay in the label
        image and in the volume of their class. Without effect on uncalibrated volumes.
    validation
        Fraction of the training images that is held out if there is no validation folder.
    """

    kind: Kind = "instances"
    dims: Literal[2, 3] = 2
    channels: tuple[str, ...] = Field(default=("intensity",), min_length=1, max_length=256)
    annotation: tuple[str, ...] = ()
    classes: tuple[str, ...] = Field(default=(), max_length=254)  # label images of classes have 8 bits
    unlabelled: int = Field(default=UNLABELLED, ge=-(2**31), lt=2**31)
    palette: dict[str, str] = Field(default_factory=dict)
    overlap: Literal["later", "unlabelled"] = "later"
    window_class: str = Field(default="looked at", min_length=1, max_length=256)
    cell_part: Literal["cell", "nucleus"] = "cell"
    regions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    unknown: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    slices: Literal["z", "y", "x"] | None = None
    slice_numbers: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = ()
    pixel_size_um: float | None = Field(default=None, ge=1e-5, le=1e6)
    voxel_size: tuple[Annotated[float, Field(ge=1e-5, le=1e6)], ...] = ()
    voxel_unit: Unit | None = None
    min_lesion_mm3: float = Field(default=0.0, ge=0)
    validation: float = Field(default=0.1, ge=0, lt=1)

    @field_validator("annotation", mode="before")
    @classmethod
    def _one_name_or_several(cls, value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
        return (value,) if isinstance(value, str) else value

    @field_validator("annotation")
    @classmethod
    def _names_of_files(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not name.strip("*_ ") or "/" in name or "\\" in name:
                raise ValueError("the name of a file without its folder and suffix, or a pattern such as '*_lesions'")
        return tuple(name.removesuffix(".gz").removesuffix(".nii").removesuffix(".tif") for name in value)

    @model_validator(mode="after")
    def _names_fit(self) -> DataSettings:
        if self.kind == "instances" and self.classes:
            raise ValueError("annotations of kind 'instances' have no classes")
        if self.kind == "classes" and not self.classes:
            raise ValueError("annotations of kind 'classes' need the names of the classes")
        for what, names in (("channels", self.channels), ("classes", self.classes)):
            folded = [name.casefold() for name in names]
            if twice := next((name for name in names if folded.count(name.casefold()) > 1), None):
                raise ValueError(f"{what}: '{twice}' stands there more than once")
        meanings = {*self.classes, "background", "unlabelled"}
        for colour, name in self.palette.items():
            if name not in meanings:
                raise ValueError(f"palette: {colour} is called '{name}', which is none of {sorted(meanings)}")
        return self

    @model_validator(mode="after")
    def _regions_fit(self) -> DataSettings:
        if (self.regions or self.unknown) and self.kind != "classes":
            raise ValueError("regions and unknown are for annotations of kind 'classes'")
        for name, values in self.regions.items():
            if not values or not all(1 <= value <= len(self.classes) for value in values):
                raise ValueError(f"regions.{name} = {list(values)}: classes from 1 to {len(self.classes)}")
        unclear = [name for name in self.regions if region_label(self.regions, name) is None]
        if unclear:
            raise ValueError(f"regions.{unclear[0]}: the regions after it hold all of its classes")
        for case, names in self.unknown.items():
            for name in names:
                if name not in (self.regions or self.foreground):
                    raise ValueError(f"unknown.{case}: '{name}' is none of {list(self.regions or self.foreground)}")
        if self.slices == "z" and self.dims == 2:
            raise ValueError("slices = 'z': an image has no axis z")
        if self.slice_numbers and self.slices is None:
            raise ValueError("slice_numbers needs slices, the axis that they are counted along")
        if self.voxel_size and len(self.voxel_size) != self.dims:
            raise ValueError(f"voxel_size needs {self.dims} numbers")
        if self.voxel_unit and not self.voxel_size:
            raise ValueError("voxel_unit needs voxel_size, whose unit it is")
        return self

    @property
    def foreground(self) -> tuple[str, ...]:
        """Names of the classes except background."""
        return tuple(name for name in self.classes if name != "background")

    @property
    def section_axis(self) -> int | None:
        """The axis normal to the labelled planes, whose sections are learned; None where whole objects are."""
        return "zyx".index(self.slices) if self.kind == "instances" and self.dims == 3 and self.slices else None

    @property
    def label_values(self) -> dict[str, tuple[int, ...]]:
        """Values of each region, or of each class without regions; empty for instances."""
        return self.regions or {name: (value,) for value, name in enumerate(self.foreground, 1)}

    @property
    def overlapping(self) -> dict[str, tuple[int, ...]]:
        """The regions that the network predicts independently; empty where its classes exclude each other.

        If a class is `unknown` in some case, all classes are regions.
        """
        return self.label_values if self.regions or self.unknown else {}

    @property
    def exclusive(self) -> bool:
        """Whether the network's outputs exclude each other: classes do, regions and the heads of objects do not."""
        return self.kind != "instances" and not self.overlapping


def region_label(regions: Mapping[str, tuple[int, ...]], name: str) -> int | None:
    """Return the label of a region: its first value that no later region has; None without one."""
    names = list(regions)
    inner = {value for other in names[names.index(name) + 1 :] for value in regions[other]}
    return next((value for value in regions[name] if value not in inner), None)
