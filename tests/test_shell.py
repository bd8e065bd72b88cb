"""Tests a command's surroundings: cache, devices, paths, names, and stopping."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

import gsdd_jax
from configs import common, demo
from gsdd_jax.core import mesh, native, program, stopping
from gsdd_jax.core.trees import dotted
from gsdd_jax.runs import evaluation
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.judge import Judge
from gsdd_jax.setup import components, experiment
from gsdd_jax.training import distill
from launch import cli, environment, fields
from tests.conftest import QUICKLY
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

ROOT = pathlib.Path(__file__).parent.parent
A_SET = ROOT / "benchmarks" / "results" / "cifar10_tm_ipc1_cpu" / "distilled.safetensors"
MINI = [
    *("--config=demo", "--config.scale=0.01", "--config.data.resolution=8"),
    "--config.init.num_steps=20",
]


def started(*arguments, cwd=ROOT, **variables):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **QUICKLY, **variables}
    environment = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def tiny():
    config = demo.get_config()
    config.update_from_flattened_dict(
        TINY | {"budget.images_per_class": 3, "distill.checkpoint_every": 100}
    )
    return config


# Compiled programs


def test_programs_are_kept_and_give_the_same_bytes(tmp_path):
    """Runs two commands; the second one finds the programs that the first one compiled."""
    sets, counts = [], []
    for name in ("cold", "warm"):
        command = ["-m", "launch.fit", *MINI, f"--workdir={tmp_path / name}"]
        places = dict(XDG_CACHE_HOME=str(tmp_path / "cache"), JAX_COMPILATION_CACHE_DIR=None)
        status, _, err = started(*command, **places)
        assert status == 0, err
        sets.append((tmp_path / name / "fitted.safetensors").read_bytes())
        kept = (tmp_path / "cache" / "gsdd_jax" / "compiled").rglob("*")
        counts.append(len([path for path in kept if path.is_file()]))
    assert counts[0] > 0
    assert counts[0] == counts[1]
    assert sets[0] == sets[1]


@pytest.fixture
def restored():
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("chosen", ["", "elsewhere"])
def test_without_a_folder_nothing_is_kept_and_a_chosen_one_stays(chosen, monkeypatch, restored):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/none")
    jax.config.update("jax_compilation_cache_dir", chosen or None)
    environment.keep_compiled_programs()
    assert (jax.config.jax_compilation_cache_dir or "") == chosen


def test_other_flags_of_xla_find_no_algorithm_that_these_chose(monkeypatch, tmp_path, restored):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = []
    for given in ("", "--xla_gpu_exclude_nondeterministic_ops=true", ""):
        monkeypatch.setenv("XLA_FLAGS", given)
        jax.config.update("jax_compilation_cache_dir", None)
        environment.keep_compiled_programs()
        folders.append(pathlib.Path(jax.config.jax_compilation_cache_dir))
    assert folders[0] == folders[2] != folders[1]
    assert all((folder / "xla_gpu_per_fusion_autotune_cache_dir").is_dir() for folder in folders)


# Devices


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ("banana", ["-m", "launch.evaluate", f"--distilled={A_SET}"]),
        ("cuda", ["-m", "gsdd_jax"]),
    ],
)
def test_a_device_that_is_not_there_is_one_line(asked, command):
    if asked == "cuda" and jax.default_backend() == "gpu":
        pytest.skip("it is there")
    status, _, err = started(*command, JAX_PLATFORMS=asked)
    assert (status, len(err.splitlines())) == (2, 1), err
    assert err.startswith(f"error: JAX_PLATFORMS={asked}: JAX cannot start that here; there is ")
    assert "set it to cpu" in err


def test_no_memory_is_a_line_with_what_takes_less():
    with pytest.raises(jax.errors.JaxRuntimeError) as raised:
        jnp.zeros(2**50).block_until_ready()
    flags.FLAGS.mark_as_parsed()  # as in a command
    line = cli._of_the_device(raised.value)
    assert line.startswith("out of memory (Out of memory allocating ")
    assert "\n" not in line
    assert cli._of_the_device(ValueError("some other")) == ""
    for name in ("dm", "dc", "tm", "frepo", "bptt", "ncfm", "datm"):
        config = demo.get_config()
        common.matched_by(config, name)
        named = re.findall(r"--config\.([\w.]+)", fields.smaller(config))
        assert len(named) >= 5
        assert set(named) <= set(dotted(config.to_dict())), named


def test_only_arms_with_accuracies_are_shown():
    """Shows a budget that no random real images fill, and one network, without a deviation."""
    result = {"distilled_accuracies": [10.0, 12.0], "random_real_dct_accuracies": [11.0]}
    shown = evaluation.compared(("distilled", "random_real", None, "random_real_dct"), result)
    assert shown == "distilled 11.0 ± 1.4 %   random real dct 11.0 %"


def test_the_devices_are_counted(tiny, monkeypatch):
    dataset = components.load_data(tiny)
    kind = jax.devices()[0].device_kind
    assert components.described(tiny, dataset).endswith(f"; on {kind}")
    monkeypatch.setattr(mesh, "size", lambda: 8)
    assert components.described(tiny, dataset).endswith(f"; on 8 x {kind}")


def test_custom_calls_that_are_not_built_are_a_note(monkeypatch, capsys):
    environment.say_what_is_not_built()
    assert (capsys.readouterr().err == "") == bool(native.PLATFORMS)
    monkeypatch.setattr(native, "PLATFORMS", ())
    environment.say_what_is_not_built()
    said = capsys.readouterr().err
    assert said.startswith("note: the custom calls for C")
    assert said.count("\n") == 1
    assert str(native.FOLDER) in said and "pip install" in said


# Paths


def test_a_home_is_meant_by_its_sign(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    gsdd_jax.save("~/kept/distilled.safetensors", gsdd_jax.load(A_SET))
    assert len(gsdd_jax.load("~/kept").labels) == 300  # of a work directory, too
    command = ["-m", "launch.export", "--distilled=~/kept", "--to=npz", "--space=unit"]
    status, _, err = started(*command, "--out=~/set.npz", HOME=str(tmp_path))
    assert status == 0, err
    assert np.load(tmp_path / "set.npz")["images"].shape == (300, 32, 32, 3)
    assert not (tmp_path / "~").exists()
    config = demo.get_config()
    for group in ("data", "experts", "init"):
        config[group].dir = "~/somewhere"
    cli.paths.expand(config)
    assert {config[group].dir for group in ("data", "experts", "init")} == {f"{tmp_path}/somewhere"}


def test_every_flag_that_names_a_path_is_one_of_paths():
    """Compares flags by name, in every command that has them."""
    plain, as_path = set(), set()
    for file in (ROOT / "launch").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = ast.unparse(node.func)
                if called in ("flags.DEFINE_string", "flags.DEFINE_list"):
                    plain.add(node.args[0].value)
                elif called in ("paths.define", "paths.define_several"):
                    as_path.add(node.args[0].value)
    names = {"workdir", "distilled", "out", "data_dir", "experts_dir", "root", "result"}
    assert (
        names | {"images", "clips", "test", "transform", "cifar", "from_table", "decoder"}
        == as_path
    )
    assert plain == {
        *("name", "network", "corrupted", "steps", "sweeps", "shapes", "devices", "configs"),
        *("coordinator", "classes"),
    }


# Names of commands


def foreign(folder):
    """Makes foreign packages with our names, as ROS has one."""
    for name in ("launch", "configs", "benchmarks"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('somebody else')\n")
    return folder


@pytest.mark.parametrize("layout", ["checkout", "wheel"])
def test_gsdd_finds_its_own_and_names_itself(layout, tmp_path):
    others = foreign(tmp_path / "others")
    site = ROOT
    if layout == "wheel":  # as pyproject.toml lays it out
        site = tmp_path / "site"
        (site / "gsdd_jax" / "_commands").mkdir(parents=True)
        for path in (ROOT / "gsdd_jax").iterdir():
            (site / "gsdd_jax" / path.name).symlink_to(path)
        for name in ("launch", "configs", "benchmarks"):
            (site / "gsdd_jax" / "_commands" / name).symlink_to(ROOT / name)
    code = (
        "import sys\n"
        # Without the editable install's finder, which would find the checkout.
        "sys.meta_path = [f for f in sys.meta_path if isinstance(f, type)]\n"
        "from gsdd_jax.command import main\n"
        "main()"
    )
    path = os.pathsep.join(map(str, (others, site)))
    where = dict(cwd=others, PYTHONPATH=path)
    status, out, err = started("-c", code, "prepare", "--help", **where)
    assert status == 0, err
    assert "\n    gsdd prepare --images=FOLDER" in out
    assert "launch." not in out
    if layout == "checkout":
        return
    no_data = ["fit", "--config=own", f"--workdir={tmp_path}/fit"]
    status, _, err = started("-c", code, *no_data, **where)
    assert status == 2, err
    assert "`gsdd prepare` makes one of your own pictures" in err


def test_a_text_names_commands_as_they_were_started(monkeypatch):
    text = "see launch.distill:\n    python -m launch.distill --config=demo"
    monkeypatch.setattr(program, "_prefix", program.MODULE)
    assert program.as_started(text) == text
    assert program.command("fit") == "python -m launch.fit"
    program.started_by_script()
    assert program.as_started(text) == "see gsdd distill:\n    gsdd distill --config=demo"
    assert program.command("fit") == "gsdd fit"


# Runs


def test_a_run_that_is_stopped_saves_and_goes_on_with_the_same_bytes(tiny, tmp_path, monkeypatch):
    """Stops after four of six steps, where no checkpoint is due."""
    really_run, really_judge, calls = distill.run, Judge.on_the_way, []

    def run_until(*arguments):
        result = really_run(*arguments)
        calls.append(arguments[-1])
        if sum(calls) == 4:
            assert stopping.ask()
        return result

    def judge(*arguments, **more):
        if not calls:
            assert not stopping.ask()  # nothing is lost
        really_judge(*arguments, **more)

    monkeypatch.setattr(distill, "run", run_until)
    monkeypatch.setattr(Judge, "on_the_way", judge)
    config = tiny.copy_and_resolve_references()
    config.distill.update(eval_every=0, steps_per_call=1)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with pytest.raises(stopping.Stopped):
        distill_to(config, cut)
    assert [path.name for path in (cut / "checkpoints" / "distill").iterdir()] == ["4"]
    monkeypatch.setattr(distill, "run", really_run)
    distill_to(config, cut)
    distill_to(config, whole)
    for name in ("distilled.safetensors", "result.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert not stopping.ask()


def test_experts_are_missed_before_anything_long(tiny, tmp_path, monkeypatch):
    config = tiny.copy_and_resolve_references()
    common.matched_by(config, "tm")
    config.experts.dir = str(tmp_path)
    monkeypatch.setattr(experiment, "build_transform", lambda *_: pytest.fail("it whitens first"))
    with pytest.raises(gsdd_jax.UsageError, match=r"100 of 100 experts are missing, .*; run `"):
        experiment.build(config)


def test_a_set_is_shown_as_one_short_line():
    expected = "DistilledSet(300 images of 32x32x3 as gaussian, of cifar10; 118800 bytes)"
    assert repr(gsdd_jax.load(A_SET)) == expected
