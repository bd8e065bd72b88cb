"""The stand-alone driver of the CUDA kernels compiles for a GPU, and passes and fails on the host.

On a GPU `make gpu-sanitize` runs it under compute-sanitizer.
"""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
DRIVER = ROOT / "tests" / "cuda_driver.cu"
COMPILER = shutil.which("c++") or shutil.which("g++")
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
MOST_PIXELS = "3000"  # 22 of the 29 cases, in seconds


@pytest.mark.skipif(NVCC is None, reason="nvcc was not found on this machine")
def test_it_compiles_for_a_gpu(tmp_path):
    command = [NVCC, "-std=c++17", "-O3", "-lineinfo", "-arch=sm_90", f"-I{ROOT / 'xla_ops'}"]
    command += ["-Werror", "all-warnings", "-o", str(tmp_path / "driver"), str(DRIVER)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def run_on_host(source, folder, *options):
    command = [COMPILER, "-x", "c++", "-std=c++17", "-O1", "-Wno-unknown-pragmas", *options]
    command += [f"-I{ROOT / 'tests' / 'cuda_on_cpu'}", f"-I{ROOT / 'xla_ops'}"]
    result = subprocess.run(
        [*command, "-o", str(folder / "driver"), str(source)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return subprocess.run([folder / "driver", MOST_PIXELS], capture_output=True, text=True)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
def test_the_kernels_pass_and_stay_inside_their_buffers(tmp_path):
    sanitizers = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    result = run_on_host(DRIVER, tmp_path, *sanitizers)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("ok ") == 22


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
def test_another_gradient_is_a_mismatch(tmp_path):
    right = "out->gradients[kOpacities][n] = sum;"
    source = tmp_path / "driver.cu"
    source.write_text(DRIVER.read_text().replace(right, right.replace("sum", "1.001 * sum")))
    result = run_on_host(source, tmp_path)
    assert result.returncode == 1
    assert "MISMATCH small tiles: opacities off by 9.99 times" in result.stdout
