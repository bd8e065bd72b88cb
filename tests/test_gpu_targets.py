"""The make targets for a machine with a GPU, as far as they go without one."""

import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TARGETS = sorted({*re.findall(r"gpu-[a-z-]+[a-z]", (ROOT / "BUILD.md").read_text())})
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make was not found")


def make(folder, *arguments):
    command = ["make", "--no-print-directory", "-f", "gpu.mk", *arguments, f"RESULTS={folder}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_documentation_names_is_there(tmp_path, target):
    result = make(tmp_path, "-n", target, "PARTS=gpu-native")
    assert result.returncode == 0, result.stderr
    for name in re.findall(r"--config=(\S+)", result.stdout.replace("configs/.py", "")):
        assert (ROOT / name).exists()


def test_parts_fail_one_by_one_and_the_rest_is_named(tmp_path):
    result = make(tmp_path, "gpu-first", "PARTS=gpu-nothing gpu-neither")
    assert result.returncode != 0
    assert "failed: gpu-nothing gpu-neither" in result.stdout
    result = make(tmp_path, "gpu-first", "PARTS=gpu-native gpu-test", "LIMIT=0")
    assert result.returncode == 0
    assert 'not begun: make gpu-first PARTS="gpu-native gpu-test"' in result.stdout


def test_out_of_time_is_no_failure_and_leaves_a_record(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho begun\nexec sleep 30\n")
    script.chmod(0o755)
    # gpu-native is taken to be up to date.
    result = make(tmp_path, "-o", "gpu-native", "gpu-precision", f"PY={script}", "LIMIT=2")
    assert result.returncode == 0, result.stderr
    assert "precision: stopped after 2 s" in result.stdout
    assert (tmp_path / "precision.log").read_text() == "begun\n"


def test_a_failure_in_time_is_one(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    result = make(tmp_path, "-o", "gpu-native", "gpu-precision", f"PY={script}", "LIMIT=60")
    assert result.returncode != 0


def test_any_experiment_by_name(tmp_path):
    result = make(tmp_path, "-n", "gpu-run", "CONFIG=cifar10_tm_ipc10_q")
    for script in ("train_experts", "distill"):
        assert f"launch.{script} --config=configs/cifar10_tm_ipc10_q.py" in result.stdout
    result = make(tmp_path, "-n", "gpu-run", "CONFIG=imagenet1k_dm_ipc1")
    assert "configs/imagenet1k_dm_ipc1.py" in result.stdout
    assert "train_experts" not in result.stdout
    result = make(tmp_path, "-o", "gpu-native", "gpu-run", "CONFIG=cifar11")
    assert result.returncode != 0
    assert "error: CONFIG=cifar11: expected the name of a file of configs/" in result.stdout
