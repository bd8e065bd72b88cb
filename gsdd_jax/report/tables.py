"""Tables of a run's config, and of its set's provenance and bytes."""

import datetime
import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from gsdd_jax import parameterizations
from gsdd_jax.config.fields import defaults_and_helps
from gsdd_jax.core.errors import counted, ranged
from gsdd_jax.formats.gaussian import Gaussian
from gsdd_jax.formats.labeler import WEIGHTS
from gsdd_jax.formats.labels import SOFT_LABELS
from gsdd_jax.rasterizer.gaussians import budget_bytes
from gsdd_jax.report.source import Run

Rows = list[list[str]]


def described(run: Run) -> str:
    """Returns one line: data set, images, format and bytes."""
    if run.last is None:
        return "no images yet"
    kind, data = run.last.format, run.provenance.get("data")
    classes = run.last.num_classes
    return (
        f"{data.get('name') if isinstance(data, dict) else run.config.get('data.name')} "
        f"{kind.shown_shape.replace('x', '×')}, {counted(classes, 'class')}: "
        f"{ranged(run.last.class_counts, 'image')} per class as {kind.name}, "
        f"{run.last.num_bytes / classes:,.1f} bytes per class"
    )


def config(run: Run) -> tuple[Rows, Rows]:
    """Returns the fields that differ from the defaults, and the others."""
    known, changed, same = defaults_and_helps(run.config), [], []
    for field, value in run.config.items():
        default, meaning = known.get(field, (None, ""))
        if field in known and _alike(value, default):
            same.append([_code(field), _code(value), meaning])
        else:
            was = _code(default, field in known)
            changed.append([_code(field), _code(value), was, meaning])
    return changed, same


def differences(runs: Sequence[Run]) -> Rows:
    """Returns the fields in which runs differ, one column per run.

    An empty group of options is not listed.
    """
    rows = []
    for field in dict.fromkeys(f for run in runs for f, value in run.config.items() if value != {}):
        values = [run.config.get(field) for run in runs]
        if not all(_alike(value, values[0]) for value in values):
            shown = [_code(run.config.get(field), field in run.config) for run in runs]
            rows.append([_code(field), *shown])
    return rows


def provenance(run: Run) -> list[tuple[str, Any]]:
    """Returns known versions, data, machine and times, by name."""
    versions, data = (run.provenance.get(name) for name in ("versions", "data"))
    versions = dict(versions) if isinstance(versions, dict) else {}
    # A version such as 0.1.0+g0123456789ab.changed names the commit of the code.
    version, _, commit = str(versions.pop("gsdd-jax", "")).partition("+")
    commit, _, changed = commit.removeprefix("g").partition(".")
    pairs = [("gsdd-jax", _code(version))] if version else []
    if commit:
        state = "changed since that commit" if changed else "as committed"
        pairs += [("commit", _code(commit)), ("code", state)]
    pairs += [(name, _code(number)) for name, number in versions.items()]
    if isinstance(data, dict):
        fingerprint = _code(str(data.get("fingerprint"))[:16])
        pairs.append(("data", Markup("{}, fingerprint {}").format(data.get("name"), fingerprint)))
    if "step" in run.provenance:
        pairs.append(("step of the set", run.provenance["step"]))
    if run.last and run.last.learning_rate is not None:
        pairs.append(("learning rate of networks", f"{run.last.learning_rate:.4g}"))
    if run.events.hosts:
        pairs.append(("machine", ", ".join(run.events.hosts)))
    if run.events.times:
        times = [datetime.datetime.fromtimestamp(t, datetime.UTC) for t in run.events.times]
        shown = " to ".join(f"{time:%Y-%m-%d %H:%M}" for time in times)
        pairs.append(("first and last entry", f"{shown} UTC"))
    return pairs


def storage(run: Run) -> dict[str, Any]:
    """Returns the use of the budget, facts, bits per Gaussian by field, and bytes by array."""
    set_, kind, used = run.last, run.last.format, run.last.num_bytes
    sizes = set_.stored_bytes
    of_labels = {"soft labels": sizes.pop(SOFT_LABELS, 0), "labeler": sizes.pop(WEIGHTS, 0)}
    num_images, ipc, budget = set_.num_stored, run.setting("budget.ipc"), None
    if ipc is not None:
        per_class = run.setting("budget.bytes") or budget_bytes(ipc, kind.image_shape)
        there = per_class * (num_images // kind.images_per_class)
        budget = (there, 100 * used / there, per_class / budget_bytes(1, kind.image_shape))
    facts = [("images", f"{num_images:,}"), ("bytes per image", f"{used / num_images:,.0f}")]
    stored = run.result.get("stored")
    if not isinstance(stored, dict):
        trained, params = parameterizations.of(set_)
        stored = trained.report(params)
    bits, counts = _numbers(stored, "bits_per_gaussian"), _numbers(stored, "gaussians_per_image")
    if isinstance(kind, Gaussian):
        bits = {n: 8 * size / num_images / kind.num_gaussians for n, size in sizes.items()}
        counts = dict.fromkeys(("least", "mean", "most"), kind.num_gaussians)
    if {"least", "mean", "most"} <= counts.keys():
        text = f"{counts['mean']:,.4g}"
        if counts["least"] != counts["most"]:
            text += f", from {counts['least']:,} to {counts['most']:,}"
        facts.append(("Gaussians per image", text))
    sizes |= {name: size for name, size in of_labels.items() if size}
    shares = [[n, f"{s:,}", f"{100 * s / used:.1f} %"] for n, s in {**sizes, "all": used}.items()]
    return {"used": used, "budget": budget, "facts": facts, "bits": bits, "shares": shares}


def _numbers(stored: dict[str, Any], name: str) -> dict[str, float]:
    found = stored[name] if isinstance(stored.get(name), dict) else {}
    return {n: v for n, v in found.items() if type(v) in (int, float) and 0 < v < math.inf}


def _alike(a: Any, b: Any) -> bool:
    """Returns whether values are equal, but True is not 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _code(value: Any, there: bool = True) -> Markup:
    if not there or value in ("", {}):
        return Markup('<code class="empty">{}</code>').format("empty" if there else "none")
    return Markup("<code>{}</code>").format(value)
