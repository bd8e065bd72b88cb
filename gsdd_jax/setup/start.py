"""A finished set that a distillation begins with, in place of a fit."""

import hashlib
import os
import pathlib
import reprlib
from typing import NamedTuple

from ml_collections import ConfigDict

from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.files import check_path
from gsdd_jax.formats import file
from gsdd_jax.formats.base import settings
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.setup.experiment import FitParts


class Start(NamedTuple):
    """A set, and the SHA-256 of its file."""

    set_: DistilledSet
    sha256: str


def opened(config: ConfigDict, parts: FitParts, workdir: str | os.PathLike) -> Start | None:
    """Returns the set that `config.init.set` names, or None.

    Raises UsageError, naming the first difference, if it is not stored as the run's sets are or has
    other classes, and if it lies in the work directory, where the run replaces it.
    """
    if not config.init.set:
        return None
    with located("config.init.set"):
        check_path(config.init.set)
        path = file.path_of(config.init.set)
        if pathlib.Path(workdir).resolve() in path.resolve().parents:
            raise UsageError(f"{path}: expected a set outside the run's own directory {workdir}")
        set_ = file.load(path).without_mixes()
        with located(path):
            there, expected = settings(set_.format), settings(parts.parameterization)
            expected.pop("bytes_per_class", None)  # codes become coarser where they have fewer
            for name in parts.parameterization.differs(set_.format):
                expected.pop(name)
            there["classes"], expected["classes"] = len(set_.labels), len(parts.labels)
            for fields, counts in ((there, set_.class_counts), (expected, parts.counts)):
                fields["images of each class"] = list(counts)
            if set_.class_names:
                of_both = (there, set_.class_names), (expected, parts.dataset.class_names)
                for fields, names in of_both:
                    fields |= {f"class {i}": name for i, name in enumerate(names)}
            for name, value in expected.items():
                if there.get(name) != value:
                    value, got = map(reprlib.repr, (value, there.get(name)))
                    raise UsageError(f"{name}: expected {value}, as in this run, got {got}")
    return Start(set_, hashlib.sha256(path.read_bytes()).hexdigest())
