"""Compares several devices, simulated on the host, with one."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from gsdd_jax.core import mesh
from gsdd_jax.core.errors import UsageError
from tests.conftest import QUICKLY

DEVICES = 4


def test_many_devices_compute_what_one_does():
    """Covers the rest of a run by one of its devices; four divide no batch and no networks."""
    forced = f"{QUICKLY.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    result = subprocess.run(
        [sys.executable, "-m", "tests.many_devices", str(DEVICES)],
        capture_output=True,
        text=True,
        env={**os.environ, **QUICKLY, "XLA_FLAGS": forced, "JAX_PLATFORMS": "cpu"},
        cwd=pathlib.Path(__file__).parent.parent,
    )
    assert result.returncode == 0, result.stderr
    differences = json.loads(result.stdout.splitlines()[-1])  # after the runs' output
    assert differences.pop("ended by one") < 1e-4
    # 2e-5 was measured: its pool of networks has taken steps of Adam, too.
    assert differences.pop("frepo, learned labels") < 1e-4
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.parametrize("wanted", [-1, 10_000])
def test_devices_that_are_not_there(wanted):
    with (
        pytest.raises(UsageError, match=rf"config.mesh.devices: expected 1 to .*, got {wanted}$"),
        mesh.use_devices(wanted),
    ):
        pass


@pytest.mark.parametrize("wanted", [-1, 2])
def test_groups_that_devices_do_not_make(wanted):
    expected = rf"config.mesh.groups: expected 0, or a divisor of 1, .*, got {wanted}$"
    with pytest.raises(UsageError, match=expected), mesh.use_devices(1, wanted):
        pass


@pytest.mark.parametrize(
    ("devices", "parts", "expected"),
    [(8, 10, 2), (8, 100, 8), (64, 100, 8), (64, 1000, 64), (6, 3, 3), (8, 1, 1), (1, 10, 1)],
)
def test_groups_have_parts_of_their_own_where_few_are_idle(devices, parts, expected):
    assert mesh.num_groups(devices, parts) == expected


def test_one_device_needs_no_mesh():
    with mesh.use_devices(1):
        assert mesh.size() == 1
        assert jax.sharding.get_abstract_mesh().empty
