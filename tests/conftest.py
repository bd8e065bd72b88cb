"""Checks every annotated shape of gsdd_jax at run time while the tests run."""

import gc
import os
import pathlib
import re

import jax
import pytest
from jaxtyping import install_import_hook

PACKAGE = pathlib.Path(__file__).parents[1] / "gsdd_jax"


def with_shapes():
    """Yields the modules with annotated shapes; checks of all others take a tenth of the time."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.stem != "__init__" and re.search("^from (jaxtyping|.*shapes) import", text, re.M):
            yield ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


hook = install_import_hook(list(with_shapes()), "beartype.beartype")
hook.__enter__()

# Files that take longest, which both workers begin with, so that they end together.
LONGEST = [
    "processes", "launch", "streaming", "clip_runs", "swapping", "labeler", "baselines", "mesh",
    "figures", "reproduce", "rasterize", "networks", "dct", "documents", "parts", "soft_labels",
    "artifact", "notebook", "agreement", "report_page", "experts", "augment", "distribution",
    "cuda_driver", "quantized", "codes", "trajectory",
]  # fmt: skip
LITTLE = "jax_disable_most_optimizations"
# Code of XLA's fusion emitters takes long to compile, and so does a program in parts.
SIMPLY = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

# Programs that workers, commands and later runs share: compiling takes half of the time.
SHARED = {
    "jax_compilation_cache_dir": str(PACKAGE.parent / "build" / "compiled_by_tests"),
    "jax_persistent_cache_min_compile_time_secs": 0,
}
for name, value in SHARED.items():
    jax.config.update(name, value)

# For commands.
QUICKLY = {LITTLE.upper(): "true"} | {name.upper(): str(v) for name, v in SHARED.items()}
if jax.__version_info__ < (0, 11):  # XLA ends a process with an unknown flag
    given = os.environ.get("XLA_FLAGS")
    QUICKLY["XLA_FLAGS"] = os.environ["XLA_FLAGS"] = f"{given or ''} {SIMPLY}"
    jax.devices()  # the flags are read now, and by this process only
    del os.environ["XLA_FLAGS"]
    if given is not None:
        os.environ["XLA_FLAGS"] = given


def pytest_collection_modifyitems(items):
    gc.freeze()  # looking for cycles among millions of objects takes a twentieth of the time
    gc.set_threshold(50_000)
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="module")
def quickly_compiled():
    """Compiles with little of LLVM's optimization, for tests of values that mostly compile."""
    jax.config.update(LITTLE, True)
    yield
    jax.config.update(LITTLE, False)


@pytest.fixture
def fully_compiled(quickly_compiled):
    """Compiles with all of LLVM's passes, for tests of bits and of memory."""
    jax.clear_caches()  # quickly compiled programs are not marked
    jax.config.update(LITTLE, False)
    yield
    jax.config.update(LITTLE, True)
