"""Tests `rasterize_ragged`: the bits of a call per image, empty images, and wrong offsets."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZE = dict(height=21, width=35)
NAMES = ("means", "cholesky", "colors", "opacities")
COUNTS = (0, 5, 1, 0, 0, 130, 22, 0)
BEFORE, AFTER = 3, 4  # Gaussians that no image owns


def gaussians(seed=0):
    rng, count = np.random.default_rng(seed), BEFORE + sum(COUNTS) + AFTER
    arrays = (
        rng.uniform(-1, 1, (count, 2)),
        rng.normal(size=(count, 3)) * 2,
        rng.normal(size=(count, 3)),
        rng.uniform(-0.2, 2, count),
    )
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


def offsets():
    return np.cumsum([BEFORE, *COUNTS]).astype(np.int32)


def pull(function, parameters, cotangent):
    images, back = jax.vjp(function, *parameters)
    return images, back(cotangent)


@pytest.mark.usefixtures("fully_compiled")
def test_it_has_the_bits_of_a_call_per_image():
    parameters, bounds = gaussians(), offsets()
    cotangent = jax.random.normal(jax.random.key(0), (len(COUNTS), *SIZE.values(), 3))
    ragged = jax.jit(lambda *p: gsdd_jax.rasterize_ragged(*p[1:], p[0], **SIZE, backend="native"))
    images, gradients = pull(lambda *p: ragged(bounds, *p), parameters, cotangent)
    assert images.shape == cotangent.shape
    for b, (first, last) in enumerate(itertools.pairwise(bounds)):
        mine = [p[first:last] for p in parameters]
        alone, d_alone = pull(
            lambda *p: gsdd_jax.rasterize(*p, **SIZE, backend="native"), mine, cotangent[b]
        )
        np.testing.assert_array_equal(images[b], alone)
        for name, one, all_ in zip(NAMES, d_alone, gradients, strict=True):
            np.testing.assert_array_equal(all_[first:last], one, err_msg=name)
    for all_ in gradients:
        assert not np.asarray(all_[:BEFORE]).any() and not np.asarray(all_[-AFTER:]).any()
    assert not np.asarray(images[0]).any()


def test_the_reference_agrees():
    parameters, bounds = gaussians(1), offsets()
    cotangent = jax.random.normal(jax.random.key(0), (len(COUNTS), *SIZE.values(), 3))
    results = [
        pull(
            lambda *p, b=backend: gsdd_jax.rasterize_ragged(*p, bounds, **SIZE, backend=b),
            parameters,
            cotangent,
        )
        for backend in ("native", "reference")
    ]
    for native, reference in zip(*map(jax.tree.leaves, results), strict=True):
        # A sample at the edge of a support may fall on either side.
        close = np.isclose(native, reference, rtol=1e-4, atol=1e-4 * np.abs(reference).max())
        assert close.mean() > 0.999


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_not_finite_parameters_stay_in_their_image(backend):
    means, *rest = gaussians(2)
    bounds = offsets()
    bad = 5  # the image of 130
    means = means.at[bounds[bad] + 7].set(jnp.nan)
    images = gsdd_jax.rasterize_ragged(means, *rest, bounds, **SIZE, backend=backend)
    assert np.isnan(images[bad]).all()
    assert np.isfinite(np.delete(np.asarray(images), bad, axis=0)).all()


def several_batches():
    """Returns three batches, each with Gaussians before and after those that its images show."""
    parameters = [jnp.stack(p) for p in zip(*(gaussians(seed) for seed in (3, 4, 5)), strict=True)]
    count = parameters[-1].shape[1]
    bounds = np.array([[0, 9, 9, count - 4], [5, 6, 60, 61], [2, count // 2, count, count]])
    # They are never visible.
    parameters[0] = parameters[0].at[1, :5].set(jnp.nan).at[0, -4:].set(jnp.nan)
    return jnp.asarray(bounds), parameters


@pytest.mark.parametrize("of_offsets", [0, None], ids=["own offsets", "the same offsets"])
def test_vmapped_batches_have_the_bits_of_each(of_offsets):
    bounds, parameters = several_batches()
    bounds = bounds if of_offsets == 0 else bounds[1]
    weights = jax.random.normal(jax.random.key(0), (3, SIZE["height"], SIZE["width"], 3))

    def both(bounds, *parameters):
        images = gsdd_jax.rasterize_ragged(*parameters, bounds, **SIZE)
        loss = lambda *p: (gsdd_jax.rasterize_ragged(*p, bounds, **SIZE) * weights).sum()
        return images, jax.grad(loss, argnums=(0, 1, 2, 3))(*parameters)

    axes = (of_offsets, *(0 for _ in parameters))
    program = jax.jit(jax.vmap(both, axes)).lower(bounds, *parameters)
    actual = program.compile()(bounds, *parameters)
    for i in range(3):
        own = bounds[i] if of_offsets == 0 else bounds
        expected = both(own, *(p[i] for p in parameters))
        for all_three, one in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
            np.testing.assert_array_equal(all_three[i], one)
    assert jax.tree.all(jax.tree.map(lambda a: np.isfinite(a).all(), actual))
    text = program.as_text()
    for target in ("@gsdd_rasterize_ragged(", "@gsdd_rasterize_ragged_gradient("):
        assert text.count(target) == 1  # for all three, and in no loop
    assert "stablehlo.while" not in text


def test_vmapped_offsets_out_of_range_are_noticed():
    bounds, parameters = several_batches()
    render = lambda bounds, *p: gsdd_jax.rasterize_ragged(*p, bounds, **SIZE)
    batches = jax.jit(jax.vmap(render))
    for wrong in (-1, parameters[-1].shape[1] + 1):
        bad = bounds.at[1, 1].set(wrong)
        with pytest.raises(jax.errors.JaxRuntimeError, match="offsets must not decrease"):
            jax.block_until_ready(batches(bad, *parameters))


@pytest.mark.parametrize("bad", [[0, 5, 3], [-1, 2, 4], [0, 2, 10_000]])
def test_offsets_out_of_order_or_range(bad):
    parameters, bad = gaussians(), np.array(bad)
    with pytest.raises(ValueError, match="offsets: expected not to decrease"):
        gsdd_jax.rasterize_ragged(*parameters, bad, **SIZE)

    def late(backend):  # known at run time only
        function = jax.jit(
            lambda bounds: gsdd_jax.rasterize_ragged(*parameters, bounds, **SIZE, backend=backend)
        )
        return np.asarray(function(bad))

    expected = [b for b in range(2) if bad[b] < 0 or bad[b + 1] < bad[b] or bad[b + 1] > 10]
    assert [b for b in range(2) if np.isnan(late("reference")[b]).all()] == expected
    if jax.default_backend() == "cpu":
        with pytest.raises(jax.errors.JaxRuntimeError, match="offsets must not decrease"):
            late("native")
    else:
        assert [b for b in range(2) if np.isnan(late("native")[b]).all()] == expected


@pytest.mark.parametrize(
    "bad",
    [
        np.array([0, 2**32 + 5, 2**32 + 9]),
        np.array([-(2**32), 4, 9]),
        np.array([0, 2**32 + 5, 9], np.uint64),
        np.array([0, 9, 4], np.uint32),
    ],
)
def test_offsets_of_64_bits_do_not_wrap(bad):
    with pytest.raises(ValueError, match="offsets: expected not to decrease"):
        gsdd_jax.rasterize_ragged(*gaussians(), bad, **SIZE)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.uint32])
def test_offsets_that_are_known_late_do_not_wrap(backend, kind):
    """Accepts an error, or correct images up to the first such offset and NaN around it."""
    parameters = gaussians()
    wrapping = 2**32 + 7 if kind != np.uint32 else 2**31 + 7
    with jax.enable_x64(True):
        bounds = jnp.asarray(np.array([0, 5, wrapping, wrapping + 3], kind))
        assert bounds.dtype == kind
        function = jax.jit(
            lambda b: gsdd_jax.rasterize_ragged(*parameters, b, **SIZE, backend=backend)
        )
        if backend == "native" and jax.default_backend() == "cpu":
            with pytest.raises(jax.errors.JaxRuntimeError, match="offsets must not decrease"):
                function(bounds).block_until_ready()
            return
        images = np.asarray(function(bounds))
    first = gsdd_jax.rasterize(*(p[:5] for p in parameters), **SIZE, backend=backend)
    np.testing.assert_allclose(images[0], first, atol=1e-6)
    assert np.isnan(images[1:]).all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (np.zeros((2, 2), int), "offsets: expected integers"),
        (np.zeros(3, np.float32), "offsets: expected integers"),
        (np.zeros(0, int), "offsets: expected integers"),
    ],
)
def test_wrong_offsets_are_named(wrong, message):
    function = getattr(gsdd_jax.rasterize_ragged, "__wrapped__", gsdd_jax.rasterize_ragged)
    with pytest.raises(ValueError, match=message):
        function(*gaussians(), wrong, **SIZE)
