"""Validation of a data set's files before TFDS reads them.

TFDS imports the module of every feature class that `features.json` names: a folder from elsewhere
could run code. Only TFDS's own classes pass; they are imported already.
"""

import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import check_tree, read_object

# Spellings in JSON and in protocol buffers; before version 4.6 it was "type", next to "content".
_CLASS_FIELDS = ("pythonClassName", "python_class_name")


def check(folder: pathlib.Path) -> None:
    """Raises UsageError, naming the file, if a version or configuration of the set in `folder`
    names a foreign class or contains a special file."""
    if not folder.is_dir():
        return
    # NAME/VERSION, or NAME/CONFIGURATION/VERSION; TFDS reads no deeper.
    for levels in ("*", "*/*"):
        for path in sorted(folder.glob(f"{levels}/features.json")):
            check_tree(path.parent)
            for name in _class_names(read_object(path, "the features of a data set")):
                if name not in _own_classes():
                    raise UsageError(
                        f"{path}: expected feature classes of tensorflow_datasets, got "
                        f"{name!r:.100}, which would be imported"
                    )
    default = folder / ".config" / "metadata.json"
    if default.exists():
        read_object(default, "the default configuration of a data set")


def _class_names(value: Any) -> Iterator[str]:
    """Yields all classes named anywhere in a JSON value, and in JSON nested as text."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):  # a text, or nothing that TFDS could read
                continue
        if isinstance(value, dict):
            fields = _CLASS_FIELDS + (("type",) if "content" in value else ())
            yield from (value[f] for f in fields if isinstance(value.get(f), str))
            left += value.values()
        elif isinstance(value, list):
            left += value


@functools.cache
def _own_classes() -> frozenset[str]:
    """Returns the feature classes of TFDS, by the names in its files."""
    import tensorflow_datasets as tfds

    kinds = [kind for kind in vars(tfds.features).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if issubclass(kind, tfds.features.FeatureConnector)]
    names = {f"{kind.__module__}.{kind.__name__}" for kind in kinds}
    return frozenset(names.union(*(getattr(kind, "ALIASES", ()) for kind in kinds)))
