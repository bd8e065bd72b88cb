"""Every annotated shape in gsdd_jax is checked at run time while the tests run."""

import functools
import os

import jax
import pytest
from jaxtyping import install_import_hook

hook = install_import_hook("gsdd_jax", "beartype.beartype")
hook.__enter__()

LITTLE = "jax_disable_most_optimizations"
EMITTERS = "xla_cpu_use_fusion_emitters"  # its code for fusions takes long to compile


def _is_known(option):
    try:
        jax.jit(lambda x: x, compiler_options={option: False})(0.0)
    except jax.errors.JaxRuntimeError:
        return False
    return True


little = False  # whether LITTLE is set


def _compile(with_little):
    global little
    little = with_little
    jax.config.update(LITTLE, with_little)


def _without_emitters():
    """Where LITTLE is set, what is compiled from now on has none, as if every `jax.jit` had
    `compiler_options`."""
    # By a private name, because the only public setting of a process is XLA_FLAGS, which XLA reads
    # once: tests of bits would not be compiled as users do, and an XLA without the option would end
    # the process. Where another JAX has no such name, tests take longer, and nothing else.
    try:
        from jax._src import compiler

        original = compiler.get_compile_options
    except (ImportError, AttributeError):
        return

    @functools.wraps(original)
    def get_compile_options(*args, **kwargs):
        if little:
            given = kwargs.get("env_options_overrides") or {}
            kwargs["env_options_overrides"] = {EMITTERS: False, **given}
        return original(*args, **kwargs)

    compiler.get_compile_options = get_compile_options


# The same for commands.
QUICKLY = {LITTLE.upper(): "true"}
if _is_known(EMITTERS):
    _without_emitters()
    QUICKLY["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{EMITTERS}=false"


@pytest.fixture(scope="module")
def quickly_compiled():
    """For tests of values, most of whose time is compilation: XLA's own passes, fusions and all,
    but little of LLVM's."""
    _compile(with_little=True)
    yield
    _compile(with_little=False)


@pytest.fixture
def fully_compiled(quickly_compiled):
    """For tests of bits and of memory among those: compiled as users do."""
    jax.clear_caches()  # what was compiled quickly is not known as such
    _compile(with_little=False)
    yield
    _compile(with_little=True)
