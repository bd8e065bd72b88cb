"""Tests the commands: results, resuming after SIGKILL, and one-line errors."""

import json
import os
import pathlib
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

import gsdd_jax
from configs import demo
from gsdd_jax.core.files import check_ours
from gsdd_jax.runs import distill as run_module
from gsdd_jax.runs import evaluation
from gsdd_jax.storage import checkpoint
from gsdd_jax.training import distill
from launch import interrupt
from tests.commands import ROOT, Commands, start, until
from tests.conftest import QUICKLY

TINY = [
    "--config=configs/demo.py",
    "--config.data.resolution=8",
    "--config.network.options.width=4",
    "--config.network.options.depth=1",
    "--config.budget.images_per_class=6",
    "--config.init.num_steps=20",
    "--config.matching.options.batch_real=4",
    "--config.matching.strategy=flip",  # the others take long to compile
    "--config.distill.num_steps=14",
    "--config.distill.steps_per_call=2",
    "--config.distill.checkpoint_every=4",
    "--config.distill.eval_every=8",
    "--config.evaluate.num_networks=2",
    "--config.evaluate.baselines=fitted,random_real,random_real_uint8",
    "--config.evaluate.epochs=2",
]


@pytest.fixture(scope="module", autouse=True)
def compiled_programs():
    """Shares compiled programs among runs, which mostly compile."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICKLY.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def run(compiled_programs):
    commands = Commands()
    yield commands
    commands.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns a complete tiny run."""
    workdir = tmp_path_factory.mktemp("run")
    process = start("distill", *TINY, f"--workdir={workdir}")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return workdir, out


def test_distill_leaves_everything(finished):
    workdir, out = finished
    result = json.loads((workdir / "result.json").read_text())
    for arm in ("distilled", "fitted", "random_real"):
        accuracies = result[f"{arm}_accuracies"]
        assert len(accuracies) == 2
        assert result[f"{arm}_accuracy"] == pytest.approx(np.mean(accuracies))
        assert result[f"{arm}_std"] == pytest.approx(np.std(accuracies, ddof=1))
        assert 0 <= result[f"{arm}_accuracy"] <= 100
    last = out.strip().splitlines()[-1]
    assert last.startswith("test accuracy:  distilled ")
    assert last.count("±") == 3
    distilled = gsdd_jax.load(workdir / "distilled.safetensors")
    assert distilled.images().shape == (60, 8, 8, 3)
    np.testing.assert_array_equal(distilled.labels, np.repeat(np.arange(10), 6))
    assert distilled.num_bytes == 10 * result["bytes_per_class"] <= 10 * 4 * 8 * 8 * 3
    assert np.isfinite(distilled.images()).all()
    with Image.open(workdir / "contact_sheet.png") as sheet:
        assert sheet.size == (2 * (6 * 9 - 1), 2 * (10 * 9 - 1))
    assert list((workdir / "tensorboard").glob("events*"))
    report = (workdir / "report.html").read_text()
    assert f"{result['distilled_accuracy']:.1f} ± {result['distilled_std']:.1f} %" in report
    records = json.loads((workdir / "evaluations.json").read_text())
    # The best set is the one that does best on training images, and it is kept.
    best = max(("step 8", "distilled"), key=lambda name: np.mean(records[name]["train"]))
    assert result["best_step"] == records[best]["step"]
    assert result["best_accuracies"] == records[best]["test"]
    kept = gsdd_jax.load(workdir / "best.safetensors")
    assert kept.provenance["step"] == result["best_step"]
    assert "distill 14/14" in out


def test_started_again_it_is_done_at_once(run, finished):
    workdir, _ = finished
    before = (workdir / "distilled.safetensors").read_bytes()
    status, out, err = run("distill", *TINY, f"--workdir={workdir}")
    assert status == 0, err
    assert out.strip().splitlines()[-1].startswith("test accuracy:  distilled ")
    assert "evaluate distilled" not in out
    assert (workdir / "distilled.safetensors").read_bytes() == before


def test_killed_at_any_moment_it_ends_with_the_same_bytes(run, finished, tmp_path):
    """Kills a run that saves or evaluates, and resumes it by other call sizes or streaming."""
    workdir, _ = finished
    steps = tmp_path / "run" / "checkpoints"
    signs = (
        lambda: list(steps.glob("fit/*")),  # a temporary name, until it is complete
        (steps / "distill" / "8").exists,
    )
    other = ("--config.distill.steps_per_call=4", "--config.data.on_device=streamed")
    command = [*TINY, *other, f"--workdir={tmp_path / 'run'}"]
    for sign in signs:
        process = start("distill", *command)
        until(sign, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "run" / "evaluations.json").exists()
    status, _, err = run("distill", *command)
    assert status == 0, err
    for name in ("distilled.safetensors", "evaluations.json", "result.json", "contact_sheet.png"):
        expected, actual = ((d / name).read_bytes() for d in (workdir, tmp_path / "run"))
        assert actual == expected, name


def test_evaluate_reads_the_file(run, finished, tmp_path):
    workdir, _ = finished
    status, out, err = run("evaluate", f"--distilled={workdir}", f"--result={tmp_path}/r.json")
    assert status == 0, err
    assert "test accuracy (convnet):  distilled " in out
    written = json.loads((tmp_path / "r.json").read_text())
    result = json.loads((workdir / "result.json").read_text())
    # The same seed, schedule and set: the same numbers that distill itself reported.
    assert written["distilled_accuracies"] == result["distilled_accuracies"]
    assert written["random_real_accuracies"] == result["random_real_accuracies"]
    check_ours(tmp_path / "r.json", "a result", evaluation.is_result)  # may be replaced


def test_evaluate_takes_another_width(run, finished, tmp_path):
    width = json.loads((finished[0] / "config.json").read_text())["network"]["options"]["width"]
    given = f"--distilled={finished[0]}", "--nobaselines", f"--result={tmp_path}/r.json"
    found = {}
    for other in (width, width + 3):
        status, out, err = run("evaluate", *given, f"--width={other}")
        assert status == 0, err
        found[other] = json.loads((tmp_path / "r.json").read_text())["distilled_confusion"]
        assert "random" not in out
    result = json.loads((finished[0] / "result.json").read_text())
    assert found[width] == result["distilled_confusion"] != found[width + 3]
    status, _, err = run("evaluate", *given, "--width=0")
    assert status == 2 and err.endswith("width: expected an integer from 1 to 4096, got 0\n")


PLACES = {
    "file": lambda path: path.write_text('{"network": "years of work"}'),
    "FIFO": os.mkfifo,
    "folder": lambda path: (path / "report.html").mkdir(parents=True),
    "link": lambda path: path.symlink_to("elsewhere"),
}


@pytest.mark.parametrize(
    ("command", "what"),
    [
        *(("evaluate", what) for what in [*PLACES, "device", "long name"]),
        ("report", "folder"),
        ("benchmark", "file"),
    ],
)
def test_what_is_no_result_is_not_replaced_and_said_first(run, finished, command, what, tmp_path):
    workdir, _ = finished
    path = {"device": "/dev/null", "long name": tmp_path / ("x" * 300)}.get(what, tmp_path / "a")
    if what in PLACES:
        PLACES[what](path)
    state = lambda found: (found.st_ino, found.st_mode, found.st_mtime_ns)
    states = lambda: [state(os.lstat(path)) for path in tmp_path.iterdir()]
    before = states()
    flags = {
        "evaluate": [f"--distilled={workdir}", f"--result={path}"],
        "report": [workdir, f"--out={path}"],
        "benchmark": ["scale", f"--out={path}"],
    }
    status, out, err = run(command, *flags[command])
    assert (status, out) == (2, "")
    expected = "cannot be written (File name too" if what == "long name" else "not an earlier re"
    assert err.startswith(f"error: {path}") and expected in err and len(err.splitlines()) == 1
    assert states() == before


def test_a_page_that_is_no_report_stops_a_run_before_its_work(run, tmp_path):
    (tmp_path / "report.html").write_text("<title>years of work</title>")
    status, out, err = run("distill", *TINY, f"--workdir={tmp_path}")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'report.html'}: not an earlier report")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_fit_writes_the_start_of_a_distillation(run, tmp_path):
    """Fits by two seeds, with an objective that only a distillation refuses."""
    sets = []
    for seed in (0, 1):
        flags = [*TINY, f"--workdir={tmp_path}/{seed}", f"--config.seed={seed}"]
        status, out, err = run("fit", *flags, "--config.matching.options.batch_syn=100000")
        assert status == 0, err
        assert "60 images" in out
        sets.append(gsdd_jax.load(tmp_path / f"{seed}" / "fitted.safetensors"))
    assert sets[0].images().shape == (60, 8, 8, 3)
    assert (sets[0].images() != sets[1].images()).any()
    assert sets[0].class_names[:2] == ("airplane", "automobile")
    np.testing.assert_allclose(sets[0].transform.mean, (0.4914, 0.4822, 0.4465))


WRONG = [
    (["--config.distill.nope=3"], "config.distill.nope: no such field; the nearest are config.d"),
    (["--config.seed.a=1"], "--config: "),
    (["--config.matching.options.per_class_updates=maybe"], "expected True or False"),
    (
        ["--config.init.images=some"],
        "config.init.images: expected one of real, herding, recognized, solid, moments, none",
    ),
    (
        ["--config.evaluate.baselines=fitted,all"],
        "config.evaluate.baselines: expected some of fitted,",
    ),
    (["--config=README.md"], "--config: README.md, line"),
    (
        ["--config.seed=99999999999999999999"],
        "config.seed: expected an integer from 0 to 4294967295",
    ),
    (["--config=cifra10_tm:ipc=1"], "no such file; did you mean cifar10_tm"),
    (["--config=docs"], "--config: docs: a folder without configs"),
    (["--config.data.name=no_such_set"], "no_such_set"),
    (["--config.matching.options.batch_syn=31"], "expected 0 (all) to 30 images per class, got 31"),
    (["--config.matching.strategy=color_blur"], "config.matching.strategy: augmentation"),
    (["--workdir="], "--workdir=: expected a path"),
    (["--workdir=/dev/null/run"], "--workdir: cannot write to /dev/null/run"),
    (["stray"], "unexpected argument 'stray'"),
    (["--no_such_flag=1"], "no_such_flag"),
    (["--config.distill.learning_rate=1e38"], "distill.learning_rate: expected a number from"),
    (["--config.seed=" + "x" * 10**5], "expected an integer"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda v: v[0][:60] if v else "")
def test_what_is_wrong_is_one_line_and_status_2(run, arguments, message, tmp_path):
    workdir = [] if any("--workdir" in a for a in arguments) else [f"--workdir={tmp_path}/run"]
    status, _, err = run("distill", "--config=configs/demo.py", *workdir, *arguments)
    assert status == 2, err
    assert err.startswith("error: "), err
    assert len(err.strip().splitlines()) == 1, err
    assert len(err) < 2000
    assert message in err
    assert not (tmp_path / "run").exists()


def test_a_work_directory_belongs_to_its_config(run, finished, tmp_path):
    """Refuses another seed, by the config, by evaluations and by checkpoints."""
    folder = shutil.copytree(finished[0], tmp_path / "run")
    for name, line in (
        ("config.json", "holds a run with config.seed=0, not 5"),
        ("evaluations.json", "evaluations.json: of a run with other settings or other data"),
        ("", "checkpoints/fit/20: the checkpoint of a run with other settings"),
    ):
        status, _, err = run("distill", *TINY, "--config.seed=5", f"--workdir={folder}")
        assert status == 2
        assert line in err
        if name:
            (folder / name).unlink()


def test_another_run_is_told_from_by_its_component_first(run, finished):
    """The number of images follows from the parameterization: its name says why."""
    changed = ("--config.parameterization.name=quantized", f"--workdir={finished[0]}")
    status, _, err = run("distill", *TINY, *changed)
    assert status == 2
    assert "with config.parameterization.name='gaussian', not 'quantized'" in err


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(run, finished, tmp_path):
    workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "run")
    for name in ("distilled.safetensors", "result.json"):
        (tmp_path / "run" / name).unlink()
    for file in (tmp_path / "run" / "checkpoints" / "distill" / "14" / "state").rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    status, out, err = run("distill", *TINY, f"--workdir={tmp_path}/run")
    assert status == 0, err
    said = next(line for line in out.splitlines() if "damaged" in line)
    assert said.endswith("resuming from step 12")
    expected, actual = ((d / "distilled.safetensors") for d in (workdir, tmp_path / "run"))
    assert actual.read_bytes() == expected.read_bytes()


def test_a_run_ends_by_itself_when_its_time_is_up(run, tmp_path):
    status, _, err = run("distill", *TINY, f"--workdir={tmp_path}/run", "--stop_after=0.01")
    assert status == 0, err
    assert err == f"stopped after 0.01 s{interrupt.RESUMES}\n"
    for flags, line in (
        (["--stop_after=-1"], "stop_after"),
        (["--stop_after=nan"], "stop_after"),
        (["--stop_after=1e10"], "stop_after"),
        (["--stop_after=0.01", "--config.seed=-1"], "config.seed: expected"),
    ):
        status, _, err = run("distill", *TINY, f"--workdir={tmp_path}/run", *flags)
        assert status == 2 and line in err


def is_importing(process):
    return "jaxlib" in pathlib.Path(f"/proc/{process.pid}/maps").read_text()


ENDLESS = [
    f"--config.distill.{name}=1000000" for name in ("num_steps", "checkpoint_every", "eval_every")
]


@pytest.mark.parametrize(
    ("module", "asked", "sign", "expected", "saved"),
    [
        ("distill", signal.SIGTERM, "fit 0/20 ", 0, {"fit": 20}),
        ("distill", signal.SIGTERM, "distill 4/", 0, {"fit": 20, "distill": 4}),
        ("evaluate", signal.SIGINT, is_importing, 130, {}),
    ],
)
def test_an_interrupt_is_one_line_and_its_status(
    module, asked, sign, expected, saved, finished, tmp_path
):
    workdir, _ = finished
    command = {
        "distill": [*TINY, *ENDLESS, f"--workdir={tmp_path}/run"],
        "evaluate": [f"--distilled={workdir}/distilled.safetensors", "--epochs=100000"],
    }[module]
    # A test suite in the background ignores SIGINT, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(tmp_path / "out", "w") as out:
        process = start(module, *command, stdout=out)
    signal.signal(signal.SIGINT, before)
    printed = lambda: sign in (tmp_path / "out").read_text()
    until(printed if isinstance(sign, str) else lambda: sign(process), process)
    process.send_signal(asked)
    try:
        _, err = process.communicate(timeout=120)  # no call of a program is interrupted
    finally:
        process.kill()
    assert process.returncode == expected, err
    said = err.splitlines()
    assert said[-1].startswith("interrupted")
    assert len(said) == 1 or said[:-1] == [interrupt.WAITS]  # a long call
    steps: dict[str, list[int]] = {}
    for path in (tmp_path / "run" / "checkpoints").glob("*/*"):
        steps.setdefault(path.parent.name, []).append(int(path.name))
    assert steps.keys() == saved.keys()
    assert all(max(steps[stage]) >= least for stage, least in saved.items())


@pytest.mark.parametrize(
    "module",
    ["distill", "figure", "report"],
)
def test_help_says_what_there_is(run, module):
    status, out, err = run(module, "--help")
    assert status == 0, err
    assert f"\n    python -m launch.{module}" in out
    if module == "report":
        assert "--out: " in out
        return
    for field in ("distill.num_steps", "experts.num_experts", "seed"):
        assert f"\n  {field} " in out
    assert out.count("\n  --config: ") == 1
    for flag in ("coordinator", "num_processes", "process_id"):
        assert out.count(f"\n  --{flag}: ") == (module != "figure")
    assert "matching.strategy" not in out  # rarely changed
    # Values of the given config, with the help of its fields.
    given = "--config=configs/imagenet_dm.py", "--config.seed=7"
    status, again, _ = run(module, "--helpfull", *given)
    assert status == 0
    assert "\n  matching.strategy " in again
    shown = {line.split()[0]: line for line in again.splitlines() if line.startswith("  ")}
    for name, value, says in (
        ("seed", "7", "random seed"),
        ("network.options.width", "128", "channels per layer"),
    ):
        assert shown[name].split()[1] == value
        assert says in shown[name]
    assert "meow" in again


def test_a_config_has_a_name_and_a_folder_is_listed(run):
    status, out, err = run("fit", "--config=imagenet_dm", "--help")
    assert status == 0, err
    line = next(line for line in out.splitlines() if line.startswith("  data.name "))
    assert line.split()[1] == "imagenet2012"
    status, out, err = run("fit", "--config=configs/")
    assert status == 0, err
    lines = out.splitlines()
    assert "demo" in [line.split()[0] for line in lines]
    first = (ROOT / "configs" / "demo.py").read_text().splitlines()[0].strip('"')
    assert any(line.startswith("demo ") and line.endswith(first) for line in lines)


def test_the_first_line_says_what_is_run(finished):
    first = finished[1].splitlines()[0]
    # 6 images per class share the bytes of a 8 x 8 image of float32; 18 bytes are a Gaussian.
    num_gaussians = 4 * 8 * 8 * 3 // (18 * 6)
    assert first.startswith(
        "cifar10_mini 8x8x3, 10 classes; convnet of width 4; 6 images per class of "
        f"{num_gaussians} Gaussians; budget of {4 * 8 * 8 * 3:,} bytes per class (1 in float32)"
    )
    assert "; on " in first


def test_a_small_scale_says_that_it_is_no_experiment(run, tmp_path):
    flags = ["--config.scale=0.01", "--config.data.resolution=8", f"--workdir={tmp_path}/fit"]
    given = ["--config.init.num_steps=21", "--config.budget.images_per_class=6"]
    status, out, err = run("fit", *flags, *given)
    assert status == 0, err
    assert "scale 0.01: a shrunk copy" in out.splitlines()[0]
    assert "fit 0/21  compiling" in out and "; 6 images per class of" in out  # flags prevail


@pytest.mark.parametrize(("seconds", "there"), [(60.0, {"4", "8"}), (0.0, {"6", "8"})])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tmp_path, monkeypatch, quickly_compiled, seconds, there
):
    """Saves every four steps, and where so many seconds have passed."""
    monkeypatch.setattr(checkpoint, "DUE_AFTER", seconds)
    config = demo.get_config()
    for argument in TINY[1:]:
        name, value = argument.removeprefix("--config.").split("=")
        is_text = name in ("matching.strategy", "evaluate.baselines")
        config.update_from_flattened_dict({name: value if is_text else int(value)})
    config.distill.eval_every = 0
    calls, really_run = [], distill.run

    def run_into_nan(*arguments):
        state, losses = really_run(*arguments)
        calls.append(losses)
        return state, losses.at[1].set(np.nan) if len(calls) == 5 else losses

    monkeypatch.setattr(distill, "run", run_into_nan)
    with pytest.raises(gsdd_jax.UsageError) as raised:
        run_module.distill_to(config, tmp_path)
    message = str(raised.value)
    assert "the loss is nan at step 10; the last good checkpoint is step 8" in message
    assert message.endswith(f"the config is {tmp_path / 'config.json'}")
    kept = {p.name for p in (tmp_path / "checkpoints" / "distill").iterdir()}
    assert kept == there
    assert not (tmp_path / "distilled.safetensors").exists()


def test_a_report_of_a_run_and_of_what_is_none(run, finished, tmp_path):
    workdir, _ = finished
    before = (workdir / "report.html").read_bytes()
    status, out, err = run("report", workdir)
    assert status == 0, err
    assert out.strip() == str(workdir / "report.html")
    assert (workdir / "report.html").read_bytes() == before
    for arguments, line in (
        (
            [workdir, tmp_path, f"--out={tmp_path}/both.html"],
            f"{tmp_path}: expected a run's work directory, with its config.json",
        ),
        ([], "expected one or more work directories, got none"),
        ([workdir, "--images=-1"], "--images: expected 0 or more, got -1"),
    ):
        status, _, err = run("report", *arguments)
        assert (status, err) == (2, f"error: {line}\n")


def test_the_other_commands_refuse_what_is_wrong(run, tmp_path):
    status, _, err = run("evaluate", f"--distilled={tmp_path}/none.safetensors")
    assert status == 2
    assert err.startswith("error: ")
    assert "No such file" in err
    status, _, err = run("export", f"--distilled={tmp_path}", "--to=npz")
    assert (status, err) == (2, "error: --to, --out: expected both or neither, got one of them\n")
    status, _, err = run("benchmark", "rasterise")
    assert status == 2
    assert "expected one of rasterize, " in err
    for command in (("benchmark", "scale"), ("figure", "decode")):  # one process only
        status, _, err = run(*command, "--coordinator=node0:4000")
        assert (status, err) == (2, "error: Unknown command line flag 'coordinator'\n")
