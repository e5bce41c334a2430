"""Data files of biounet: samples, recipes and built-in models, in a checkout or an installed wheel."""

from __future__ import annotations

import difflib
from pathlib import Path

from biounet.core.arguments import as_path
from biounet.core.errors import MachineError, SettingsError

_PACKAGE = Path(__file__).resolve().parents[1]


def sample_folder() -> Path:
    """Return the folder of the samples: ``images/``, ``labels/`` and ``expected.json``.

    Raise `MachineError` if the installation has none.
    """
    return _folder("samples", "data_samples")


def recipes() -> dict[str, Path]:
    """Return the built-in recipes by name."""
    return {path.stem: path for path in sorted(_folder("pipelines", "pipelines").glob("*.toml"))}


def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a recipe, given by its path or by a name such as ``nuclei_2d``.

    A file that exists wins over a built-in name. Raise `SettingsError` with the nearest name if there is neither.
    """
    path = as_path(name_or_path, "the recipe")
    if path.is_file():
        return path
    builtin, name = recipes(), path.name.removesuffix(".toml")
    if path.parent == Path() and name in builtin:
        return builtin[name]
    completions = [name for name in builtin if path.stem and name.startswith(path.stem)]
    near = " or ".join(f"'{name}'" for name in completions or difflib.get_close_matches(path.stem, builtin, n=1))
    hint = f"did you mean {near}?" if near else f"a path to a .toml file, or one of: {', '.join(builtin)}"
    raise SettingsError("no such recipe", path=name_or_path, hint=hint)


def builtin_models() -> dict[str, Path]:
    """Return the files of the built-in models by name."""
    return {path.stem: path for path in sorted((_PACKAGE / "models").glob("*.safetensors"))}


def _folder(installed: str, in_checkout: str) -> Path:
    """Return a data folder of the wheel, or of the checkout that the package is imported from."""
    folders = (_PACKAGE / "_data" / installed, _PACKAGE.parent / in_checkout)
    for folder in folders:
        if folder.is_dir():
            return folder
    raise MachineError("this installation lacks its data files", path=folders[0], hint="install biounet again")
