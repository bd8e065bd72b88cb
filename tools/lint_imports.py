"""Checks the direction of imports (pyproject.toml) in the checkout.

    python tools/lint_imports.py

import-linter looks where Python finds the package first, which after an editable install is the
folder of its compiled modules only; so that finder is left out.
"""

import pathlib
import sys

sys.meta_path = [f for f in sys.meta_path if type(f).__name__ != "ScikitBuildRedirectingFinder"]
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from importlinter.cli import lint_imports  # noqa: E402

sys.exit(lint_imports())
