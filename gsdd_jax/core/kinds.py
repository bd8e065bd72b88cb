"""Components by name: `pixels` is the class in `pixels.py` with that `name`.

Names in files are untrusted: only modules of this library's packages are imported.
"""

import functools
import importlib
import importlib.util
import os
import pkgutil
import reprlib
from typing import Any

from gsdd_jax.core.errors import UsageError


def find(package: str, name: Any, base: type) -> type | None:
    """Returns the public class of `base` with that name in its module of `package`, or None."""
    if not isinstance(name, str) or name not in modules(package):
        return None
    module = importlib.import_module(f"{package}.{name}")
    for key, value in vars(module).items():
        if (
            isinstance(value, type)
            and issubclass(value, base)
            and value.__module__ == module.__name__
            and not key.startswith("_")
            and getattr(value, "name", None) == name
        ):
            return value
    return None


def known(package: str, base: type) -> dict[str, type]:
    """Returns all classes that `find` finds, by name."""
    found = {name: find(package, name, base) for name in sorted(modules(package))}
    return {name: kind for name, kind in found.items() if kind is not None}


def named(package: str, base: type, name: Any, field: str) -> type:
    """Returns the class that `find` finds, or raises UsageError, naming the config's field."""
    kind = find(package, name, base)
    if kind is None:
        expected = ", ".join(known(package, base))
        raise UsageError(f"{field}: expected one of {expected}, got {reprlib.repr(name)}")
    return kind


def modules(package: str) -> frozenset[str]:
    """Returns the names of a package's modules, without importing them."""
    places = importlib.util.find_spec(package).submodule_search_locations
    return _listed(tuple((place, os.stat(place).st_mtime_ns) for place in places))


@functools.cache
def _listed(places: tuple[tuple[str, int], ...]) -> frozenset[str]:
    """Returns the modules in folders, given with the times of their last changes."""
    found = pkgutil.iter_modules([place for place, _ in places])
    return frozenset(module.name for module in found)
