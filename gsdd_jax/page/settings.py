"""The config of a run, what differs from the defaults first, and where its set comes from."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gsdd_jax.page.markup import Markup, element, table
from gsdd_jax.report.source import Run

# From the fields of a config to the default of each field and what it means.
Defaults = Callable[[Mapping[str, Any]], Mapping[str, tuple[Any, str]]]
NONE = element("code", "none", class_="empty")  # no such field


def section(run: Run, defaults: Defaults) -> list[Markup | None]:
    """Two tables, the second one folded."""
    known = defaults(run.config)
    changed, same = [], []
    for field, value in run.config.items():
        default, meaning = known.get(field, (None, ""))
        if field in known and _alike(value, default):
            same.append([_code(field), _code(value), meaning])
        else:
            was = _code(default) if field in known else NONE
            changed.append([_code(field), _code(value), was, meaning])
    parts = [element("p", "Every field has its default.", class_="note")]
    if changed:
        parts = [table(["field", "value", "default", "meaning"], changed, class_="fields")]
    if same:
        folded = table(["field", "value", "meaning"], same, class_="fields")
        summary = element("summary", f"{len(same)} fields as by default")
        parts.append(element("details", summary, folded))
    return parts


def differences(runs: Sequence[Run]) -> Markup:
    """The fields in which runs differ; a run a column. Options that one has and another has not
    say so themselves, without the group that is empty then."""
    fields = dict.fromkeys(f for run in runs for f, value in run.config.items() if value != {})
    rows = []
    for field in fields:
        values = [run.config.get(field) for run in runs]
        if any(not _alike(value, values[0]) for value in values):
            shown = [_code(run.config[field]) if field in run.config else NONE for run in runs]
            rows.append([_code(field), *shown])
    if not rows:
        return element("p", "The configs are the same.", class_="note")
    return table(["field", *(run.name for run in runs)], rows, class_="fields of-runs")


def provenance(run: Run) -> list[Markup | None]:
    """Versions, data, machine and times, as far as the files say."""
    found = run.provenance
    pairs = []
    versions = found.get("versions")
    for name, number in (versions if isinstance(versions, dict) else {}).items():
        if name == "gsdd-jax":
            pairs += _code_state(str(number))
        else:
            pairs.append((name, _code(number)))
    data = found.get("data")
    if isinstance(data, dict):
        pairs.append(("data", [str(data.get("name")), ", fingerprint ",
                               _code(str(data.get("fingerprint"))[:16])]))  # fmt: skip
    if "step" in found:
        pairs.append(("step of the set", str(found["step"])))
    rate = run.last.learning_rate if run.last else None
    if rate is not None:
        pairs.append(("learning rate of networks", f"{rate:.4g}"))
    if run.events.hosts:
        pairs.append(("machine", ", ".join(run.events.hosts)))
    if run.events.times:
        first, last = (_time(t) for t in run.events.times)
        pairs.append(("first and last entry", f"{first} to {last} UTC"))
    if not pairs:
        return [element("p", "Nothing is known of how it was made.", class_="note")]
    items = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return [element("dl", *items, class_="facts")]


def _code_state(version: str) -> list[tuple[str, Any]]:
    """A version such as 0.1.0+g0123456789ab.changed: the number, the commit, whether the code was
    as committed."""
    number, _, local = version.partition("+")
    pairs = [("gsdd-jax", _code(number))]
    if local:
        commit, _, state = local.removeprefix("g").partition(".")
        pairs.append(("commit", _code(commit)))
        pairs.append(("code", "changed since that commit" if state else "as committed"))
    return pairs


def _time(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M}"


def _alike(a: Any, b: Any) -> bool:
    """A number is a number, but True is not 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _code(value: Any) -> Markup:
    text = "empty" if value in ("", {}) else str(value)
    return element("code", text, class_="empty" if value in ("", {}) else None)
