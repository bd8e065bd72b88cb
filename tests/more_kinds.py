"""Modules that a package has beside its own, while a test runs."""

import contextlib
import importlib
import sys


@contextlib.contextmanager
def in_package(package, folder):
    """The modules of a folder, as if they lay in that of the package."""
    package.__path__.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        package.__path__.remove(str(folder))
        for module in folder.glob("*.py"):
            sys.modules.pop(f"{package.__name__}.{module.stem}", None)
