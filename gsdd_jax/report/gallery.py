"""Images of a run by class, at every kept step, as sprite sheets and as ellipses."""

import base64
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from gsdd_jax import parameterizations
from gsdd_jax.figures import geometry, inputs
from gsdd_jax.formats.base import CodedTogether, Format, is_unequal
from gsdd_jax.formats.clips import unfolded
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.gaussian import Gaussians
from gsdd_jax.report.source import Run
from gsdd_jax.runs import real_images
from gsdd_jax.runs.contact_sheet import GAP, contact_sheet, filmstrips, png

SHOWN = real_images.MOST  # images per class, until the reader asks for all
PIXELS = 950_000  # of all sheets of a page, about 2 to 3 MB
LEAST = 2  # images per class of any size
# A Gaussian is nine integers in these units, as in script.js: center relative to the image's sides,
# half axes in pixels, angle in degrees, color and opacity in 8 bits.
UNITS = np.array([1 << 14] * 2 + [1 << 6] * 2 + [100] + [255] * 4)


def section(run: Run, num_runs: int, per_class: int) -> dict[str, Any]:
    """Returns the data of script.js, class names, and sheets with titles."""
    kind, last_step = run.last.format, list(run.sets)[-1]
    num_classes = run.last.num_classes
    last, before = share(run, num_runs, per_class)
    there = max(run.last.class_counts)
    frames, sheets = [], []
    for step, set_ in run.sets.items():
        some = chosen(set_, last if step == last_step else before)
        sheets.append(
            (
                f"step {step}",
                _sheet(np.asarray(parameterizations.rendered(some)), some.labels, kind),
            )
        )
        counts = np.bincount(some.labels).tolist()
        frames.append({"step": step, "images": counts, "gaussians": gaussians(some)})
    width = kind.frames * kind.width  # of a filmstrip
    data = {"height": kind.height, "width": width, "gap": GAP, "shown": SHOWN, "real": 0}
    if run.real is not None:
        some = run.real[:, : min(there, SHOWN)]
        labels = np.repeat(np.arange(num_classes), some.shape[1])
        sheets.append(("real ones", _sheet(some.reshape(-1, *some.shape[2:]) / 255, labels, kind)))
        data["real"] = some.shape[1]
    names = [run.class_name(label) for label in range(num_classes)]
    share_ = {"last": last, "before": before, "there": there}
    share_["up_to"] = "up to " if is_unequal(run.last.class_counts) else ""
    return {"data": data | {"frames": frames}, "classes": names, "sheets": sheets} | share_


def share(run: Run, num_runs: int, per_class: int = 0) -> tuple[int, int]:
    """Returns the most images per class in the file: of the last step, and of each earlier one.

    `PIXELS` limits them unless `per_class` is given.
    """
    kind, num_before = run.last.format, len(run.sets) - 1
    num_classes = run.last.num_classes
    room = PIXELS // num_runs // (num_classes * kind.height * kind.width * kind.frames)
    there = max(run.last.class_counts)
    last = min(per_class or max(room // (2 if num_before else 1), LEAST), there)
    return last, min(per_class or max((room - last) // max(num_before, 1), LEAST), last)


def chosen(set_: DistilledSet, per_class: int) -> DistilledSet:
    """Returns the first images of each class, ordered by class; valid only for rendering."""
    set_ = set_.without_mixes()
    classes = np.unique(set_.labels)
    indices = np.concatenate([np.flatnonzero(set_.labels == c)[:per_class] for c in classes])
    if np.array_equal(indices, np.arange(len(set_.labels))):
        return set_
    if isinstance(set_.format, Gaussians):
        set_ = inputs.as_gaussians(set_)
    kind, params = parameterizations.of(set_)
    sizes = {"images_per_class": min(per_class, kind.images_per_class)}
    if is_unequal(set_.class_counts):  # as if all were of one class
        sizes["images_per_class"] = len(indices)
        if isinstance(kind, CodedTogether):
            sizes |= {"num_classes": 1, "bytes_per_class": kind.most_bytes}
    kind = dataclasses.replace(kind, **sizes)
    some = inputs.with_params(set_, kind, kind.select(params, jnp.asarray(indices)))
    return dataclasses.replace(some, labels=set_.labels[indices], soft_labels=None)


def gaussians(set_: DistilledSet) -> dict[str, Any] | None:
    """Returns Gaussians per image, and all records as base64 int16; None for others and for clips.

    Records are ellipses at exp(-1/2) of the rendered peak, pre-filter included, with colors and
    opacities clipped to [0, 1].
    """
    kind = set_.format
    if not inputs.of_images(kind):
        return None
    flat, counts = inputs.one_after_the_other(set_)
    there = flat.colors.any(-1)  # padding is black
    counts = [int(some.sum()) for some in np.split(there, np.cumsum(counts)[:-1])]
    flat = jax.tree.map(lambda field: field[there], flat)
    centers, axes, angles = geometry.ellipses(flat, kind.height, kind.width, kind.prefilter)
    opacities = flat.opacities if kind.opacity else np.ones_like(flat.opacities)
    colors = np.broadcast_to(flat.colors, (len(opacities), 3))  # one channel is gray
    shown = np.clip(np.column_stack([colors, opacities]), 0, 1)
    numbers = np.column_stack([centers / [kind.width, kind.height], axes, angles, shown]) * UNITS
    # Clipped numbers are far outside of the image.
    records = np.clip(numbers.round(), -(1 << 15), (1 << 15) - 1).astype("<i2").tobytes()
    return {"counts": counts, "records": base64.b64encode(records).decode()}


def _sheet(images: np.ndarray, labels: Int[np.ndarray, "m"], kind: Format) -> str:
    """Returns a data URL of a PNG with a row per class; clips of `kind` as filmstrips."""
    if kind.frames > 1:
        images = filmstrips(unfolded(images, kind.frames))
    content = png(contact_sheet(images, labels, len(labels), len(labels)), scale=1)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
