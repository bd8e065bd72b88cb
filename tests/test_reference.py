"""Tests the reference's requests to the compiler; test_rasterize.py tests its values."""

import re

import jax
import jax.numpy as jnp
import pytest

from gsdd_jax.rasterizer import reference
from gsdd_jax.rasterizer.calls import Settings

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def test_no_product_may_be_rounded_to_tf32():
    """Lowers forward and backward passes for a GPU."""
    shapes = [jax.ShapeDtypeStruct((2, 5, *last), jnp.float32) for last in ((2,), (3,), (3,), ())]

    def energy(*parameters):
        return (
            reference.rasterize(Settings(8, 9, 2, True, 1 / 255, "stop"), *parameters) ** 2
        ).sum()

    traced = jax.jit(jax.grad(energy, argnums=(0, 1, 2, 3))).trace(*shapes)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = re.findall(r"stablehlo.dot_general.*", text)
    assert len(products) == 3  # the images, d_weight and d_colors
    assert all("precision = [HIGHEST, HIGHEST]" in product for product in products)
