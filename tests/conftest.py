"""Every annotated shape in gsdd_jax is checked at run time while the tests run."""

from jaxtyping import install_import_hook

hook = install_import_hook("gsdd_jax", "beartype.beartype")
hook.__enter__()
