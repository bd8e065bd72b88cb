"""Isolation of failures: a failed part of a benchmark is skipped."""

import contextlib
from collections.abc import Iterator

from gsdd_jax.core.errors import UsageError


@contextlib.contextmanager
def left_out(what: str) -> Iterator[None]:
    """Prints a line instead of raising if `what` fails, for example by lack of memory.

    A UsageError is still raised: the next part would fail by it, too.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        print(f"{what} is left out: {type(error).__name__}: {reason}", flush=True)
