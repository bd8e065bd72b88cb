"""Tests the stand-alone drivers of the CUDA kernels on the host, and compiles them for a GPU.

On a GPU `make gpu-test` runs them under compute-sanitizer.
"""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
DRIVER = ROOT / "tests" / "cuda_driver.cu"
NORM_POOL = ROOT / "tests" / "cuda_norm_pool_driver.cu"
COMPILER = shutil.which("c++") or shutil.which("g++")
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
# Those of the rasterizer's 34 cases that take seconds, by pixels and Gaussians; all of norm_pool's.
MOST, CASES = "5400", {DRIVER: 28, NORM_POOL: 14}
LEVELS = {DRIVER: "-O0", NORM_POOL: "-Og"}  # the latter's cases take longer than its compilation
INCLUDES = [f"-I{ROOT / 'xla_ops'}", f"-I{ROOT / 'tests'}"]
by_driver = pytest.mark.parametrize("driver", CASES, ids=lambda path: path.stem)


@pytest.mark.skipif(NVCC is None, reason="nvcc was not found on this machine")
@by_driver
def test_it_compiles_for_a_gpu(driver, tmp_path):
    command = [NVCC, "-std=c++17", "-Xcicc=-O0", "-ptx", "-arch=sm_90", *INCLUDES]
    command += ["-Werror", "all-warnings", "-o", str(tmp_path / "driver.ptx"), str(driver)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def run_on_host(source, folder, *options):
    command = [COMPILER, "-x", "c++", "-std=c++17", "-Wno-unknown-pragmas", *options]
    command += [f"-I{ROOT / 'tests' / 'cuda_on_cpu'}", *INCLUDES]
    result = subprocess.run(
        [*command, "-o", str(folder / "driver"), str(source)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return subprocess.run([folder / "driver", MOST], capture_output=True, text=True)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
@by_driver
def test_the_kernels_pass_and_stay_inside_their_buffers(driver, tmp_path):
    sanitizers = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    result = run_on_host(driver, tmp_path, LEVELS[driver], *sanitizers)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("ok ") == CASES[driver]


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
def test_another_gradient_is_a_mismatch(tmp_path):
    source, right = tmp_path / "driver.cu", "out.arrays[kDScale][of] = pixels * u1;"
    assert right in NORM_POOL.read_text()
    source.write_text(NORM_POOL.read_text().replace(right, right[:-1] + " * 1.001;"))
    result = run_on_host(source, tmp_path)
    assert result.returncode == 1
    assert "MISMATCH one block: d_scale off by 9.99 times" in result.stdout
