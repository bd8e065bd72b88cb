"""Description of a distilled set as plain values and as text."""

import json
from collections.abc import Mapping
from typing import Any

from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, counted, printable, ranged
from gsdd_jax.formats.base import settings
from gsdd_jax.formats.clips import shown_shape
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.labeler import LABELER
from gsdd_jax.formats.parts import PARTS, PRIVACY


@checked
def info(distilled: DistilledSet) -> dict[str, Any]:
    """Returns what a set is and where it comes from, as plain JSON values.

    Values that the provenance lacks are None. `images_per_class` is the mean of `images_by_class`.
    `besides` are files that a reader needs, which do not count. `parts` are the data, step and
    classes of the sets that a merged or cut set was made of.
    """
    made, kind, classes = distilled.provenance, distilled.format, distilled.num_classes
    of_kind = settings(kind)
    return {
        "file": distilled.source,
        "data": distilled.data.get("name"),
        "fingerprint": distilled.data.get("fingerprint"),
        "classes": distilled.class_names and list(distilled.class_names),
        "num_classes": classes,
        "images_per_class": kind.images_per_class,
        "images_by_class": list(distilled.class_counts),
        "image_shape": list(kind.image_shape),
        "format": of_kind.pop("name"),
        "settings": {n: v for n, v in of_kind.items() if n not in _SHOWN},
        "bytes": distilled.stored_bytes,
        "num_bytes": distilled.num_bytes,
        "bytes_per_class": distilled.num_bytes / classes,
        "besides": list(kind.besides),
        "label_bits": distilled.label_bits,
        "mixes": distilled.mixes,
        LABELER: distilled.labeler and distilled.labeler.settings,
        "transform": _transform(distilled),
        "learning_rate": float(distilled.learning_rate),
        "step": made.get("step"),
        "begun_with": made.get("begun_with"),
        PRIVACY: made.get(PRIVACY),
        "versions": made.get("versions"),
        PARTS: [_part(part) for part in _listed(made)],
    }


LONGEST = 400  # characters of a value for people
MOST_PARTS = 100  # for people
_SHOWN = ("height", "width", "channels", "images_per_class", "num_classes")


def origins(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the provenances of the distillations that a set comes from, each once."""
    parts = _listed(provenance)
    found = [of for part in parts for of in origins(part)] if parts else [provenance]
    return list({json.dumps(of, sort_keys=True): of for of in found}.values())


def text(said: Mapping[str, Any]) -> str:
    """Returns the lines of `info` for people, one for each value, whatever a file holds."""
    height, width, channels = said["image_shape"]
    names = said["classes"]
    lines = {
        "data": said["data"],
        "fingerprint": said["fingerprint"],
        "classes": f"{said['num_classes']}" + (f": {', '.join(names)}" if names else ""),
        "images": f"{ranged(said['images_by_class'], 'image')} per class of "
        + shown_shape((height, width, channels), said["settings"].get("frames", 1))
        + mixtures(said),
        "format": said["format"],
        "settings": _pairs(said["settings"]),
        "bytes": f"{said['num_bytes']:,}, {said['bytes_per_class']:,.1f} per class: "
        + _pairs(said["bytes"]),
        "labels": labels(said),
        "transform": _pairs(_of_a_frame(said["transform"], said["settings"].get("frames", 1))),
        "learning rate": f"{said['learning_rate']:g}",
        "step": said["step"],
        "versions": _pairs(said["versions"]),
    }
    if said["besides"]:
        lines["not counted"] = "; ".join(said["besides"])
    if said["begun_with"] is not None:
        lines["begun with"] = _pairs(said["begun_with"])
    if said[PRIVACY] is not None:
        lines["privacy"] = _pairs(said[PRIVACY])
    lines |= {f"part {i + 1}": _pairs(part) for i, part in enumerate(said[PARTS][:MOST_PARTS])}
    if more := len(said[PARTS][MOST_PARTS:]):
        lines["more parts"] = f"{more:,}"
    width = max(map(len, lines))
    shown = {n: "unknown" if v is None else printable(str(v), LONGEST) for n, v in lines.items()}
    return "\n".join(f"{name:{width}}  {value}" for name, value in shown.items())


def labels(said: Mapping[str, Any]) -> str:
    """Returns the kind of labels."""
    if (of := said[LABELER]) is not None:
        return (
            f"of every view, by a labeler: ConvNet of width {of['width']} and depth {of['depth']}, "
            f"{of['bits']} bits per weight, temperature {of['temperature']:g}"
        )
    bits = said["label_bits"]
    return f"soft, {bits} bits per image and class" if bits else "hard"


def _of_a_frame(transform: Any, frames: Any) -> Any:
    """Returns a transform with the constants of one frame, where those of all are equal."""
    if not isinstance(transform, dict) or type(frames) is not int or frames < 2:
        return transform

    def short(value: Any) -> Any:
        one = value[: len(value) // frames] if isinstance(value, list) else value
        return one if isinstance(value, list) and one * frames == value else value

    return {name: short(value) for name, value in transform.items()}


def mixtures(said: Mapping[str, Any]) -> str:
    """Returns what follows a number of images, or nothing for a set without mixtures."""
    return f", and {counted(said['mixes'], 'mixture')} of each" if said["mixes"] else ""


def _transform(distilled) -> dict[str, Any] | None:
    try:
        said = distilled.transform_description()
    except UsageError:
        return None
    return {name: value for name, value in said.items() if name != "data_fingerprint"}


def _listed(provenance) -> list[dict[str, Any]]:
    """Returns the provenances of a set's parts; a file may hold anything there."""
    parts = provenance.get(PARTS)
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _part(provenance) -> dict[str, Any]:
    data = provenance.get("data")
    data = data if isinstance(data, dict) else {}
    found = {"data": data.get("name"), "step": provenance.get("step")}
    found["classes"] = data.get("class_names")
    return found | ({PRIVACY: provenance[PRIVACY]} if PRIVACY in provenance else {})


def _pairs(values: Any) -> str | None:
    if not isinstance(values, dict):
        return None if values is None else json.dumps(values)
    return ", ".join(f"{n} {v if isinstance(v, str) else json.dumps(v)}" for n, v in values.items())
