"""Tests that the CUDA kernels compile without spills, and what happens where a GPU lacks code."""

import pathlib
import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import pytest

import gsdd_jax
from gsdd_jax.core import native

SOURCES = pathlib.Path(__file__).parent.parent / "xla_ops"
CMAKE = shutil.which("cmake")
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


@pytest.mark.skipif(NVCC is None, reason="nvcc was not found on this machine")
@pytest.mark.parametrize(
    ("folder", "count"),
    # Prepare and finish; images by two tiles, gradients of two clippings, of 1 to 4 channels each.
    # Then 3 + 3 + 2 sizes of two types.
    [("rasterizer", 2 + 4 * (2 + 2)), ("network", 16)],
)
def test_kernels_compile_without_spills(folder, count, tmp_path):
    """Compiles once to PTX, and that for the oldest and a new architecture."""
    command = [NVCC, "-std=c++17", "-O3", "-gencode", "arch=compute_75,code=[sm_75,sm_90]"]
    command += ["-Xptxas", "-v", "-fatbin", f"-I{SOURCES}", "-o", str(tmp_path / "out.fatbin")]
    command += [str(SOURCES / folder / "cuda_kernel.cu")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    kernels = re.findall(r"Compiling entry function '\w+' for '(\w+)'", result.stderr)
    assert sorted(kernels) == ["sm_75"] * count + ["sm_90"] * count, result.stderr
    report = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        result.stderr,
    )
    assert set(report) == {("0", "0", "0")}, result.stderr


@pytest.mark.skipif(CMAKE is None, reason="cmake was not found on this machine")
@pytest.mark.parametrize(
    ("wanted", "known", "chosen", "warning"),
    [
        ("", (75, 80, 86, 90, 100, 120), "75-real;80-real;90-real;100", None),  # nvcc 12.8 or newer
        ("", (70, 75, 80, 90), "75-real;80-real;90", None),  # nvcc 12.0
        ("", (35,), "", "nvcc knows none of 75;80;90;100"),
        ("90-real;100", (75, 80, 90), "", "does not know the compute capability 100"),
        ("90a-real", (75, 80, 90), "90a-real", None),
        ("native", (75, 80, 90), "native", None),
    ],
)
def test_what_is_built_is_what_nvcc_knows(wanted, known, chosen, warning, tmp_path):
    script = tmp_path / "ask.cmake"
    listed = "\\n".join(f"compute_{number}" for number in known)
    script.write_text(
        "cmake_minimum_required(VERSION 3.18)\n"
        f"include({SOURCES / 'architectures.cmake'})\n"
        f'choose_architectures("{wanted}" "{listed}" found)\n'
        'message(STATUS "chosen: <${found}>")\n'
    )
    result = subprocess.run([CMAKE, "-P", str(script)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"chosen: <{chosen}>" in result.stdout
    lines = " ".join(result.stderr.split())
    assert (warning is None and not lines) or (f"{warning}: building for the CPU only" in lines)


def test_code_runs_on_later_devices_of_a_generation_and_ptx_on_any():
    def on(architectures):
        devices = [(7, 0), (7, 5), (8, 0), (8, 9), (9, 0), (10, 3), (12, 0)]
        return [d for d in devices if native.runs_on(architectures, d)]

    assert on("75-real,80-real") == [(7, 5), (8, 0), (8, 9)]
    assert on("90") == [(9, 0), (10, 3), (12, 0)]
    assert on("80-virtual") == [(8, 0), (8, 9), (9, 0), (10, 3), (12, 0)]
    assert on("89-real") == [(8, 9)]
    assert on("75-real,80-real,90-real,100") == on("75")
    assert len(on("native")) == 7


class Module:
    """Imitates a build of the CUDA calls on a machine with a T4."""

    def __init__(self, architectures):
        self.architectures = architectures

    def capabilities(self):
        return [(7, 5), (7, 5)]


@pytest.fixture
def built_for(monkeypatch):
    """Pretends that the CUDA calls were built for these architectures."""

    def build(architectures):
        real = native.importlib.import_module
        modules = {native.MODULES["cuda"]: Module(architectures)}
        monkeypatch.setattr(
            native.importlib, "import_module", lambda name: modules.get(name) or real(name)
        )
        monkeypatch.setattr(native, "PLATFORMS", ("cpu", "cuda"))
        native._every_device_has_code.cache_clear()
        jax.clear_caches()

    yield build
    monkeypatch.undo()
    native._every_device_has_code.cache_clear()
    jax.clear_caches()


def on_cuda(backend):
    shapes = [jax.ShapeDtypeStruct((4, *last), jnp.float32) for last in ((2,), (3,), (3,), ())]
    render = lambda *p: gsdd_jax.rasterize(*p, height=6, width=5, backend=backend)
    traced = jax.jit(render).trace(*shapes)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.filterwarnings("error")
def test_where_a_gpu_has_no_code_the_reference_computes_and_it_is_said_once(built_for):
    built_for("80-real,90-real,100")
    with pytest.warns(UserWarning, match=r"no code for a GPU of compute capability 7\.5") as said:
        assert "@gsdd_rasterize" not in on_cuda("auto")
    assert len(said) == 1
    assert "@gsdd_rasterize" not in on_cuda("auto")  # another warning would be an error
    assert "@gsdd_rasterize" in on_cuda("native")
    built_for("75-real,80-real,90-real,100")
    assert "@gsdd_rasterize" in on_cuda("auto")
