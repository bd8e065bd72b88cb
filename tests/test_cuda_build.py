"""The CUDA kernels compile for every supported chip, where nvcc is found, without spills."""

import pathlib
import re
import shutil
import subprocess

import pytest

KERNEL = pathlib.Path(__file__).parent.parent / "xla_ops" / "cuda_kernel.cu"
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


@pytest.mark.skipif(NVCC is None, reason="nvcc was not found on this machine")
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100"])
def test_kernels_compile_without_spills(architecture, tmp_path):
    command = [NVCC, "-std=c++17", "-O3", f"-arch={architecture}", "-Xptxas", "-v", "-cubin"]
    result = subprocess.run(
        [*command, "-o", str(tmp_path / "out.cubin"), str(KERNEL)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    kernels = re.findall(r"Compiling entry function '(\w+)'", result.stderr)
    # Prepare and finish; images by two tiles, gradients of two clippings, of 1 to 4 channels each.
    assert len(kernels) == 2 + 4 * (2 + 2), result.stderr
    report = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        result.stderr,
    )
    assert set(report) == {("0", "0", "0")}, result.stderr
