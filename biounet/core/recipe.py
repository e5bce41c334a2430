"""Recipes: the settings of all stages, read from TOML."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from biounet.core import settings
from biounet.core.data_settings import DataSettings, Settings
from biounet.core.errors import SettingsError


class Recipe(Settings):
    """Settings of all stages of a model.

    Attributes
    ----------
    name, purpose
        What a model is called, and what it is for.
    licence, authors
        Of the model and the images that it learns from, for those who get it: an SPDX name such as ``CC-BY-4.0``, and
        the names of people.
    """

    name: str = "model"
    purpose: str = ""
    licence: str = ""
    authors: tuple[str, ...] = ()
    data: DataSettings = DataSettings()
    normalise: settings.NormaliseSettings = settings.NormaliseSettings()
    network: settings.NetworkSettings = settings.NetworkSettings()
    targets: settings.TargetSettings = settings.TargetSettings()
    loss: settings.LossSettings = settings.LossSettings()
    augment: settings.AugmentSettings = settings.AugmentSettings()
    train: settings.TrainSettings = settings.TrainSettings()
    label: settings.LabelSettings = settings.LabelSettings()

    @model_validator(mode="after")
    def _axes_fit(self) -> Recipe:
        dims, patch = self.data.dims, self.train.patch
        per_axis = {
            "train.patch": (patch,) if isinstance(patch, tuple) else (),
            "network.fold": (self.network.fold,) if self.network.fold else (),
            "network.pools": self.network.pools,
            "network.kernels": self.network.kernels,
        }
        for name, values in per_axis.items():
            if any(len(value) != dims or min(value) < 1 for value in values):
                raise ValueError(f"{name} = {values}: {dims} positive numbers for each")
        if any(size % 2 == 0 for kernel in self.network.kernels for size in kernel):
            raise ValueError(f"network.kernels = {self.network.kernels}: odd numbers")
        levels = len(self.network.widths)
        if self.network.pools and (len(self.network.pools), len(self.network.kernels)) != (levels - 1, levels):
            raise ValueError(f"network: {levels} widths need {levels - 1} pools and {levels} kernels")
        return self

    def replace(self, section: str, **changes: Any) -> Recipe:  # noqa: ANN401
        """Return a validated copy with some settings of one section changed; former names are understood."""
        data, current = self.model_dump(), getattr(self, section).former_names
        data[section] |= {current.get(name, name): value for name, value in changes.items()}
        return parse_recipe(data)


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a TOML file.

    Raise `SettingsError` if the file is missing, is not TOML, or has an unknown key or invalid value.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError("no such recipe", path=path) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"not a TOML recipe: {error}", path=path) from error
    return parse_recipe(data, path)


def parse_recipe(data: Mapping[str, Any], path: str | Path | None = None) -> Recipe:
    """Return the recipe of nested mappings.

    Raise `SettingsError` with the first invalid key and its value, or for an unknown key the nearest known one.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise settings_error(error, Recipe, path) from None


def settings_error(error: ValidationError, kind: type[Settings], path: str | Path | None) -> SettingsError:
    """Return the first error of a file of settings in one line, for an unknown key with the nearest known one."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        cause = first["msg"].removeprefix("Value error, ")
        value = "" if isinstance(first["input"], Mapping) else f" = {first['input']!r}"
        return SettingsError(f"{name}{value}: {cause}" if name else cause, path=path)
    section: Any = kind
    for part in first["loc"][:-1]:
        section = section.model_fields[str(part)].annotation
    names = list(section.model_fields)
    near = difflib.get_close_matches(str(first["loc"][-1]), names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(names)}"
    return SettingsError(f"unknown setting '{name}'", path=path, hint=hint)
