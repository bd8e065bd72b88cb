"""Adds modules to a package while a test runs."""

import contextlib
import importlib
import sys


@contextlib.contextmanager
def in_package(package, folder):
    """Makes the modules of a folder importable as if they were in the package."""
    package.__path__.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        package.__path__.remove(str(folder))
        for module in folder.glob("*.py"):
            sys.modules.pop(f"{package.__name__}.{module.stem}", None)
