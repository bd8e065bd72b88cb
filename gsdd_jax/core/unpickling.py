"""Values of untrusted pickles; no code that they name is imported or run."""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from gsdd_jax.core.errors import UsageError


def values(
    content: bytes,
    stand_ins: Mapping[tuple[str, str], Callable],
    *,
    stored: Callable[[Any], Any] | None = None,
    encoding: str = "ASCII",
) -> Any:
    """Returns the value of a pickle.

    Args:
      stand_ins: what takes the place of the names (module, name) that the pickle may contain.
      stored: returns the value of a persistent id; None: there are none.
      encoding: of texts of Python 2, or "bytes".

    Raises UsageError for other names, and for damage.
    """
    try:
        return _Unpickler(content, stand_ins, stored, encoding).load()
    except Exception as error:  # an unpickler raises anything on damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"expected a pickle of plain values and arrays ({reason})") from None


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler; the one in C allocates whatever size a tiny file claims."""

    def __init__(self, content, stand_ins, stored, encoding):
        super().__init__(io.BytesIO(content), encoding=encoding)
        self.stand_ins, self.stored = stand_ins, stored

    def find_class(self, module, name):
        if (module, name) not in self.stand_ins:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        found = self.stand_ins[module, name]
        if not isinstance(found, type):
            return found
        return type(name, (found,), {"__slots__": ()})  # new each time: a file may change it

    def persistent_load(self, pid):
        if self.stored is None:
            raise pickle.UnpicklingError("it refers to other files")
        return self.stored(pid)
