"""Flags for files and folders: expands `~` where the shell does not."""

import os

from absl import flags
from ml_collections import ConfigDict

flags.disclaim_key_flags()  # a flag belongs to the module that calls these functions

# Config fields that hold a path.
FIELDS = ("data.dir", "experts.dir", "init.dir", "init.set", "teacher.dir")


class _Path(flags.ArgumentParser):
    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        return os.path.expanduser(argument)


class _Paths(flags.ListParser):
    def parse(self, argument: str | list[str]) -> list[str]:
        return list(map(os.path.expanduser, super().parse(argument)))


def define(name: str, default: str | None, help: str, **settings: bool) -> flags.FlagHolder[str]:
    serializer = flags.ArgumentSerializer()
    holder = flags.DEFINE(_Path(), name, default, help, serializer=serializer, **settings)
    if settings.get("required"):
        flags.register_validator(holder, lambda path: path != "", "expected a path")
    return holder


def define_several(name: str, help: str) -> flags.FlagHolder[list[str]]:
    """Defines a flag for comma-separated paths; none by default."""
    return flags.DEFINE(_Paths(), name, [], help, serializer=flags.CsvListSerializer(","))


def expand(config: ConfigDict) -> None:
    """Expands `~` in the fields of a config that hold a path."""
    for field in FIELDS:
        group, name = field.split(".")
        config[group][name] = os.path.expanduser(config[group][name])
