"""Flags, help and one-line errors shared by the launch scripts."""

import importlib.metadata
import json
import os
import pathlib
import re
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from gsdd_jax.core import memory, program, stopping
from gsdd_jax.core.errors import UsageError, UsageWarning, counted, printable
from gsdd_jax.core.fields import MOST_INT, check_value
from gsdd_jax.core.trees import flat
from launch import environment, experiments, interrupt, paths

flags.disclaim_key_flags()  # a flag belongs to the command that calls these functions

USAGE_STATUS = 2
PLAINER = {
    r"flag (--\w+)=None: Flag --\w+ must have a value other than None\.": r"\1: expected a value",
    r"^flag (--\w+)=(.*): \2: ": r"\1: \2: ",
    r"(?s)Error whilst parsing config file:\s+Traceback.*\n\w+: ": "",
    r"get_config\(\) takes 0 positional arguments.*": "this experiment has no variants",
    r"\('Non-boolean argument to boolean flag', .*\)": "expected True or False",
    r"invalid literal for int\(\) .*": "expected an integer",
    r"could not convert string to float: .*": "expected a number",
    r"Configuration is not available because of an earlier failure to load: ": "",
}
PROCESSES = ("coordinator", "num_processes", "process_id")  # each may name the host differently
HELP_FULL = ("-helpfull", "--helpfull")
HELP = ("-h", "-help", "--help", *HELP_FULL)


def run(
    main: Callable[..., None],
    *,
    positional: tuple[str, ...] = (),
    several: str = "",
    one: str = "",
    resumes: bool = False,
    computes: bool | None = True,
) -> None:
    """Parses the flags, runs `main` and turns user errors into one line and exit status 2.

    Args:
      main: the command; gets the positional arguments.
      positional: choices of the command's one positional argument; empty: no such argument.
      several: noun for the one or more paths of a command that takes a list; empty: no list.
      one: noun for the one path of a command that takes it; empty: none.
      resumes: whether an interruption announces that the same command resumes.
      computes: False for a command that computes next to nothing: it only starts the CPU. None for
        one that needs no JAX.
    """
    if resumes:
        interrupt.says(interrupt.RESUMES)
    logging.set_verbosity(logging.FATAL)  # libraries' messages; errors are raised
    threading.excepthook = lambda failed: _fail(_one_line(failed.exc_value))
    plain = warnings.formatwarning
    warnings.formatwarning = lambda message, category, *rest, **more: (
        f"warning: {printable(str(message))}\n"
        if issubclass(category, UsageWarning)
        else plain(message, category, *rest, **more)
    )
    environment.keep_freed_memory()
    try:
        if any(argument in HELP for argument in sys.argv[1:]):
            _print_help()
            return
        arguments = _parse(positional, several, one)
        if "config" not in flags.FLAGS:
            _stop_in_time()
        if computes is None:
            main(*arguments)
            return
        if not computes:  # before JAX is used
            import jax

            jax.config.update("jax_platforms", "cpu")
        environment.keep_compiled_programs()
        if "coordinator" not in flags.FLAGS:
            if computes:
                environment.say_what_is_not_built()
            main(*arguments)
            return
        from gsdd_jax.core import processes  # after the flags, so that a wrong one answers at once

        here = processes.place(*(flags.FLAGS[name].value for name in PROCESSES))
        with processes.together(here, _task()):
            environment.say_what_is_not_built()
            main(*arguments)
    except UsageError as error:
        _fail(_with_flags(str(error)))
    except BrokenPipeError:  # `| head` stops reading
        os._exit(0)
    except OSError as error:  # a full disk, a deleted folder
        _fail(_one_line(error))
    except stopping.Stopped:
        interrupt.end(saved=True)
    except Exception as error:
        if computes is not None and (reason := _of_the_device(error)):
            _fail(reason)
        raise


def _with_flags(text: str) -> str:
    """Returns an error's text with the names of arguments at its beginning as flags."""
    names, colon, rest = text.partition(": ")
    own = flags.FLAGS.get_key_flags_for_module(sys.modules["__main__"])
    known = {flag.name for flag in own if "." not in flag.name}
    known -= {flag.value for flag in own if isinstance(flag.value, str)}  # a path of that name
    if not known.issuperset(names.split(", ")):
        return text
    return "".join(["--", names.replace(", ", ", --"), colon, rest])


def _of_the_device(error: Exception) -> str:
    """Returns advice on an error of JAX, by its text or its cause; empty for other errors."""
    if said := memory.exhausted(error):
        return f"{said}; smaller: {_smaller()}"
    from gsdd_jax.core import devices  # it imports JAX

    try:
        devices.check()
    except UsageError as reason:
        return str(reason)
    return ""


def _smaller() -> str:
    """Returns flags that make a command take less memory."""
    if "config" in flags.FLAGS:
        from launch import fields  # it takes seconds

        return fields.smaller(flags.FLAGS.config)
    given = [name for name in ("num_networks", "resolution", "images") if name in flags.FLAGS]
    return ", ".join(f"--{name}" for name in given) or "the set, or a device with more memory"


def define_config() -> flags.FlagHolder:
    """Defines `--config`, and `--config.FIELD=VALUE` for each field.

    Shipped configs are found by name from any directory. A folder is listed.
    """
    try:
        sys.argv[1:] = _with_paths(sys.argv[1:])
        return config_flags.DEFINE_config_file(
            "config",
            experiments.find("demo"),
            "Experiment: a config file, or a name from configs/.",
            lock_config=False,  # `validate` refuses unknown fields and names the nearest
            accept_new_attributes=True,
        )
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:  # the default is loaded here, overrides and all
        _fail(f"--config: {_one_line(error)}")


def print_as(
    said: Mapping[str, Any], text: Callable[[Mapping[str, Any]], str], as_json: bool
) -> None:
    """Prints plain values as one JSON object, or as text for people."""
    print(json.dumps(said) if as_json else text(said))


def define_processes() -> None:
    """Defines the flags of multi-process runs."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "Multi-process run: HOST:PORT of process 0. PORT + 1 is used, too.",
    )
    flags.DEFINE_integer("num_processes", None, "Multi-process run: number of processes.")
    flags.DEFINE_integer("process_id", None, "Multi-process run: index of this process, from 0.")


def define_stop_after() -> None:
    """Defines `--stop_after` of a command that resumes."""
    flags.DEFINE_float(
        "stop_after",
        None,
        "Time limit in seconds. The command then saves a checkpoint and exits with status 0.",
    )
    valid = lambda seconds: seconds is None or 0 <= seconds <= MOST_INT  # false for NaN
    flags.register_validator("stop_after", valid, f"expected seconds from 0 to {MOST_INT}")


def _stop_in_time() -> None:
    if "stop_after" in flags.FLAGS and flags.FLAGS.stop_after is not None:
        interrupt.stop_after(flags.FLAGS.stop_after)


def experiment(config: ConfigDict) -> ConfigDict:
    """Returns the config to run, with open fields set for the data set and `scale` applied."""
    from gsdd_jax.config import adapt, validate  # after the flags: it takes seconds

    validate.structure(config)
    config = _swapped(config)
    paths.expand(config)
    validate.every(config, automatic=True)
    suited, for_data = _suited(config)
    given = _given()
    shrunk = adapt.scaled(suited, given)
    before, complete, used = flat(config), flat(suited), flat(shrunk)
    if for_data:
        chosen = [f for f, v in complete.items() if v != before[f]]
        epochs = _epochs(shrunk) if "evaluate.epochs" in chosen else []
        print(for_data, *(f"--config.{f}={used[f]}" for f in chosen), *epochs, flush=True)
    for f in sorted(given.keys() & used.keys()):
        if used[f] != complete[f] == given[f]:
            print(f"scale {config.scale:g}: config.{f} shrinks from {given[f]} to {used[f]}")
    if config.scale < 1:
        print(
            f"scale {config.scale:g}: a shrunk copy, to check that the experiment runs; its "
            "accuracies say nothing about the full experiment",
            flush=True,
        )
    _stop_in_time()  # what is wrong with a config is said first
    return shrunk


def _epochs(config: ConfigDict) -> list[str]:
    """Returns a note where evaluations train more epochs than their field says, else nothing."""
    from gsdd_jax.setup.experiment import build_schedule

    said, run = config.evaluate.epochs, build_schedule(config).num_epochs
    optimizer = config.evaluate.optimizer
    return [] if run == said else [f"(evaluations: {counted(run, 'epoch')} with {optimizer})"]


def _swapped(config: ConfigDict) -> ConfigDict:
    """Returns the config with defaults for components named by flags, not by its file."""
    from gsdd_jax.config import adapt
    from gsdd_jax.config.fields import NAMES

    given = _given()
    if not any(name in given for name in NAMES):
        return config
    flag = flags.FLAGS["config"]
    return adapt.swapped(config, flag.parser.parse(flag.config_filename), given)


def _given() -> Mapping[str, Any]:
    """Returns the fields that flags set, by dotted name."""
    return flags.FLAGS["config"].override_values if "config" in flags.FLAGS else {}


def _suited(config: ConfigDict) -> tuple[ConfigDict, str]:
    """Returns the config with open fields set, and a line on the data set."""
    from gsdd_jax.config import adapt

    if not adapt.is_open(config):
        return config, ""
    from gsdd_jax.setup.components import load_data  # after the flags: it takes seconds

    dataset = load_data(config)
    least, most = min(dataset.train_counts), max(dataset.train_counts)
    of_data = dataset.image_shape, dataset.num_classes, most, dataset.frames
    suited = adapt.suited(config, *of_data, given=_given())
    images = counted(most, "training image")
    return suited, (
        f"for {dataset.name}, of {counted(dataset.num_classes, 'class')} of "
        f"{images if least == most else f'{least:,} to {images}'}:"
    )


def _with_paths(arguments: list[str]) -> list[str]:
    """Returns arguments with each config's name replaced by its path."""
    out, is_config = [], False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if is_config or (flag in ("--config", "-config") and equals):
            is_config, given = False, argument if is_config else value
            if listed := experiments.folder(given):
                _list(listed)
            prefix = "" if given is argument else f"{flag}="
            argument = f"{prefix}{experiments.find(given)}"
        else:
            is_config = argument in ("--config", "-config")
        out.append(argument)
    return out


def _list(folder: pathlib.Path) -> NoReturn:
    titles = experiments.titles(folder)
    if not titles:
        raise UsageError(f"{folder}: a folder without configs; expected a file or a name")
    width = max(map(len, titles))
    for name, title in titles.items():
        print(f"{name:{width}}  {title}")
        if found := experiments.variants(folder, name):
            print(f"{'':{width}}  --config={name}:" + " ".join(found))
    sys.exit()


def _parse(positional: tuple[str, ...], several: str, one: str) -> list[str]:
    rest = _parse_flags(sys.argv)
    if one and len(rest) != 1:
        raise UsageError(f"expected one {one}, got {len(rest) or 'none'}")
    if several and not rest:
        raise UsageError(f"expected one or more {several}, got none")
    if one or several:
        return list(map(os.path.expanduser, rest))
    if positional and (len(rest) != 1 or rest[0] not in positional):
        raise UsageError(f"expected one of {', '.join(positional)}, got {' '.join(rest) or 'none'}")
    if rest and not positional:
        raise UsageError(f"unexpected argument {rest[0]!r}; settings are given as --flag=value")
    return rest


def _task() -> dict[str, Any]:
    """Returns flags and versions that all processes of a run must share."""
    from gsdd_jax.storage.version import version

    task = {"gsdd-jax": version(), "jax": importlib.metadata.version("jax")}
    own = flags.FLAGS.get_key_flags_for_module(sys.modules["__main__"])
    for flag in own:
        if flag.name == "config":
            task |= {f"config.{field}": value for field, value in flat(flag.value).items()}
        elif flag.name not in PROCESSES:
            task[f"--{flag.name}"] = flag.value
    return task


def _parse_flags(arguments: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(arguments)[1:]
        if "config" in flags.FLAGS:
            getattr(flags.FLAGS.config, "seed", None)  # a failed load raises only now
    except flags.Error as error:
        raise UsageError(_one_line(error)) from None
    except Exception as error:
        # A config's own overrides fail while the flags are parsed.
        missing = "no such field: " if isinstance(error, KeyError) else ""
        raise UsageError(f"--config: {missing}{_one_line(error)}") from None
    for flag in flags.FLAGS.get_key_flags_for_module(sys.modules["__main__"]):
        if isinstance(flag.value, str):
            check_value(f"--{flag.name}", "str", flag.value)
    return rest


def _print_help() -> None:
    """Prints the script's docstring, its flags and fields of the given config."""
    script = sys.modules["__main__"]
    print(program.as_started(script.__doc__.strip()), "\n\nflags:", sep="")
    has_config = "config" in flags.FLAGS
    if has_config:
        print("  --config: Experiment: a config file, or a name from configs/. (default: demo)")
    own = flags.FLAGS.get_key_flags_for_module(script)
    for flag in sorted(own, key=lambda flag: flag.name):
        if flag.name.partition(".")[0] == "config":
            continue
        default = "" if flag.default in (None, "", []) else f" (default: {flag.default})"
        meaning = program.as_started(" ".join(flag.help.split()))
        print(f"  --{flag.name}: {meaning}{default}")
    if has_config:
        from launch import fields  # it takes seconds

        given = [argument for argument in sys.argv if argument not in HELP]
        for name in flags.FLAGS:  # help needs no required flag
            given += [f"--{name}=1"] if flags.FLAGS[name].default is None else []
        _parse_flags(given)
        config = _swapped(flags.FLAGS.config)
        path, colon, variant = flags.FLAGS["config"].config_filename.partition(":")
        name = f"{pathlib.Path(path).stem}{colon}{variant}"
        if any(argument in HELP_FULL for argument in sys.argv):
            print(f"\nfields of {name}, set by --config.FIELD=VALUE:")
            print(fields.describe(config))
            return
        print(f"\nmost used fields of {name}, set by --config.FIELD=VALUE:")
        print(fields.describe(config, fields.MOST_USED))
        print("\n--helpfull lists all fields. --config=configs/ lists all experiments.")


def _fail(text: str) -> NoReturn:
    """Prints one line and exits with status 2, even if threads still compute."""
    print(f"error: {printable(' '.join(text.split()))}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(USAGE_STATUS)


def _one_line(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    if isinstance(error, SyntaxError):
        text = f"{error.filename}, line {error.lineno}: {error.msg}"
    for pattern, plain in PLAINER.items():
        text = re.sub(pattern, plain, str(text))
    return " ".join(str(text).split()) or type(error).__name__
