"""Every annotated shape in gsdd_jax is checked at run time while the tests run."""

import os

import jax
import pytest
from jaxtyping import install_import_hook

hook = install_import_hook("gsdd_jax", "beartype.beartype")
hook.__enter__()

# Files that take longest, which both workers begin with, so that they end together.
LONGEST = [
    "processes", "launch", "mesh", "soft_labels", "rasterize", "reproduce", "networks", "experts",
    "artifact", "trajectory", "distribution", "notebook", "benchmarks", "augment", "cuda_driver",
    "scale", "evaluate", "agreement", "documents", "figures", "report_page", "shell",
]  # fmt: skip
LITTLE = "jax_disable_most_optimizations"
# What XLA's emitters of fusions write takes long to compile.
WITHOUT_EMITTERS = "--xla_cpu_use_fusion_emitters=false"

# For commands.
QUICKLY = {LITTLE.upper(): "true"}
if jax.__version_info__ < (0, 11):  # XLA ends a process of which it does not know a flag
    given = os.environ.get("XLA_FLAGS")
    QUICKLY["XLA_FLAGS"] = os.environ["XLA_FLAGS"] = f"{given or ''} {WITHOUT_EMITTERS}"
    jax.devices()  # the flags are read now, and by this process only
    del os.environ["XLA_FLAGS"]
    if given is not None:
        os.environ["XLA_FLAGS"] = given


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="module")
def quickly_compiled():
    """For tests of values, most of whose time is compilation: XLA's own passes, fusions and all,
    but little of LLVM's."""
    jax.config.update(LITTLE, True)
    yield
    jax.config.update(LITTLE, False)


@pytest.fixture
def fully_compiled(quickly_compiled):
    """For tests of bits and of memory among those: with all of LLVM's passes."""
    jax.clear_caches()  # what was compiled quickly is not known as such
    jax.config.update(LITTLE, False)
    yield
    jax.config.update(LITTLE, True)
