"""Tests an installation: commands by discovery, experiments by name, locks on any system."""

import ast
import pathlib
import runpy
import subprocess
import sys
import tomllib

import pytest

import gsdd_jax.__main__
from gsdd_jax import command
from gsdd_jax.core import program
from gsdd_jax.core.errors import UsageError
from launch import experiments

ROOT = pathlib.Path(__file__).parent.parent


def gsdd(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gsdd", *arguments])
    monkeypatch.setattr(program, "_prefix", program.MODULE)  # put back afterwards
    command.main()


def test_every_module_that_runs_is_a_command():
    """Compares commands with the modules that call their main when run."""
    runs = {p.stem for p in (ROOT / "launch").glob("*.py") if "cli.run(main" in p.read_text()}
    assert {"distill", "evaluate", "fit", "train_experts", "benchmark"} <= runs
    found = command.commands()
    assert set(found) == runs
    assert all(title.endswith(".") for title in found.values()), found


@pytest.mark.parametrize("module", ["evaluate", "export", "prepare", "report", "reproduce"])
def test_help_and_wrong_flags_do_not_wait_for_jax(module):
    script = (
        "import runpy, sys; sys.modules['jax'] = None; sys.argv = ['-m', *sys.argv[1:]]; "
        f"runpy.run_module('launch.{module}', run_name='__main__', alter_sys=True)"
    )
    for argument, status in (("--help", 0), ("--no_such_flag", 2)):
        command = [sys.executable, "-c", script, argument]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (status, status // 2), done.stderr


def test_a_command_is_started_as_python_does(monkeypatch, tmp_path, capsys):
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "hello.py").write_text(
        '"""Says hello."""\nimport sys\ndef main(): print("hello", sys.argv[1:])\n'
        'if __name__ == "__main__": main()\n'
    )
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    started = []
    monkeypatch.setattr(runpy, "run_module", lambda name, **how: started.append((name, how)))
    gsdd(monkeypatch, "--help")
    assert "  hello  Says hello." in capsys.readouterr().out
    gsdd(monkeypatch, "hello", "--one=1")
    assert started == [("launch.hello", {"run_name": "__main__", "alter_sys": True})]
    assert sys.argv == ["-m", "--one=1"]  # which triggers launch/__init__.py's Ctrl-C handler
    assert sys.path[0] == str(tmp_path)


def test_a_wrong_command_is_one_line_with_the_nearest(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        gsdd(monkeypatch, "distil")
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: gsdd: expected one of audit, ")
    assert err.endswith("got distil; did you mean distill?\n")
    assert err.count("\n") == 1


def test_experiments_are_found_by_name_from_anywhere(monkeypatch, tmp_path):
    ours = ROOT / "configs" / "demo.py"
    monkeypatch.chdir(tmp_path)
    for given in ("demo", "demo.py", "configs/demo", "configs/demo.py"):
        assert pathlib.Path(experiments.find(given)).samefile(ours)
    with pytest.raises(UsageError, match=r"^dmo: no such file; did you mean demo or demo_tm\?$"):
        experiments.find("dmo")
    # A local folder is taken literally.
    with pytest.raises(UsageError, match=r"^mine/demo.py: no such file"):
        experiments.find("mine/demo.py")
    assert experiments.folder("configs/") == ROOT / "configs"
    # A work directory of the same name is no config.
    (tmp_path / "demo").mkdir()
    assert experiments.folder("demo") is None
    assert pathlib.Path(experiments.find("demo")).samefile(ours)
    # The working directory comes first.
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs" / "demo.py"
    own.write_text('"""Mine.\n\nMore."""\n\ndef get_config():\n    pass\n')
    for given in ("demo", "configs/demo.py"):
        assert pathlib.Path(experiments.find(given)).samefile(own)
    assert experiments.titles(experiments.folder("configs/")) == {"demo": "Mine."}


def test_all_experiments_are_listed_with_a_line():
    titles = experiments.titles(ROOT / "configs")
    defined = {p.stem for p in (ROOT / "configs").glob("*.py") if "get_config" in p.read_text()}
    assert set(titles) == defined - {"common", "__init__"}
    assert all(titles.values()), titles


def test_what_is_installed_is_said_in_a_few_lines(monkeypatch, tmp_path, capsys):
    for name in ("cifar10/3.0.2", "imagenette/160px-v2/1.0.0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "dataset_info.json").write_text("{}")
    (tmp_path / "downloads" / "extracted" / "deep" / "er").mkdir(parents=True)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    gsdd_jax.__main__.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("gsdd-jax ")
    assert "CPU" in lines[1] and "CUDA" in lines[1]
    assert lines[3].endswith(f"in {tmp_path} (TFDS_DATA_DIR): cifar10, imagenette/160px-v2")


def test_undefined_names_are_told_from_axes_of_shapes(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "from jaxtyping import Array, Float\n\n\n"
        'def f(é: Float[Array, "m h w c"], b: "Nope") -> Float[Array, "m {é}"]:\n'
        "    return é + gone\n"
    )
    tool = [sys.executable, ROOT / "tools" / "lint_names.py"]
    done = subprocess.run([*tool, module], capture_output=True, text=True)
    lines = [line.removeprefix(f"{module}:") for line in done.stdout.splitlines()]
    assert lines == ["4:39: Undefined name `Nope`", "5:16: Undefined name `gone`"]
    assert done.returncode == 1


def test_a_wheel_has_all_that_the_commands_import():
    """Looks for every top-level package that launch/, configs/ and benchmarks/ import."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = project["tool"]["scikit-build"]
    shipped = build["wheel"]["packages"]
    # Moved packages would put folders above the checkout, where an editable install looks.
    (editable,) = (o for o in build["overrides"] if o["if"] == {"state": "editable"})
    assert editable["wheel"]["packages"] == ["gsdd_jax"]
    here = {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    imported = set()
    for folder in ("launch", "configs", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {name.name.partition(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(node.module.partition(".")[0])
    assert {"launch", "configs", "benchmarks", "gsdd_jax"} <= imported & here
    assert imported & here <= set(shipped.values())
    commands = {folder: place for place, folder in shipped.items() if folder != "gsdd_jax"}
    for folder, place in commands.items():
        assert ROOT / place == command.INSTALLED / folder
    on_path = (ROOT / "xla_ops" / "gsdd_jax_commands.pth").read_text()
    assert ROOT / on_path.strip() == command.INSTALLED
