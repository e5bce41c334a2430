"""What can be said about images and their annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from biounet.core.annotation import UNLABELLED, Kind
from biounet.core.volume import Unit


class Settings(BaseModel):
    """Frozen and strict base: a change is a new value, a misspelt key is an error, and a number is finite.

    Each has bounds far beyond what is of use: beyond them, a file from elsewhere could ask for any memory or time.

    Attributes
    ----------
    former_names
        Settings that were called otherwise in earlier versions, by the old name. Old recipes and models have those.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    former_names: ClassVar[Mapping[str, str]] = {}

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
    """What the images and annotations hold.

    Attributes
    ----------
    kind
        What an annotation file holds: ``instances``, ``classes`` or ``scribbles``.
    dims
        2 for images, 3 for volumes.
    channels
        Names of the channels that the network sees, in order.
    annotation
        Name of the annotation where it lies beside the images of its case, or patterns: ``"lesions"`` is
        ``p1/lesions.nii.gz``, ``p1/p1_lesions.nii.gz`` or ``p1_lesions.nii.gz``. None: the usual names, ``seg``,
        ``label``, ``lesions``, ``tumour`` and the like, of which a mask is none.
    classes
        Names of the values 1, 2, … of ``classes`` and ``scribbles``. 0 has none: it is background in ``classes``, and
        where nobody drew in ``scribbles``, of which one class may be called ``background``.
    unlabelled
        Value on disk of voxels that nobody labelled.
    palette
        For colour-coded annotations: ``"#RRGGBB"`` to the name of a class, ``"background"`` or ``"unlabelled"``.
    regions
        For ``classes``: regions that may contain each other, each the values of its classes, from the outermost to the
        innermost. The network then says of each region whether a voxel belongs to it, and such a voxel gets the first
        value that only the innermost of its regions has.
    unknown
        For ``classes``: regions, or classes, that nobody drew in a case, by the name of its annotation or of the folder
        that this lies in. They do not exist there.
    slices
        Axis of the file, ``z``, ``y`` or ``x``, along which only those slices are labelled that hold any label; None:
        all are. Of objects in volumes, contour and distance are then learned from their sections.
    slice_numbers
        The slices along that axis that are labelled, counted from 0, instead of those that hold any label.
    pixel_size_um
        Working grid in µm per pixel. None works on the pixels of the images as they are.
    voxel_size
        Working grid of volumes along z, y and x. Training plans it as the median of the training images where it is
        empty. Of volumes with an affine these are the axes of the patient, z to superior, y to anterior and x to the
        right, in whatever order the voxels are stored.
    voxel_unit
        Unit of `voxel_size`, that of the files: ``mm`` for NIfTI, ``um`` for TIFF. Training takes it from the training
        images; images in another unit are then refused.
    min_lesion_mm3
        For ``classes`` of volumes: a smaller lesion is not counted, neither in the table of an image nor when lesions
        are compared with the truth. It stays in the label image and in the volume of its class. Without effect where
        nobody knows how large a voxel is.
    validation
        Share of the training images that is held out when no validation folder is given.
    """

    kind: Kind = "instances"
    dims: Literal[2, 3] = 2
    channels: tuple[str, ...] = Field(default=("intensity",), min_length=1, max_length=256)
    annotation: tuple[str, ...] = ()
    classes: tuple[str, ...] = Field(default=(), max_length=254)  # label images of classes have 8 bits
    unlabelled: int = Field(default=UNLABELLED, ge=-(2**31), lt=2**31)
    palette: dict[str, str] = Field(default_factory=dict)
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
        known = {*self.classes, "background", "unlabelled"}
        for colour, name in self.palette.items():
            if name not in known:
                raise ValueError(f"palette: {colour} is called '{name}', which is none of {sorted(known)}")
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
        """Names of the classes that are not background."""
        return tuple(name for name in self.classes if name != "background")

    @property
    def section_axis(self) -> int | None:
        """The axis normal to the labelled planes, whose sections are learned; None where whole objects are."""
        return "zyx".index(self.slices) if self.kind == "instances" and self.dims == 3 and self.slices else None

    @property
    def label_values(self) -> dict[str, tuple[int, ...]]:
        """The regions, or else the classes, and the values of each; empty for instances."""
        return self.regions or {name: (value,) for value, name in enumerate(self.foreground, 1)}

    @property
    def overlapping(self) -> dict[str, tuple[int, ...]]:
        """The regions that the network tells apart one by one; empty where its classes exclude each other.

        A class that is unknown in some cases makes every class a region of its own.
        """
        return self.label_values if self.regions or self.unknown else {}

    @property
    def exclusive(self) -> bool:
        """Whether the outputs of the network exclude each other, as classes do; objects' heads and regions do not."""
        return self.kind != "instances" and not self.overlapping


def region_label(regions: Mapping[str, tuple[int, ...]], name: str) -> int | None:
    """Return the first class of a region that no region after it has: what its voxels are called."""
    names = list(regions)
    inner = {value for other in names[names.index(name) + 1 :] for value in regions[other]}
    return next((value for value in regions[name] if value not in inner), None)
