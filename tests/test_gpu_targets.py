"""Tests the make targets for a GPU as far as possible without one."""

import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make was not found")


def make(*arguments):
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_targets_name_what_is_there():
    result = make("-n", "gpu-test", "gpu-benchmark", "CAPABILITY=90")
    assert result.returncode == 0, result.stderr
    files = re.findall(r"tests/\w+\.(?:py|cu)", result.stdout)
    assert len(files) > 10 and all((ROOT / name).is_file() for name in files)
    (loop,) = re.findall(r"for name in (.*?);", result.stdout)
    named = {*loop.split(), *re.findall(r"launch\.benchmark (\w+)", result.stdout)}
    assert len(named) > 4 and all((ROOT / f"benchmarks/{name}.py").is_file() for name in named)
    (kernels,) = re.findall(r"for kernel in (.*?);", result.stdout)
    source = "".join(path.read_text() for path in ROOT.glob("xla_ops/rasterizer/cuda_*"))
    for kernel in kernels.split():
        assert re.search(rf"__global__[^;{{]*\b{kernel}_kernel\(", source), kernel


def test_without_a_gpu_it_is_one_line():
    result = make("gpu-test", "CAPABILITY=")
    assert result.returncode != 0
    assert result.stdout == "error: nvidia-smi was expected to find a GPU\n"
