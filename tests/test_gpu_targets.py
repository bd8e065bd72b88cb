"""Tests the make targets for a GPU as far as possible without one."""

import pathlib
import re
import shutil
import subprocess

import pytest

import configs

ROOT = pathlib.Path(__file__).parent.parent
TARGETS = sorted({*re.findall(r"gpu-[a-z-]+[a-z]", (ROOT / "BUILD.md").read_text())})
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make was not found")


def make(folder, *arguments):
    command = ["make", "--no-print-directory", "-f", "gpu.mk", *arguments, f"RESULTS={folder}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_documentation_names_is_there(tmp_path, target):
    result = make(tmp_path, "-n", target)
    assert result.returncode == 0, result.stderr
    for name in re.findall(r"--config=([^ $]+)", result.stdout):
        configs.load(name)


def test_a_run_of_the_same_bits_shares_no_cache_with_other_flags(tmp_path):
    """Checks separate caches: XLA looks up tuned algorithms by instruction, whatever the flags."""
    seen = tmp_path / "seen"
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$JAX_COMPILATION_CACHE_DIR|$XLA_FLAGS" >>{seen}\n')
    script.chmod(0o755)
    targets = ("gpu-precision", "gpu-pytorch", "gpu-experts", "gpu-dm", "gpu-test")
    for target in targets:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        result = make(
            tmp_path, "-o", "gpu-native", target, f"PY={script}", f"WORKDIR={tmp_path / 'runs'}",
            f"JAX_COMPILATION_CACHE_DIR={tmp_path / 'xla'}",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    flags_by_folder = {}
    for line in seen.read_text().splitlines():
        folder, _, flags = line.partition("|")
        assert pathlib.Path(folder, "xla_gpu_per_fusion_autotune_cache_dir").is_dir()
        flags_by_folder.setdefault(folder, set()).add(flags.strip())
    assert len(seen.read_text().splitlines()) == len(targets)
    assert all(len(flags) == 1 for flags in flags_by_folder.values())
    assert len(flags_by_folder) == 3  # tuned; the same bits; the tests', untuned


def test_out_of_time_is_no_failure_and_leaves_a_record(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho begun\nexec sleep 30\n")
    script.chmod(0o755)
    # gpu-native counts as up to date.
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
    result = make(tmp_path, "-n", "gpu-run", "CONFIG=cifar10_tm:ipc=10,codes")
    for script in ("train_experts", "distill"):
        assert f"launch.{script} --config=cifar10_tm:ipc=10,codes" in result.stdout
    assert "workdir=runs/cifar10_tm_ipc10_codes;" in result.stdout
    result = make(tmp_path, "-n", "gpu-run", "CONFIG=imagenet1k_dm:ipc=1")
    assert "--config=imagenet1k_dm:ipc=1" in result.stdout
    assert "train_experts" not in result.stdout
    result = make(tmp_path, "-o", "gpu-native", "gpu-run", "CONFIG=cifar11")
    assert result.returncode != 0
    assert "error: CONFIG=cifar11: expected a config, such as cifar10_tm:ipc=10" in result.stdout
