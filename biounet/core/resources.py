"""What travels with biounet: samples, recipes and built-in models, in a source checkout and in an installed wheel."""

from __future__ import annotations

import difflib
from pathlib import Path

from biounet.core.arguments import as_path
from biounet.core.errors import MachineError, SettingsError

_PACKAGE = Path(__file__).resolve().parents[1]


def sample_folder() -> Path:
    """Return the folder of the samples: ``images/``, ``labels/`` and ``expected.json``.

    Raises
    ------
    MachineError
        If the installation lacks them.
    """
    return _folder("samples", "data_samples")


def recipes() -> dict[str, Path]:
    """Return the recipes that travel with biounet, by name."""
    return {path.stem: path for path in sorted(_folder("pipelines", "pipelines").glob("*.toml"))}


def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a recipe, given by its path or by a name such as ``nuclei_2d``.

    A file that exists wins over a built-in name.

    Raises
    ------
    SettingsError
        If there is neither such a file nor such a name; the hint gives the nearest name.
    """
    path = as_path(name_or_path, "the recipe")
    if path.is_file():
        return path
    known = recipes()
    if path.parent == Path() and path.name.removesuffix(".toml") in known:
        return known[path.name.removesuffix(".toml")]
    begun = [name for name in known if path.stem and name.startswith(path.stem)]
    near = " or ".join(f"'{name}'" for name in begun or difflib.get_close_matches(path.stem, known, n=1))
    hint = f"did you mean {near}?" if near else f"a path to a .toml file, or one of: {', '.join(known)}"
    raise SettingsError("no such recipe", path=name_or_path, hint=hint)


def builtin_models() -> dict[str, Path]:
    """Return the model files that travel with biounet, by name."""
    return {path.stem: path for path in sorted((_PACKAGE / "models").glob("*.safetensors"))}


def _folder(installed: str, in_checkout: str) -> Path:
    """Return a data folder of the wheel, or of the checkout that the package is imported from."""
    folders = (_PACKAGE / "_data" / installed, _PACKAGE.parent / in_checkout)
    for folder in folders:
        if folder.is_dir():
            return folder
    raise MachineError("this installation lacks its data files", path=folders[0], hint="install biounet again")
