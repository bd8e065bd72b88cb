"""Shows what a distilled set is: data, classes, bytes, and the command that made it.

    python -m launch.info runs/demo
    python -m launch.info distilled.safetensors --json

The command is that of a shipped experiment with the fields that differ from it. It is left out
where JAX is not installed, which is not needed otherwise.
"""

from collections.abc import Mapping
from typing import Any

from absl import flags

from launch import cli

JSON = flags.DEFINE_bool("json", False, "Print one JSON object.")


def main(path: str) -> None:
    import gsdd_jax
    from gsdd_jax.formats import info

    distilled = gsdd_jax.load(path)
    said = info.info(distilled) | {"commands": _commands(info.origins(distilled.provenance))}
    cli.print_as(said, _text, JSON.value)


def _text(said: Mapping[str, Any]) -> str:
    from gsdd_jax.core import program
    from gsdd_jax.core.errors import printable
    from gsdd_jax.formats import info

    made = (printable(f"made by: {program.command(line)}") for line in said["commands"])
    return "\n".join([info.text(said), *made])


def _commands(origins) -> list[str]:
    """Returns the distillations as arguments of `gsdd`, those with a recorded config."""
    try:
        from launch import origin
    except ImportError:  # without JAX there are no experiments to compare with
        return []
    found = []
    for of in origins:
        config = of.get("config")
        if isinstance(config, dict) and (arguments := origin.command(config)):
            begun = ["--config.init.set=FILE"] if "begun_with" in of else []
            found.append(" ".join(["distill", *arguments, *begun]))
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    cli.run(main, one="distilled set", computes=None)
