"""Tests the benchmarks' counts against counting one by one."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from benchmarks import bounds, experts, measure, peers, precision, size, steps, storage, table
from benchmarks.measure import take_turns
from benchmarks.rasterize import SHAPES, compare, main
from gsdd_jax import UsageError, parameterizations, rasterize
from gsdd_jax.data import transforms
from gsdd_jax.rasterizer import gaussians

pytestmark = pytest.mark.usefixtures("quickly_compiled")


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
            center = size / 2 * (np.asarray(g.means[image, n], float) + 1)
            d = np.stack(np.meshgrid(points - center[0], points - center[1]), -1)
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


def test_shape_r_has_initial_gaussians(monkeypatch):
    import benchmarks.rasterize as module

    monkeypatch.setattr(module, "take_turns", lambda *calls, seconds: [1.0] * len(calls))
    monkeypatch.setattr(module, "fitted", None)
    row = next(compare("R", SHAPES["R"], bounds.Machine(1e11, 1e10), []))
    g = gaussians.init(jax.random.key(0), row["batch"], 22, height=32, width=32)
    assert row["pairs"] == bounds.count_pairs(g.means, g.cholesky, g.opacities, 32)


def test_an_unknown_shape_is_named():
    with pytest.raises(UsageError, match="--shapes: expected some of A,B,C,D,E,F,R, got 'Q'"):
        main(None, shapes="A,q")


@pytest.mark.parametrize(
    "kind, bandwidth", [("NVIDIA H100 80GB HBM3", 3.35e12), ("NVIDIA H200", 4.8e12)]
)
def test_a_data_sheet_goes_before_what_a_machine_reaches(kind, bandwidth):
    reached = bounds.Machine(1e12, 1e12)
    device = SimpleNamespace(device_kind=kind)
    sheet = bounds.machine_of(device, reached)
    assert 2 * sheet.multiply_adds == pytest.approx(67e12, rel=0.01)  # FLOP/s
    assert sheet.bandwidth == bandwidth
    assert sheet.exponentials == sheet.multiply_adds / 8
    device.device_kind = "cpu"
    assert bounds.machine_of(device, reached) is reached


def test_repeated_work_is_all_there_and_has_the_same_result():
    g = gaussians.init(jax.random.key(0), 2, 5, height=8, width=8)
    parameters = (g.means, g.cholesky, g.colors, g.opacities)
    render = lambda *p: rasterize(*p, height=8, width=8, backend="native")
    many = measure.repeated(render, 104)
    np.testing.assert_array_equal(many(*parameters), render(*parameters))
    # As passed to XLA, which removes barriers on a GPU after scheduling.
    traced = many.trace(*parameters)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    body = text[text.index("stablehlo.while") :]
    assert body.count("@gsdd_rasterize(") == body.count("optimization_barrier") == 4
    (loop,) = (e for e in traced.jaxpr.eqns if e.primitive.name in ("scan", "while"))
    assert loop.params.get("length") == 26


def test_short_work_is_repeated_until_a_call_takes_milliseconds():
    assert measure.times_for(60e-6) == 836  # 5 us each if the rest is dispatch: 4 ms
    assert measure.times_for(1e-9) == measure.MOST
    assert measure.times_for(0.02) == 4
    assert measure.times_for(0.03) == 1


def test_a_table_is_printed_and_written_row_by_row(tmp_path, capsys):
    path = tmp_path / "out.json"
    found = table.Table(str(path), "what seconds:.2f bytes:MiB", {"device": "x"})
    rows = [
        dict(what="a", seconds=1.234, bytes=3 * 2**20, more=1),
        dict.fromkeys(("what", "bytes")),
    ]
    found.add(rows[0])
    assert json.loads(path.read_text()) == {"device": "x", "rows": rows[:1]}
    found.add(rows[1] | {"seconds": None})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["what", "seconds", "bytes"], ["a", "1.23", "3.0"], ["-", "-", "-"]]
    table.Table(str(path), "what").add({"what": 1})
    assert json.loads(path.read_text()) == [{"what": 1}]


@pytest.mark.parametrize("about", [None, {"device": "x"}])
def test_nothing_but_an_earlier_table_is_replaced(tmp_path, about):
    path, columns = tmp_path / "out.json", "what seconds:.2f"
    table.check_place(path, columns)
    found = table.Table(str(path), columns, about)
    found.add({"what": "a", "seconds": 1.0, "more": 2})
    table.check_place(path, columns)
    assert table.rows(path, columns) == found.rows
    for others in ("what\n", "[]", '{"rows": []}', '[{"what": "a"}]', "[3]"):
        path.write_text(others)
        with pytest.raises(UsageError, match=r"out.json: not an earlier result of this benchmark"):
            table.check_place(path, columns)


@pytest.fixture
def stopped(monkeypatch, tmp_path):
    """Stops a benchmark as it prints its third row; returns the contents of its file."""

    def run(main):
        prints = table.Table._print

        def show(self, cells):
            prints(self, cells)
            if len(self.rows) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(table.Table, "_print", show)
        with pytest.raises(KeyboardInterrupt):
            main(str(tmp_path / "out.json"))
        return json.loads((tmp_path / "out.json").read_text())

    return run


def test_a_stopped_rasterize_keeps_its_rows(monkeypatch, stopped):
    import benchmarks.rasterize as module

    monkeypatch.setattr(module.bounds, "measure_machine", lambda: bounds.Machine(1e11, 1e10))
    monkeypatch.setattr(module, "take_turns", lambda *calls, seconds: [1.0] * len(calls))
    monkeypatch.setattr(module, "FIT_STEPS", 2)
    monkeypatch.setattr(module, "SHAPES", {"A": module.Shape(2, 3, 16, cpu_batch=2)})
    result = stopped(lambda out: main(out, "A"))
    assert [row["what"] for row in result["rows"]] == ["native", "reference"]


def test_what_fails_costs_only_itself(monkeypatch, tmp_path, capsys):
    import benchmarks.rasterize as module

    class Broken:
        def __init__(self, *_):
            raise NotImplementedError("no such kernel")

    for name in ("Gsplat", "GsplatKernels"):
        monkeypatch.setattr(module.peers, name, Broken)
    monkeypatch.setattr(module.peers, "gsplat_unavailable", lambda: None)
    monkeypatch.setattr(module.bounds, "measure_machine", lambda: bounds.Machine(1e11, 1e10))
    monkeypatch.setattr(module, "take_turns", lambda *calls, seconds: [1.0] * len(calls))
    monkeypatch.setattr(module, "FIT_STEPS", 2)
    small = module.Shape(2, 3, 16, cpu_batch=2)
    monkeypatch.setattr(module, "SHAPES", {"A": small, "B": None, "C": small})
    main(str(tmp_path / "out.json"), "A,B,C", with_peers=True)
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["shape"] for row in rows] == ["A"] * 6 + ["C"] * 6
    found = {(row["measured"], row["what"].split()[0]) for row in rows}
    assert found == {(m, w) for m in ("forward", "both") for w in ("native", "reference", "siren")}
    bounded = [row["fraction_of_bound"] for row in rows if "siren" not in row["what"]]
    assert all(0 < fraction < 1 for fraction in bounded)
    out = capsys.readouterr().out
    assert out.count("gsplat kernels is left out: NotImplementedError: no such kernel") == 4
    assert "shape B is left out: AttributeError" in out


@pytest.fixture
def no_steps(monkeypatch):
    """Replaces steps and epochs by stubs of a mebibyte and a second; returns their arguments."""
    asked = []

    def timed(*sizes, **settings):
        asked.append((*sizes, settings))
        return steps.Timed(lambda: None, 2**20, 2**21)

    monkeypatch.setattr(steps, "timed_step", timed)
    monkeypatch.setattr(
        steps, "expert_epoch", lambda *_, **__: (steps.Timed(None, 0, 0), None, None)
    )
    for module in (experts, precision):
        monkeypatch.setattr(module, "take_turns", lambda *calls, **_: [0.5] * len(calls))
    return asked


def test_a_stopped_experts_keeps_its_rows(no_steps, stopped):
    assert [row["at_once"] for row in stopped(experts.main)] == [1, 2]


def test_sizes_go_up_to_the_first_that_does_not_fit(monkeypatch, tmp_path, capsys):
    import benchmarks.rasterize as module

    monkeypatch.setattr(module, "FIT_STEPS", 2)
    monkeypatch.setattr(size, "ON_CPU", {"side": [(2, 8), (2, 16), (2, 32), (2, 64)]})
    needed = lambda compiled: compiled.memory_analysis().output_size_in_bytes
    monkeypatch.setattr(size.measure, "needed", needed)
    monkeypatch.setattr(size.measure, "free", lambda: 2 * 4 * 3 * 32**2)  # images of 16 fit
    size.main(str(tmp_path / "size.json"))
    rows = json.loads((tmp_path / "size.json").read_text())
    for what in ("gaussians", "siren"):
        mine = [(row["side"], row["fits"]) for row in rows if row["what"] == what]
        assert mine == [(8, True), (16, True), (32, False)]
    assert "largest side that fits: {'gaussians': 16, 'siren': 16}" in capsys.readouterr().out


def test_precisions_have_a_row_each(no_steps, tmp_path):
    precision.main(str(tmp_path / "precision.json"))
    rows = json.loads((tmp_path / "precision.json").read_text())
    assert [row["precision"] for row in rows] == ["default", "bfloat16", "float32"]
    assert all(row["images_per_second"] == 2 * steps.BATCH for row in rows)
    # As a run has them: no activations kept.
    assert no_steps == [(20, 2, dict(precision=row["precision"], width=4)) for row in rows]


def test_steps_and_epochs_that_are_timed_are_a_runs(monkeypatch):
    # `lower` keeps trees of descriptions in place of arrays.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(steps.augment, "DSA", "flip")
    step = steps.timed_step(10, 2, width=2, depth=1)
    assert step.bytes > step.temporary > 0
    step.call()  # again, on the first call's result
    epoch, images, labels = steps.expert_epoch(2, 300, width=2, depth=1)
    assert images.shape == (300, 32, 32, 3) and images.dtype == np.uint8 and labels.max() < 10
    epoch.call()
    whitening = transforms.ZCA(jnp.zeros(3072), jnp.zeros((3072, 3072)), (32, 32, 3))
    _, images, _ = steps.expert_epoch(1, 256, whitening, width=2, depth=1)
    assert images.dtype == np.float32  # once, before the epochs


def test_pytorch_is_measured_at_three_widths_and_written_row_by_row(monkeypatch, tmp_path, capsys):
    import benchmarks.pytorch as module

    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: False),
        backends=SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace()),
                                 cudnn=SimpleNamespace()),
        get_num_threads=lambda: 2,
        __version__="0",
    )  # fmt: skip
    monkeypatch.setattr(module, "torch", torch)
    kinds = ("ours_seconds", "torch_seconds", "ours_bytes", "torch_bytes")
    figures = *kinds, "ratio", "once_seconds"

    def measure(sizes, device):
        if sizes["width"] == 64:
            raise KeyboardInterrupt
        for what in ("tm step", "expert epoch"):
            row = dict(what=what, width=sizes["width"], images=1, steps=1, transform="zca")
            yield row | dict.fromkeys(figures, 1)

    monkeypatch.setattr(module, "measure", measure)
    assert [sizes["width"] for sizes in module.ON_CPU] == [16, 64, 128]
    with pytest.raises(KeyboardInterrupt):
        module.main(str(tmp_path / "out.json"))
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["what"], row["width"]) for row in rows] == [("tm step", 16), ("expert epoch", 16)]
    capsys.readouterr()


def test_storage_compares_sets_of_equal_bytes(monkeypatch, tmp_path):
    """Replaces times: pixels take two seconds for ten images, Gaussians one for 300."""
    kinds = {name: parameterizations.find(name) for name in ("gaussian", "generator", "pixels")}
    monkeypatch.setattr(parameterizations, "known", lambda: kinds)
    calls = []

    def turns(*functions, seconds):
        calls.extend(np.shape(jax.tree.leaves(function())[0]) for function in functions)
        return [float(functions[0] is not functions[1]) + 1, 1.0]

    monkeypatch.setattr(storage, "take_turns", turns)
    storage.main(str(tmp_path / "out.json"))
    gaussians, pixels = json.loads((tmp_path / "out.json").read_text())
    assert gaussians["both_of_gaussians"] == 1 and gaussians["images_per_class"] == 30
    assert pixels["images_per_class"] == 1 and pixels["both_of_gaussians"] == 2
    assert pixels["forward_of_gaussians_per_image"] == 60
    assert calls == 4 * [(300, 32, 32, 3)] + 2 * [(10, 32, 32, 3), (300, 32, 32, 3)]
