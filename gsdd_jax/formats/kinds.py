"""Classes by their module's name: `pixels` is the one in `pixels.py` whose `name` is that.

A name may come from a file of others. It is looked up among the modules that a package of this
library has, and no other is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import reprlib
from typing import Any

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.base import Format, from_settings

FORMATS, PARAMETERIZATIONS = "gsdd_jax.formats", "gsdd_jax.parameterizations"


def find(package: str, name: Any, base: type) -> type | None:
    """The public class of `base` whose `name` is `name`, in that module of `package`; or None."""
    if not isinstance(name, str) or name not in _modules(package):
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
    found = {name: find(package, name, base) for name in sorted(_modules(package))}
    return {name: kind for name, kind in found.items() if kind is not None}


def format_of(values: dict[str, Any]) -> Format:
    """The format that a file describes; a parameterization where that is all there is of the name.

    Raises UsageError for a name that nothing has, or whose parameterization takes JAX, which is not
    installed; and as `from_settings`.
    """
    name = values.get("name")
    kind = find(FORMATS, name, Format)
    if kind is None and isinstance(name, str) and name in _modules(PARAMETERIZATIONS):
        try:
            kind = find(PARAMETERIZATIONS, name, Format)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"parameterization {name}: to be read with {error.name} alone, which is not "
                "installed"
            ) from None
    if kind is None:
        raise UsageError(
            f"parameterization: expected one of {', '.join(known(FORMATS, Format))}, "
            f"got {reprlib.repr(name)}"
        )
    return from_settings(values, kind)


def _modules(package: str) -> set[str]:
    """The names of a package's modules, none of which is imported."""
    spec = importlib.util.find_spec(package)
    return {module.name for module in pkgutil.iter_modules(spec.submodule_search_locations)}
