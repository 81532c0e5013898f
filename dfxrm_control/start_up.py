"""The first thing every entry point does: check that our packages are ours.

`devices`, `plans`, `simulators` and `configs` are plain names that a user's own file may bear as well. Python
takes whichever it meets first on its path, so a ``plans.py`` in the working directory would silently stand in
for the plans of this distribution. This module imports nothing that is heavy and none of the packages it
checks.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from dfxrm_control.errors import ConfigError

__all__ = ["PACKAGES", "check_packages"]

PACKAGES = ("devices", "plans", "simulators", "configs")


def check_packages(working_directory: Path | None = None) -> None:
    """Make sure that `devices`, `plans`, `simulators` and `configs` are those installed with `dfxrm_control`.

    Parameters
    ----------
    working_directory : Path, optional
        A folder that will come first on Python's path although it does not yet, as IPython does with the working one.

    Raises
    ------
    ConfigError
        When another file or folder bears one of the names and would be imported instead; the sentence names it.
    """
    home = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        ours = home / package / "__init__.py"
        found = _origin(package)
        if found is None and not ours.is_file():
            raise ConfigError(f"package {package!r} is missing from this installation of dfxrm-control ({home})")
        if found is not None and not _same(found, ours):
            raise ConfigError(_in_the_way(package, found, ours))
        if working_directory is not None:
            spec = PathFinder.find_spec(package, [str(working_directory)])
            # a folder without __init__.py has no origin, and loses to a package further down the path
            if spec is not None and spec.origin and not _same(Path(spec.origin), ours):
                raise ConfigError(_in_the_way(package, Path(spec.origin), ours))


def _origin(package: str) -> Path | None:
    """Return the file that importing ``package`` runs or ran, without importing it."""
    loaded = sys.modules.get(package)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if file else None
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    if spec.origin:
        return Path(spec.origin)
    places = list(spec.submodule_search_locations or ())
    return Path(places[0]) if places else None


def _same(found: Path, ours: Path) -> bool:
    return found.resolve() == ours.resolve()


def _in_the_way(package: str, found: Path, ours: Path) -> str:
    return (
        f"{found} is in the way of the package {package!r} of dfxrm-control ({ours.parent}): "
        f"rename or move it, or start from another folder"
    )
