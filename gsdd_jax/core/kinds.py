"""Finds components by name: `pixels` is the class in `pixels.py` whose `name` is that.

A name may come from a file of others. It is looked up among the modules that a package of this
library has; no other is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import reprlib
from typing import Any

from gsdd_jax.core.errors import UsageError


def find(package: str, name: Any, base: type) -> type | None:
    """The public class of `base` whose `name` is `name`, in that module of `package`; or None."""
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
    """All classes that `find` finds, by name."""
    found = {name: find(package, name, base) for name in sorted(modules(package))}
    return {name: kind for name, kind in found.items() if kind is not None}


def named(package: str, base: type, name: Any, field: str) -> type:
    """The class that `find` finds. Raises UsageError, naming the config's field, where none is."""
    kind = find(package, name, base)
    if kind is None:
        expected = ", ".join(known(package, base))
        raise UsageError(f"{field}: expected one of {expected}, got {reprlib.repr(name)}")
    return kind


def modules(package: str) -> set[str]:
    """The names of a package's modules, none of which is imported."""
    spec = importlib.util.find_spec(package)
    return {module.name for module in pkgutil.iter_modules(spec.submodule_search_locations)}
