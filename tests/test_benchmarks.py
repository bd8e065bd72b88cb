"""What the benchmarks count, against counting it one by one."""

import json
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import bounds, peers
from benchmarks.rasterize import SHAPES, compare, main
from benchmarks.turns import take_turns
from gsdd_jax import UsageError, gaussians


def test_pairs_are_counted_exactly():
    size, side = 19, 2
    g = gaussians.init(jax.random.key(3), 2, 7, height=size, width=size)
    opacities = jnp.linspace(-0.1, 2, 14).reshape(2, 7)
    expected = 0
    points = (np.arange(size * side) + 0.5) / side
    for image in range(2):
        for n in range(7):
            l11, l21, l22 = np.asarray(g.cholesky[image, n], float)
            factor = np.array([[l11 + 0.5, 0], [l21, l22 + 0.5]])
            inverse = np.linalg.inv(factor @ factor.T + np.eye(2) / 12)
            centre = size / 2 * (np.asarray(g.means[image, n], float) + 1)
            d = np.stack(np.meshgrid(points - centre[0], points - centre[1]), -1)
            sigma = np.einsum("...i,ij,...j->...", d, inverse, d) / 2
            expected += (float(opacities[image, n]) * np.exp(-sigma) >= 1 / 255).sum()
    assert expected > 1000
    assert bounds.count_pairs(g.means, g.cholesky, opacities, size, side) == expected


def test_the_bound_is_the_slower_of_arithmetic_and_bytes():
    fast_arithmetic = bounds.Machine(multiply_adds=1e30, bandwidth=1e9)
    bytes_moved = 2 * (9 * 5 + 3 * 8**2) * 4
    assert bounds.seconds(fast_arithmetic, "forward", 10**6, 2, 5, 8) == bytes_moved / 1e9
    fast_memory = bounds.Machine(multiply_adds=1e9, bandwidth=1e30)
    assert bounds.seconds(fast_memory, "forward", 10**6, 2, 5, 8) == 3.75e-3
    assert bounds.seconds(fast_memory, "both", 10**6, 2, 5, 8) == 10.75e-3


@pytest.mark.parametrize("size, num_bytes", [(32, 396), (128, 3060)])
def test_sirens_have_the_bytes_asked_for(size, num_bytes):
    siren = peers.siren_for(size, num_bytes)
    params = siren.init(jax.random.key(0), 2)
    held = sum(p.nbytes for p in jax.tree.leaves(params)) // 2
    assert siren.num_bytes == held
    assert abs(held - num_bytes) < 0.15 * num_bytes
    assert siren.decode(params, size).shape == (2, size, size, 3)


def test_turns_are_medians_of_a_call():
    calls = [0, 0]

    def count(which):
        calls[which] += 1

    seconds = take_turns(lambda: count(0), lambda: count(1), rounds=2, seconds=0.0)
    assert min(calls) > 10
    assert all(0 < s < 0.01 for s in seconds)


def test_a_shape_gives_a_row_for_every_contender(monkeypatch, capsys):
    import benchmarks.rasterize as module

    monkeypatch.setattr(module, "take_turns", lambda *calls, seconds: [1.0] * len(calls))
    monkeypatch.setattr(module, "FIT_STEPS", 2)
    machine = bounds.Machine(1e11, 1e10)
    rows = compare("A", SHAPES["A"], machine, with_peers=True, patient=False)
    found = {(row["measured"], row["what"].split()[0]) for row in rows}
    assert {(m, w) for m in ("forward", "both") for w in ("native", "reference", "siren")} <= found
    assert all(0 < row["fraction_of_bound"] < 1 for row in rows)
    capsys.readouterr()


def test_an_unknown_shape_is_named():
    with pytest.raises(UsageError, match="--shapes: expected some of A,B,C,D,E,F, got 'Q'"):
        main(None, shapes="A,q")


def test_pytorch_is_measured_at_three_widths_and_written_row_by_row(monkeypatch, tmp_path, capsys):
    import benchmarks.pytorch as module

    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: False),
        backends=SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace()),
                                 cudnn=SimpleNamespace()),
        get_num_threads=lambda: 2,
        __version__="0",
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", torch)
    figures = ("ours_seconds", "torch_seconds", "ratio", "ours_bytes", "torch_bytes")

    def measure(sizes, device):
        if sizes["width"] == 64:
            raise KeyboardInterrupt
        for what in ("tm step", "expert epoch"):
            yield dict(
                what=what, width=sizes["width"], images=1, steps=1, **dict.fromkeys(figures, 1)
            )

    monkeypatch.setattr(module, "measure", measure)
    assert [sizes["width"] for sizes in module.ON_CPU] == [16, 64, 128]
    with pytest.raises(KeyboardInterrupt):
        module.main(str(tmp_path / "out.json"))
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["what"], row["width"]) for row in rows] == [("tm step", 16), ("expert epoch", 16)]
    capsys.readouterr()
