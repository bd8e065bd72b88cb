"""Gaussians that change places: the move against loops, the fit and the distillation around it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.data import transforms
from gsdd_jax.parameterizations import density
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.training import distill, fit

pytestmark = pytest.mark.usefixtures("quickly_compiled")

COUNTS = [3, 1, 0, 6, 2]
SLOTS = 16  # four are of none


def build(gpc=4, **options):
    return parameterizations.build(
        "quantized", (16, 16, 3), ipc=1, gpc=gpc, num_classes=2, **options
    )


def by_loops(counts, worth, strain, moved, most_added, total):
    """Which Gaussians go and which are split: two sets of slots."""
    owner = [b for b, count in enumerate(counts) for _ in range(count)]
    change = max(-most_added, min(most_added, total - len(owner)))
    best = [max((i for i, o in enumerate(owner) if o == b), key=lambda i: worth[i], default=None)
            for b in range(len(counts))]  # fmt: skip
    free = sorted((i for i in range(len(owner)) if i not in best), key=lambda i: worth[i])
    gone = set(free[: moved + max(0, -change)])
    born = moved + max(0, change) - (moved + max(0, -change) - len(gone))
    kept = sorted((i for i in range(len(owner)) if i not in gone), key=lambda i: -strain[i])
    return owner, gone, set(kept[: max(0, born)])


@pytest.mark.parametrize(
    ("moved", "most_added", "total"), [(0, 0, 12), (2, 0, 12), (3, 2, 20), (2, 3, 10), (8, 0, 12)]
)
def test_a_move_frees_what_pays_least_and_splits_what_lacks_most(moved, most_added, total):
    rng = np.random.default_rng(moved)
    worth, strain = rng.permutation(SLOTS).astype(np.float32), rng.random(SLOTS, np.float32)
    owner, gone, split = by_loops(COUNTS, worth, strain, moved, most_added, total)
    plan = jax.jit(density.plan, static_argnums=(3, 4))
    move = plan(jnp.array(COUNTS, jnp.float32), worth, strain, moved, most_added, jnp.int32(total))
    expected = []  # (image, slot it comes from, half)
    for i, image in enumerate(owner):
        if i not in gone:
            expected += [(image, i, 1), (image, i, -1)] if i in split else [(image, i, 0)]
    count = len(expected)
    counts = np.asarray(move.counts, int)
    images = np.repeat(np.arange(len(COUNTS)), counts)
    found = zip(images, np.asarray(move.source), np.asarray(move.half), strict=False)
    assert sorted(map(tuple, np.array(list(found))[:count])) == sorted(expected)
    assert counts.sum() == count and counts.shape == (len(COUNTS),)
    assert all(counts[b] > 0 for b in range(len(COUNTS)) if COUNTS[b])


def test_the_halves_of_a_gaussian_have_its_mass_mean_and_covariance():
    rng = np.random.default_rng(0)
    one = gaussians.GaussianImages(
        *(jnp.asarray(rng.uniform(low, 0.9, shape), jnp.float32) for low, shape in (
            (-0.5, (6, 2)), (-2, (6, 3)), (0, (6, 3)), (0.5, (6,)))),
        height=20, width=10,
    )  # fmt: skip
    source, half = jnp.repeat(jnp.arange(6), 2), jnp.tile(jnp.array([1, -1]), 6)
    two = density.apply(one, density.Move(source, half, jnp.ones(6)))

    def moments(g):
        """Mass, mean in pixels, covariance of every Gaussian."""
        l11, l21, l22 = np.moveaxis(np.asarray(g.cholesky, np.float64), -1, 0)
        factor = np.array([[l11 + 0.5, 0 * l11], [l21, l22 + 0.5]]).transpose(2, 0, 1)
        covariance = factor @ factor.transpose(0, 2, 1)
        mass = np.asarray(g.colors)[:, 0] * np.sqrt(np.linalg.det(covariance)) * g.opacities
        return mass, (np.asarray(g.means) + 1) / 2 * np.array([10, 20]), covariance

    mass, mean, covariance = moments(one)
    halves = [moments(jax.tree.map(lambda leaf, i=i: leaf[i::2], two)) for i in (0, 1)]
    np.testing.assert_allclose(sum(h[0] for h in halves), mass, rtol=1e-5)
    np.testing.assert_allclose((halves[0][1] + halves[1][1]) / 2, mean, rtol=1e-5)
    apart = (halves[0][1] - halves[1][1]) / 2
    together = sum(h[2] for h in halves) / 2 + apart[:, :, None] * apart[:, None, :]
    np.testing.assert_allclose(together, covariance, rtol=1e-4, atol=1e-5)
    assert np.hypot(*apart.T).min() > 0.05
    same = density.apply(one, density.Move(jnp.arange(6), jnp.zeros(6, jnp.int32), jnp.ones(6)))
    for before, after in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(before, after)


def real_images(count=8):
    """Half of them without anything to see but a colour."""
    rng = np.random.default_rng(0)
    images = np.kron(rng.random((count, 8, 8, 3)), np.ones((1, 2, 2, 1)))
    images[::2] = 0.5
    return jnp.asarray(images, jnp.float32)


def fitted(kind, steps=240, call=60):
    images = real_images(kind.num_images)
    state = fit.start(kind, jax.random.key(0), images, 0.05)
    for _ in range(steps // call):
        state, _ = fit.run(kind, state, images, 0.05, call)
    return state


def test_images_with_more_to_show_get_more_gaussians_and_the_fit_is_better():
    fixed = build(gpc=16)
    kind = build(gpc=16, fit_moves_until=160, move_every=20, move_share=0.1)
    state, before = fitted(kind), fitted(fixed)
    counts = np.asarray(state.params.counts)
    assert counts.sum() == kind.num_gaussians
    assert counts[1::2].mean() > 1.5 * counts[::2].mean()
    errors = [
        np.asarray(10 ** (-fit.psnr(k, s.params, real_images(32)) / 10)).mean()
        for k, s in ((kind, state), (fixed, before))
    ]
    assert errors[0] < 0.9 * errors[1]
    # However the steps are grouped.
    again = fitted(kind, call=30)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_adam_knows_of_a_gaussian_goes_where_it_goes():
    kind = build(moves_until=5, move_every=5, move_share=0.2)
    params = kind.init(jax.random.key(0), real_images())
    optimizer = kind.optimizer(0.01)
    gradient = jax.tree.map(lambda p: jax.random.normal(jax.random.key(1), p.shape), params)
    _, state = optimizer.update(gradient, optimizer.init(params), params)
    rearrange = jax.jit(functools.partial(kind.rearrange, fitting=False))
    for step in (4, 10):  # not at this one, and no longer
        same, _, moved = rearrange(params, state, jnp.int32(step))
        assert not moved
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(same), strict=True):
            np.testing.assert_array_equal(a, b)
    # Numbered, so that each tells where it comes from.
    numbers = jnp.arange(kind.num_gaussians, dtype=jnp.float32)
    numbered = dataclasses.replace(params.gaussians, opacities=1 + numbers / 1000)
    params = dataclasses.replace(params, gaussians=numbered)
    after, kept, moved = rearrange(params, state, jnp.int32(5))
    assert moved and (after.counts != params.counts).any()
    source = np.rint((np.asarray(after.gaussians.opacities) - 1) * 1000).astype(int)
    assert len(set(source)) == kind.num_gaussians - int(0.2 * kind.num_gaussians)
    for before, now in zip(jax.tree.leaves(state), jax.tree.leaves(kept), strict=True):
        if before.shape[:1] == (kind.num_gaussians,):
            before = before[source]
        np.testing.assert_array_equal(before, now)


def test_distillation_moves_them_too_with_the_same_bits_however_grouped():
    kind = build(moves_until=4, move_every=2, move_share=0.1)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 16, 16, 3), np.uint8), np.arange(40) % 2
    transform = transforms.Normalize(jnp.full(3, 0.5), jnp.full(3, 0.25))
    objective = matching.DistributionMatching(
        networks.build("convnet", image_shape=(16, 16, 3), num_classes=2, width=4, depth=1),
        num_classes=2, batch_real=8, strategy="",
    )  # fmt: skip
    problem = distill.Problem(kind, objective, 2, average=0.9)
    data = matching.real_data(images, labels, 2, transform)
    first = kind.init(jax.random.key(0), real_images())
    ends = []
    for calls in ((5,), (3, 2)):
        state = distill.start(problem, jax.tree.map(jnp.copy, first), 0.01)
        for count in calls:
            state, _ = distill.run(problem, state, jax.random.key(1), data, None, count)
        ends.append(state)
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(a, b)
    counts = np.asarray(ends[0].params.counts)
    assert counts.sum() == kind.num_gaussians and len(set(counts)) > 2
    # The average began anew with the last move, a step before the end.
    np.testing.assert_array_equal(ends[0].average.counts, counts)
    apart = np.abs(ends[0].average.gaussians.means - ends[0].params.gaussians.means)
    assert 0 < apart.max() < 0.02


def test_filling_adds_gaussians_until_the_codes_take_the_budget():
    options = {"fit_moves_until": 240, "move_every": 10, "move_share": 0.0}
    kind, full = (build(bits_per_gaussian=55.0, fill=fill, **options) for fill in (False, True))
    assert full._even(8).sum() == kind.num_gaussians < full.num_gaussians
    shares, counts = [], []
    for k in (kind, full):
        params = fitted(k).params
        arrays = k.to_arrays(params)
        shares.append(sum(a.nbytes for a in arrays.values()) / (2 * 16 * 16 * 3 * 4))
        counts.append(float(params.counts.sum()))
    assert counts[0] == kind.num_gaussians < counts[1]
    assert shares[0] < 0.9 < 0.96 < shares[1] <= 1


def test_an_image_that_lost_all_its_gaussians_is_black_and_stored():
    kind = build(moves_until=1)
    params = kind.init(jax.random.key(0), real_images())
    part = kind.num_gaussians // 5
    counts = jnp.array([0, part, 0, part, 0, 0, kind.num_gaussians - 2 * part, 0], jnp.float32)
    params = kind.from_arrays(kind.to_arrays(dataclasses.replace(params, counts=counts)))
    np.testing.assert_array_equal(params.counts, counts)
    images = np.asarray(kind.render(params))
    assert [bool(image.any()) for image in images] == [bool(c) for c in counts]


def test_what_goes_with_moves_alone():
    with pytest.raises(gsdd_jax.UsageError, match=r"config.budget.fill: expected moves_until or f"):
        build(fill=True)
    with pytest.raises(gsdd_jax.UsageError, match=r"options.coding: expected range where Gaussia"):
        build(moves_until=3, coding="none")


def test_more_gaussians_than_slots_are_refused():
    kind = build(moves_until=1)
    params = kind.init(jax.random.key(0), real_images())
    arrays = kind.to_arrays(params)
    smaller = dataclasses.replace(kind, num_gaussians=kind.num_gaussians - 1)
    with pytest.raises(gsdd_jax.UsageError, match=r"counts: expected (\d+) to \1 Gaussians in all"):
        smaller.check_arrays(arrays)
