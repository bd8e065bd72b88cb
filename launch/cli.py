"""What the launch scripts share: flags in, one clear line out when they are wrong."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping

from absl import flags, logging
from ml_collections import ConfigDict

from configs import common
from gsdd_jax.errors import UsageError

USAGE_STATUS = 2


def run(main: Callable[..., None], *, positional: tuple[str, ...] = ()) -> None:
    """Parses the flags, runs `main`, and turns what a user can put right into exit status 2.

    Where `positional` names choices, the command takes one of them and `main` gets it.
    """
    logging.set_verbosity(logging.ERROR)  # the libraries' chatter
    keep_freed_memory()
    try:
        main(*_parse(positional))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE_STATUS)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def keep_freed_memory() -> None:
    """Lets glibc reuse what XLA's CPU backend frees instead of returning it to the kernel.

    Otherwise every call faults its temporaries in afresh, a quarter or more of a training step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another libc
        return
    one_arena, no_mmap, no_trim = (-8, 1), (-4, 0), (-1, -1)
    for option, value in (one_arena, no_mmap, no_trim):
        mallopt(option, value)


def experiment(config: ConfigDict) -> ConfigDict:
    """The config that a flag gave, at its scale."""
    try:
        return common.scaled(config)
    except ValueError as error:
        raise UsageError(str(error)) from None


def accuracy(arm: str, result: Mapping[str, float]) -> str:
    """One arm of a result as text."""
    mean, deviation = result[f"{arm}_accuracy"], result[f"{arm}_std"]
    return f"{arm.replace('_', ' ')} {mean:.1f} ± {deviation:.1f} %"


def _parse(positional: tuple[str, ...]) -> list[str]:
    try:
        rest = flags.FLAGS(sys.argv)[1:]
        if "config" in flags.FLAGS:
            getattr(flags.FLAGS.config, "seed", None)  # a file that did not load fails only now
    except flags.Error as error:
        raise UsageError(_one_line(error)) from None
    except (AttributeError, KeyError, TypeError, ValueError, OSError, ImportError) as error:
        # A config's own overrides fail while the flags are parsed.
        raise UsageError(f"--config: {_one_line(error)}") from None
    if positional and (len(rest) != 1 or rest[0] not in positional):
        raise UsageError(f"expected one of {', '.join(positional)}, got {' '.join(rest) or 'none'}")
    if rest and not positional:
        raise UsageError(f"unexpected argument {rest[0]!r}; settings are given as --flag=value")
    return rest


def _one_line(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__
