"""Distilled sets in other formats, one file each, found by name."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from gsdd_jax.core import swap
from gsdd_jax.core.errors import UsageError, counted, ranged
from gsdd_jax.exports import hf, mp4, npz, png, tfds, torch, webdataset
from gsdd_jax.exports.place import MARK, SET, WHAT, Pictures, refuse_existing
from gsdd_jax.formats import file, transforms
from gsdd_jax.formats.distilled import DistilledSet

ARRAYS = {"npz": npz.write, "torch": torch.write}  # files
PICTURES = {  # folders
    "hf": hf.write,
    "mp4": mp4.write,
    "png": png.write,
    "tfds": tfds.write,
    "webdataset": webdataset.write,
}
NO_CLIPS, ONLY_CLIPS = ("hf",), ("mp4",)
FORMATS = (*ARRAYS, *PICTURES)


def export(
    distilled: DistilledSet,
    path: str | os.PathLike,
    to: str,
    *,
    space: str | None = None,
    resolution: int | None = None,
    data_dir: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> str:
    """Writes a distilled set in one of `FORMATS`, atomically; returns a line that reports it.

    Args:
      path: file (npz, torch) or folder (hf, mp4, png, tfds, webdataset).
      space: "training" or "unit", see `DistilledSet`. None: "unit" for pictures, which are clipped
        to [0, 1] and take no other, else "training".
      resolution: pixels per side; None: the set's own.
      data_dir: directory of TFDS data sets, for a transform that has to be computed.
      overwrite: whether an earlier export at `path` is replaced.

    Raises UsageError for an invalid setting, an unavailable transform, or a `path` that exists and
    must not be replaced.
    """
    if to not in FORMATS:
        raise UsageError(f"to: expected one of {', '.join(FORMATS)}, got {to!r}")
    as_pictures = to in PICTURES
    space = space or ("unit" if as_pictures else "training")
    if as_pictures and space != "unit":
        raise UsageError(
            f"space: expected unit for {to}, whose 8 bits hold [0, 1], got {space!r}; npz and "
            "torch hold any numbers"
        )
    frames = distilled.format.frames
    unable = NO_CLIPS if frames > 1 else ONLY_CLIPS
    if to in unable:
        able = ", ".join(name for name in FORMATS if name not in unable)
        of = f"clips of {frames} frames" if frames > 1 else "images"
        raise UsageError(f"to: expected one of {able} for {of}, got {to!r}")
    path = pathlib.Path(path)
    refuse_existing(path, overwrite, as_pictures, sources=[distilled.source])
    size: dict[str, Any] = dict(height=resolution, width=resolution)
    try:
        transform = distilled.find_transform(data_dir=data_dir) if space == "training" else None
        images, targets = distilled.numpy(space, transform=transform, **size)
    except UsageError:
        raise
    except ValueError as error:  # an invalid resolution
        raise UsageError(str(error)) from None
    soft = targets if targets.ndim == 2 else None
    without = ""
    if distilled.labeler is not None:
        kept = "labels of its labeler" if soft is not None else "hard labels"
        without = f"; with {kept}, which are not those of augmented views"
    noun = "clip" if frames > 1 else "image"
    what = f"{counted(len(images), noun)} of {'x'.join(map(str, images.shape[1:]))}"
    if not as_pictures:
        ARRAYS[to](path, images, distilled.labels, soft)
        of_space = "as in training" if space == "training" else "in [0, 1] space"
        return f"{path}: {what}, {of_space}{without}"
    about = {"distilled": distilled.provenance, "format": to}
    with swap.folder(path, MARK, about, WHAT) as made:
        names = distilled.class_names
        of_set = distilled.labels, names, images.shape[1:], soft, distilled
        PICTURES[to](made, Pictures(png.rounded(images), *of_set))
    labels = " with soft labels" if soft is not None else ""
    loss = ", compressed with loss" if to == "mp4" else ""
    return f"{path}: {what}{labels}, clipped to [0, 1] and rounded to 8 bits{loss}{without}"


def save(
    distilled: DistilledSet,
    path: str | os.PathLike,
    overwrite: bool = False,
    made_of: Sequence[DistilledSet] = (),
) -> str:
    """Writes a distilled set for `gsdd_jax.load`, atomically; returns a line that reports it.

    Raises UsageError if `path` exists and is no distilled set to replace, or one of those that the
    set is `made_of`.
    """
    sources = [of.source for of in made_of]
    refuse_existing(pathlib.Path(path), overwrite, of_folder=False, what=SET, sources=sources)
    file.save(path, distilled)
    classes, each = distilled.num_classes, ranged(distilled.class_counts, "image")
    return (
        f"{path}: {counted(classes, 'class')} of {each} as "
        f"{distilled.format.name}; {distilled.num_bytes:,} bytes, "
        f"{distilled.num_bytes / classes:,.1f} per class"
    )


def export_transform(
    distilled: DistilledSet,
    path: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> str:
    """Writes the transform of space "training", for `transform=PATH`; returns a line.

    Raises UsageError if it is unavailable, or if `path` exists and must not be replaced.
    """
    path = pathlib.Path(path)
    refuse_existing(path, overwrite, of_folder=False, sources=[distilled.source])
    transform = distilled.find_transform(data_dir=data_dir)
    description = distilled.transform_description()
    transforms.save(path, transform, description)
    return f"{path}: the {description['name']} transform of this set"
