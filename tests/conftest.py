"""Every annotated shape in gsdd_jax is checked at run time while the tests run."""

import jax
import pytest
from jaxtyping import install_import_hook

hook = install_import_hook("gsdd_jax", "beartype.beartype")
hook.__enter__()

LITTLE = "jax_disable_most_optimizations"


@pytest.fixture(scope="module")
def quickly_compiled():
    """For tests of values, most of whose time is compilation: XLA's own passes, fusions and all,
    but little of LLVM's."""
    jax.config.update(LITTLE, True)
    yield
    jax.config.update(LITTLE, False)


@pytest.fixture
def fully_compiled(quickly_compiled):
    """For tests of bits and of memory among those: compiled as users do."""
    jax.clear_caches()  # what was compiled quickly is not known as such
    jax.config.update(LITTLE, False)
    yield
    jax.config.update(LITTLE, True)
