"""Gaussians that change places: from where they pay least to where the gradient is largest.

All Gaussians of a set lie in one array, image after image; behind the last image's there may be
slots that belong to none. A move frees the slots of some Gaussians and splits others into them, so
that shapes stay while every image comes to a number of its own.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gsdd_jax.rasterizer.gaussians import GaussianImages

# Halves of a Gaussian along a column of L, so far apart and so much shorter that together they have
# its mean and covariance, and so much fainter that they have its mass.
APART, SHORTER = 0.5, 0.75**0.5
FAINTER = 0.5 / SHORTER


class Move(NamedTuple):
    """Where every slot takes its content from."""

    source: Int[Array, "n"]  # the slot it was in, or its parent's
    half: Int[Array, "n"]  # of a split parent: 1 or -1; 0: as it was
    counts: Float[Array, "m"]  # Gaussians of each image, afterwards

    def __call__(self, leaf: Float[Array, "before *s"]) -> Float[Array, "n *s"]:
        """One number, or vector, of every Gaussian after the move."""
        return leaf[self.source]


def owners(counts: Float[Array, "m"], slots: int) -> Int[Array, "slots"]:
    """The image that each slot belongs to; m: none."""
    ends = jnp.cumsum(counts).astype(jnp.int32)
    return jnp.searchsorted(ends, jnp.arange(slots), side="right").astype(jnp.int32)


def plan(
    counts: Float[Array, "m"],
    worth: Float[Array, "n"],
    strain: Float[Array, "n"],
    moved: int,
    most_added: int,
    total: Int[Array, ""],
) -> Move:
    """Frees the slots of the least worth, and splits what is under the largest strain into them.

    Every image keeps the Gaussian that is worth most to it.

    Args:
      counts: Gaussians of each image; n of them and of free slots in all.
      worth: what each one pays.
      strain: what each one lacks.
      moved: how many change places; static.
      most_added: by how many the number of all may change beyond that; static.
      total: how many there should be afterwards.
    """
    slots, images = len(worth), len(counts)
    owner = owners(counts, slots)
    alive = in_use(counts, slots)
    change = jnp.clip(total, 1, slots) - counts.sum().astype(jnp.int32)
    change = jnp.clip(change, -most_added, most_added)
    freed = moved + jnp.maximum(-change, 0)
    added = moved + jnp.maximum(change, 0)
    best = jax.ops.segment_max(worth, owner, num_segments=images + 1)
    worth = jnp.where(alive & (worth < best[owner]), worth, jnp.inf)
    gone = (_rank(worth) < freed) & jnp.isfinite(worth)
    kept = alive & ~gone
    added = added - (freed - gone.sum())  # fewer, where not so many may go
    few = min(slots, moved + most_added)
    strained, parents = jax.lax.top_k(jnp.where(kept, strain, -jnp.inf), few)
    born = (jnp.arange(few) < added) & jnp.isfinite(strained)
    halved = jnp.zeros(slots, jnp.int32).at[parents].add(born.astype(jnp.int32))
    source = jnp.concatenate([jnp.arange(slots), parents])
    half = jnp.concatenate([halved, jnp.where(born, -1, 0)])
    lives = jnp.concatenate([kept, born])
    key = jnp.where(lives, owner[source], images)
    order = jnp.argsort(key, stable=True)[:slots]
    counts = jnp.zeros(images + 1).at[key].add(1.0)[:images]
    return Move(source[order], half[order], counts)


def apply(gaussians: GaussianImages, move: Move) -> GaussianImages:
    """The Gaussians after a move; a parent's halves lie along the longer column of its L."""
    g = jax.tree.map(move, gaussians)
    half = move.half[:, None]
    l11, l21, l22 = jnp.moveaxis(g.cholesky, -1, 0)
    is_first = _is_first(g)
    first = jnp.where(is_first & (move.half != 0), SHORTER, 1.0)
    second = jnp.where(~is_first & (move.half != 0), SHORTER, 1.0)
    cholesky = jnp.stack([first * (l11 + 0.5) - 0.5, first * l21, second * (l22 + 0.5) - 0.5], -1)
    return dataclasses.replace(
        g,
        means=g.means + APART * half * lengths(g),
        cholesky=jnp.where(half != 0, cholesky, g.cholesky),
        colors=jnp.where(half != 0, FAINTER, 1.0) * g.colors,
    )


def lengths(gaussians: GaussianImages) -> Float[Array, "n 2"]:
    """The longer column of each L, in the units of means."""
    g = gaussians
    l11, l21, l22 = jnp.moveaxis(g.cholesky, -1, 0)
    first, second = jnp.stack([l11 + 0.5, l21], -1), jnp.stack([jnp.zeros_like(l22), l22 + 0.5], -1)
    pixels = jnp.array([g.width, g.height], jnp.float32)
    return jnp.where(_is_first(g)[:, None], first, second) * 2 / pixels


def energies(gaussians: GaussianImages) -> Float[Array, "n"]:
    """Of each Gaussian's own picture, up to a factor: what its absence costs in squared error."""
    g = gaussians
    l11, l21, l22 = jnp.moveaxis(g.cholesky, -1, 0)
    a, b, c = l11 + 0.5, l21, l22 + 0.5
    determinant = (a * c) ** 2 + (a**2 + b**2 + c**2) / 12 + 1 / 144  # pre-filter and all
    return g.opacities**2 * (g.colors**2).sum(-1) * jnp.sqrt(determinant)


def _is_first(g):
    """Whether the first column of L is the longer one."""
    l11, l21, l22 = jnp.moveaxis(g.cholesky, -1, 0)
    return (l11 + 0.5) ** 2 + l21**2 >= (l22 + 0.5) ** 2


def chosen(
    gaussians: GaussianImages, counts: Float[Array, "m"], indices: Int[Array, "k"]
) -> tuple[GaussianImages, Float[Array, "k"]]:
    """The Gaussians of some images, which differ, in front of all slots; and their counts."""
    owner = owners(counts, len(gaussians.opacities))
    place = jnp.full(len(counts) + 1, len(indices)).at[indices].set(jnp.arange(len(indices)))
    order = jnp.argsort(place[owner], stable=True)
    return jax.tree.map(lambda leaf: leaf[order], gaussians), counts[indices]


def _rank(values: Float[Array, "n"]) -> Int[Array, "n"]:
    """The place of each among all, from the least."""
    order = jnp.argsort(values, stable=True)
    return jnp.zeros(len(values), jnp.int32).at[order].set(jnp.arange(len(values)))


def in_use(counts: Float[Array, "m"], slots: int) -> Bool[Array, "slots"]:
    """Whether a slot belongs to an image."""
    return jnp.arange(slots) < counts.sum()
