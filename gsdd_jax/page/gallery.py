"""The images of a run by class, at every step that was kept: as sprite sheets and as ellipses."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from gsdd_jax import parameterizations
from gsdd_jax.figures import inputs
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.gaussian import Gaussians
from gsdd_jax.page import outlines
from gsdd_jax.page.markup import Markup, element, script_data
from gsdd_jax.page.source import Run
from gsdd_jax.runs import beside
from gsdd_jax.runs.contact_sheet import GAP, contact_sheet, png

SHOWN = beside.MOST  # images a class before all are asked for
PIXELS = 950_000  # of all sheets of a page, about: 2 to 3 MB
LEAST = 2  # images a class, however large they are


class Share(NamedTuple):
    """How many images a class are in the file."""

    last: int  # of the last step
    before: int  # of each step before
    real: int


def share(run: Run, num_runs: int, per_class: int = 0) -> Share:
    """As many as `PIXELS` hold; or `per_class` of every step where that is not 0."""
    kind = run.last.format
    there, before = kind.images_per_class, len(run.sets) - 1
    real = min(there, SHOWN) if run.real is not None else 0
    if per_class:
        return Share(min(per_class, there), min(per_class, there), real)
    of_a_class = len(run.last.labels) // there * kind.height * kind.width
    room = PIXELS // num_runs // of_a_class - real
    last = min(there, max(room // 2 if before else room, LEAST))
    return Share(last, min(last, max((room - last) // max(before, 1), LEAST)), real)


def section(run: Run, share: Share, prefix: str) -> list[Markup | None]:
    """The controls, an empty place for each class, and the data that script.js fills them with.

    Args:
      run: with at least one set.
      share: what of it is in the file.
      prefix: of ids.
    """
    kind, steps = run.last.format, list(run.sets)
    frames, sheets = [], []
    for step, set_ in run.sets.items():
        most = share.last if step == steps[-1] else share.before
        some = chosen(set_, most)
        frames.append({"step": step, "perClass": most, "outlines": outlines.packed(some)})
        sheet = _sheet(np.asarray(parameterizations.images(some)), some.labels)
        sheets.append(_image(sheet, f"The images of all classes at step {step}"))
    classes = len(run.last.labels) // kind.images_per_class
    data = {"height": kind.height, "width": kind.width, "gap": GAP, "shown": SHOWN,
            "frames": frames, "real": 0}  # fmt: skip
    if run.real is not None:
        some = run.real[:, : share.real]
        labels = np.repeat(np.arange(classes), some.shape[1])
        sheet = _sheet(some.reshape(-1, *some.shape[2:]) / 255, labels)
        sheets.append(_image(sheet, "Real images of all classes"))
        data["real"] = some.shape[1]
    names = [run.class_name(label) for label in range(classes)]
    return [
        _controls(run, frames, share, prefix),
        element("div", *(_card(name, run.real is not None) for name in names), class_="classes"),
        *(element("p", note, class_="note") for note in _notes(run, share)),
        element("div", *sheets, class_="sheets"),
        element("script", script_data(data), type="application/json"),
    ]


def chosen(set_: DistilledSet, per_class: int) -> DistilledSet:
    """The first images of each class, class after class; only for rendering, for there is no such
    set by itself."""
    indices = np.concatenate([
        np.flatnonzero(set_.labels == label)[:per_class] for label in np.unique(set_.labels)
    ])  # fmt: skip
    if np.array_equal(indices, np.arange(len(set_.labels))):
        return set_
    if isinstance(set_.format, Gaussians):
        set_ = inputs.as_gaussians(set_)
    kind, params = parameterizations.of(set_)
    kind = dataclasses.replace(kind, images_per_class=per_class)
    chosen = inputs.with_params(set_, kind, kind.select(params, indices))
    return dataclasses.replace(chosen, labels=set_.labels[indices], soft_labels=None)


def _sheet(images: np.ndarray, labels: Int[np.ndarray, "m"]) -> bytes:
    """A PNG with a row for each class."""
    everything = dict(per_class=len(labels), num_classes=len(labels))
    return png(contact_sheet(images, np.asarray(labels), **everything), scale=1)


def _image(content: bytes, alt: str) -> Markup:
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return element("img", src=url, alt=alt, decoding="sync")


def _controls(run: Run, frames: list[dict[str, Any]], share: Share, prefix: str) -> Markup:
    parts = []
    if len(frames) > 1:
        last = len(frames) - 1
        slider = element(
            "input", type="range", id=f"{prefix}-step", class_="step", min=0, max=last, value=last,
            step=1, aria_valuetext=f"step {frames[-1]['step']}",
        )  # fmt: skip
        label = element("label", "step", for_=f"{prefix}-step")
        output = element("output", f"{frames[-1]['step']:,}", for_=f"{prefix}-step")
        parts.append(element("div", label, slider, output, class_="slider"))
    if frames[-1]["outlines"]:
        choices = [
            element("label", element("input", type="radio", name=f"{prefix}-view", value=value,
                                     checked=value == "images"), element("span", text))
            for value, text in (("images", "Images"), ("ellipses", "Gaussians"))
        ]  # fmt: skip
        legend = element("legend", "shown as", class_="unseen")
        parts.append(element("fieldset", legend, *choices, class_="switch"))
    if share.last > SHOWN:
        text = f"All {share.last} a class"
        parts.append(element("button", text, type="button", class_="all", aria_pressed="false"))
    return element("div", *parts, class_="controls")


def _card(name: str, has_real: bool) -> Markup:
    real = [element("p", "real", class_="kind"), element("div", class_="strip real")]
    return element(
        "section", element("h3", name), element("div", class_="strip made"),
        *(real if has_real else []), class_="class",
    )  # fmt: skip


def _notes(run: Run, share: Share) -> list[str]:
    notes, there = [], run.last.format.images_per_class
    if share.last < there:
        notes.append(
            f"The file has {share.last} of {there} images a class; launch.report --images={there} "
            "puts all into it."
        )
    if len(run.sets) > 1 and share.before < share.last:
        notes.append(f"Of each step before the last the file has {share.before} images a class.")
    if run.real is not None:
        began = run.config.get("init.images") == "real"
        notes.append(
            "The real images are those that the images above them began as."
            if began
            else "The real images are some of the training images of the class."
        )
    notes += [run.missing[piece] for piece in ("snapshots", "real") if piece in run.missing]
    return notes
