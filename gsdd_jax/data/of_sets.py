"""Transforms of distilled sets, from the data sets on disk that made them."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data.dataset import load
from gsdd_jax.formats import transforms


def transform(
    name: str,
    provenance: Mapping[str, Any],
    fingerprint: str | None,
    data_dir: str | os.PathLike | None = None,
) -> transforms.Normalize | transforms.ZCA:
    """Returns the transform `name` ("normalize" or "zca") of the data named in `provenance`.

    Raises UsageError if the data are missing, or have another fingerprint.
    """
    dataset = load(**_arguments(provenance.get("config")), data_dir=data_dir)
    if dataset.fingerprint != fingerprint:
        raise UsageError(f"the {dataset.name} on this machine is another version")
    if name == "normalize":
        return transforms.Normalize(np.float32(dataset.mean), np.float32(dataset.std))
    return transforms.cached_zca(dataset.train.images, dataset.fingerprint)


def _arguments(config: Any) -> dict[str, Any]:
    config = config if isinstance(config, dict) else {}
    fields = ("name", "subset", "resize", "classes")
    name, subset, resize, classes = (config.get(f"data.{n}", "") for n in fields)
    side, frames = (config.get(f"data.{n}", 0) for n in ("resolution", "frames"))
    texts = all(isinstance(value, str) for value in (name, subset, resize, classes))
    if not texts or not name or not type(side) is type(frames) is int:
        raise UsageError("provenance.config does not say which data the set was made from")
    return {
        "name": name,
        "subset": subset or None,
        "resolution": side or None,
        "resize": resize or "crop",
        "frames": frames or None,
        "classes": classes,
    }
