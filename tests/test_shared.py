"""Tests what images share in the parameterization `rtp`: starts and sizes."""

import jax
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import parameterizations

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.mark.parametrize("images", [40, 5])
def test_bases_begin_as_principal_components(images):
    """Compares the error with that of NumPy's SVD: no bases are better."""
    kind = parameterizations.build("rtp", (8, 12, 3), ipc=4, images_per_class=0, bases=7)
    real = np.random.default_rng(0).random((images, 8, 12, 3), np.float32)
    params = jax.jit(kind.init)(jax.random.key(0), real)
    small = np.float64(real).reshape(images, 4, 2, 6, 2, 3).mean((2, 4)).reshape(images, -1)
    found = np.float64(params["addresses"]) @ np.float64(params["bases"]).reshape(7, -1)
    best = (np.linalg.svd(small, compute_uv=False)[7:] ** 2).sum()
    assert ((found - small) ** 2).sum() == pytest.approx(best, rel=1e-4, abs=1e-6)
    squares = (np.asarray(params["bases"]).reshape(7, -1) ** 2).mean(1)
    assert (squares > 0.5).all() and (squares < 2).all()  # all can be learned


@pytest.mark.parametrize(
    ("ipc", "shape", "classes", "expected"),
    [(1, (32, 32, 3), 10, (16, 115)), (10, (32, 32, 3), 10, (74, 338)),
     (1, (128, 128, 3), 10, (37, 99))],
)  # fmt: skip
def test_published_bases(ipc, shape, classes, expected):
    kind = parameterizations.build("rtp", shape, ipc=ipc, images_per_class=0, num_classes=classes)
    assert (kind.bases, kind.images_per_class) == expected
    with pytest.raises(gsdd_jax.UsageError, match=r"rtp: factor: expected a divisor of .* got 5"):
        parameterizations.build("rtp", shape, images_per_class=0, factor=5)
