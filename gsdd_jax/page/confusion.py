"""What the test images of each class were taken for."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from gsdd_jax.page.markup import Markup, element, table
from gsdd_jax.report.source import Run

MOST = 20  # classes of a whole matrix; of more, only what happens most often is told
PAIRS = 10  # that are told then
DARKEST = 50  # percent of the colour, so that the number on it is read


def details(run: Run) -> Markup | None:
    """Of the networks that learned from the distilled set; None where the result has none."""
    counts = run.confusion("distilled")
    if counts is None:
        return None
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [run.class_name(label) for label in range(len(counts))]
    if len(names) <= MOST:
        heading, content = "Confusion matrix", _matrix(names, counts, shares)
        note = "A row is a class, a column what its test images were taken for, in percent."
    else:
        heading, content = "Most frequent confusions", _pairs(names, shares)
        note = f"What test images were taken for most often, of {len(names)} classes."
    return element(
        "details", element("summary", heading), element("p", note, class_="note"), content
    )


def _matrix(
    names: list[str], counts: Int[np.ndarray, "k k"], shares: Float[np.ndarray, "k k"]
) -> Markup:
    """A number in every cell, on as much colour as it is large."""
    heads = [element("th", element("span", name), scope="col") for name in names]
    body = []
    for i, name in enumerate(names):
        total, cells = counts[i].sum(), []
        for j, other in enumerate(names):
            # By the square root, so that one percent is seen beside eighty.
            color = DARKEST * math.sqrt(shares[i, j] / 100)
            cells.append(
                element(
                    "td",
                    f"{shares[i, j]:.0f}",
                    class_="right" if i == j else None,
                    title=f"{name} as {other}: {counts[i, j]:,} of {total:,}",
                    style=f"--color:{color:.1f}%",
                )
            )
        body.append(element("tr", element("th", name, scope="row"), cells))
    head = element("tr", element("th", "class", scope="col"), heads)
    content = element("table", element("thead", head), element("tbody", body), class_="confusion")
    return element("div", content, class_="scrolls")


def _pairs(names: list[str], shares: Float[np.ndarray, "k k"]) -> Markup:
    """The largest numbers beside the diagonal."""
    wrong = np.where(np.eye(len(names), dtype=bool), 0.0, shares)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    rows = [
        [names[i], names[j], f"{wrong[i, j]:.1f} %"]
        for i, j in zip(*np.unravel_index(largest, wrong.shape), strict=True)
    ]
    return table(["class", "taken for", "of its test images"], rows)
