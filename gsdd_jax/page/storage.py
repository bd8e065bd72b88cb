"""What a set takes: bytes of its budget, and bits of each field."""

from __future__ import annotations

from typing import Any

from gsdd_jax import parameterizations
from gsdd_jax.formats.gaussian import Gaussian
from gsdd_jax.page.markup import Markup, element, table
from gsdd_jax.page.source import Run
from gsdd_jax.rasterizer.gaussians import budget_bytes


def section(run: Run) -> list[Markup | None]:
    """The use of the budget, bits a Gaussian by field, bytes by stored array."""
    if run.last is None:
        return [element("p", run.missing["sets"], class_="note")]
    set_ = run.last
    used = set_.num_bytes
    sizes = {name.replace("_", " "): size for name, size in set_.stored_bytes.items()}
    rows = [[name, f"{size:,}", f"{100 * size / used:.1f} %"] for name, size in sizes.items()]
    rows.append(["all", f"{used:,}", "100.0 %"])
    return [
        _budget(run, used),
        _bits(run, sizes),
        table(["stored", "bytes", "share"], rows, class_="numbers"),
    ]


def _budget(run: Run, used: int) -> Markup:
    set_ = run.last
    num_images = len(set_.labels)
    facts = [("images", f"{num_images:,}"), ("bytes an image", f"{used / num_images:,.0f}")]
    ipc = run.config.get("budget.ipc")
    if type(ipc) is not int or ipc < 1:
        return _facts([("bytes", f"{used:,}"), *facts])
    kind = set_.format
    there = budget_bytes(ipc, kind.image_shape) * (num_images // kind.images_per_class)
    share = 100 * used / there
    bar = element(
        "div", element("span", style=f"width:{min(share, 100):.2f}%", class_="part c0"),
        class_="bar", role="img", aria_label=f"{share:.1f} % of the budget is used",
    )  # fmt: skip
    head = element("p", element("strong", f"{used:,}"), f" of {there:,} bytes, {share:.1f} %: the "
                   f"budget is {ipc:,} float32 image{'s' if ipc > 1 else ''} a class")  # fmt: skip
    return element("div", head, bar, _facts(facts + _gaussians(run)))


def _bits(run: Run, sizes: dict[str, int]) -> Markup | None:
    """A bar of the fields, each as wide as its bits of a Gaussian."""
    bits = _bits_by_field(run, sizes)
    if not bits:
        return None
    total = sum(bits.values())
    parts, legend = [], []
    for i, (name, value) in enumerate(bits.items()):
        parts.append(
            element("span", style=f"width:{100 * value / total:.2f}%", class_=f"part c{i}")
        )
        text = f"{name} {value:.1f}"
        legend.append(element("li", element("span", class_=f"swatch c{i}"), text))
    described = ", ".join(f"{name} {value:.1f}" for name, value in bits.items())
    bar = element(
        "div", *parts, class_="bar", role="img", aria_label=f"Bits a Gaussian: {described}"
    )
    return element("div", element("h3", f"{total:.1f} bits a Gaussian"), bar,
                   element("ul", *legend, class_="legend"))  # fmt: skip


def _bits_by_field(run: Run, sizes: dict[str, int]) -> dict[str, float]:
    kind = run.last.format
    if isinstance(kind, Gaussian):
        count = len(run.last.labels) * kind.num_gaussians
        return {name: 8 * size / count for name, size in sizes.items() if name != "soft labels"}
    found = _stored(run).get("bits_per_gaussian")
    found = found if isinstance(found, dict) else {}
    numbers = {n: v for n, v in found.items() if type(v) in (int, float) and 0 < v < float("inf")}
    return numbers if len(numbers) <= 6 else {}


def _gaussians(run: Run) -> list[tuple[str, str]]:
    kind = run.last.format
    if isinstance(kind, Gaussian):
        return [("Gaussians an image", f"{kind.num_gaussians:,}")]
    found = _stored(run).get("gaussians_per_image")
    if not isinstance(found, dict) or not all(
        type(found.get(n)) in (int, float) for n in ("least", "mean", "most")
    ):
        return []
    text = f"{found['mean']:.4g}"
    if found["least"] != found["most"]:
        text += f", from {found['least']:,} to {found['most']:,}"
    return [("Gaussians an image", text)]


def _stored(run: Run) -> dict[str, Any]:
    """What the parameterization reports of the set."""
    found = run.result.get("stored")
    if isinstance(found, dict):
        return found
    kind, params = parameterizations.of(run.last)
    return kind.report(params)


def _facts(facts: list[tuple[str, str]]) -> Markup:
    pairs = [element("div", element("dt", name), element("dd", value)) for name, value in facts]
    return element("dl", *pairs, class_="facts")
