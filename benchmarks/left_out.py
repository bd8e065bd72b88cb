"""A part of a benchmark that fails costs only itself."""

import contextlib
from collections.abc import Iterator

from gsdd_jax.core.errors import UsageError


@contextlib.contextmanager
def left_out(what: str) -> Iterator[None]:
    """Prints a line instead of raising where `what` fails, by lack of memory for example.

    A UsageError is raised all the same: the next part would fail by it too.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        print(f"{what} is left out: {type(error).__name__}: {reason}", flush=True)
