"""Flags for files and folders: expands `~` where the shell does not, and refuses URLs."""

import os

from absl import flags
from ml_collections import ConfigDict

from gsdd_jax.core.errors import located
from gsdd_jax.core.files import check_path

flags.disclaim_key_flags()  # a flag belongs to the module that calls these functions

# Config fields that hold a path.
FIELDS = ("data.dir", "experts.dir", "init.dir", "init.set", "teacher.dir")


class _Path(flags.ArgumentParser):
    syntactic_help = "a path"

    def __init__(self, urls: bool):
        self._urls = urls

    def parse(self, argument: str) -> str:
        if not self._urls:
            check_path(argument)
        return os.path.expanduser(argument)


class _Paths(flags.ListParser):
    def parse(self, argument: str | list[str]) -> list[str]:
        return list(map(os.path.expanduser, super().parse(argument)))


def define(
    name: str, default: str | None, help: str, *, urls: bool = False, **settings: bool
) -> flags.FlagHolder[str]:
    """Defines a flag for a path; with `urls` for one that is only read, and may be a URL."""
    serializer = flags.ArgumentSerializer()
    return flags.DEFINE(_Path(urls), name, default, help, serializer=serializer, **settings)


def define_several(name: str, help: str) -> flags.FlagHolder[list[str]]:
    """Defines a flag for comma-separated paths; none by default."""
    return flags.DEFINE(_Paths(), name, [], help, serializer=flags.CsvListSerializer(","))


def expand(config: ConfigDict) -> None:
    """Expands `~` in the fields of a config that hold a path; raises UsageError for a URL."""
    for field in FIELDS:
        group, name = field.split(".")
        with located(f"config.{field}"):
            check_path(config[group][name])
        config[group][name] = os.path.expanduser(config[group][name])
