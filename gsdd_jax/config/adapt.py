"""Makes one config of another: other components, a data set's size, a shrunk copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax.config.fields import COMPONENTS, component_options, default, known
from gsdd_jax.core.fields import LEAST, check_value, defaults, meaning
from gsdd_jax.core.trees import parent


def stored_as(config: ConfigDict, name: str) -> ConfigDict:
    """Changes `config` to another parameterization with its authors' settings, and returns it.

    Settings that the authors give for another objective, or not at all, stay unchanged.
    """
    kind = COMPONENTS["parameterization"].find(name)
    config.parameterization.name = name
    config.update_from_flattened_dict(kind.recipe(config.matching.name))
    return config


def swapped(config: ConfigDict, before: ConfigDict, given: Mapping[str, Any]) -> ConfigDict:
    """Returns `config` with the defaults of the components that flags name in place of a file's.

    Args:
      config: with what flags `given` say, by dotted fields; they prevail.
      before: of the file.
      given: what flags say.
    """
    config = config.copy_and_resolve_references()
    for group, room in COMPONENTS.items():
        name = config[group].name
        if given.get(f"{group}.name", before[group].name) == before[group].name:
            continue
        own = defaults(room.find(name)) if name in room.known() else {}
        if group == "parameterization":
            own = {}  # left to the budget and the images
            _undo(config, before)
        start = f"{group}.options."
        own |= {f.removeprefix(start): v for f, v in given.items() if f.startswith(start)}
        # Of a plain dict: the types of what is given are for the component to judge.
        config[group].options = ConfigDict(own)
        if group == "parameterization" and name in room.known():
            stored_as(config, name)
            config.update_from_flattened_dict(given)
    return config


def _undo(config: ConfigDict, before: ConfigDict) -> None:
    """Takes back what is set for the parameterization of `before`."""
    kind, original = COMPONENTS["parameterization"].find(before.parameterization.name), default()
    if config.matching.name in COMPONENTS["matching"].known():
        original.matching.options = component_options("matching", config.matching.name)
    for name in kind.recipe(before.matching.name):
        node, last = parent(original, name)
        if last in node:
            group, _ = parent(config, name)
            group[last] = node[last]


def is_open(config: ConfigDict) -> bool:
    """Whether `suited` would change any field."""
    return any(_get(config, name) == 0 for name, of in known().items() if meaning(of).automatic)


def suited(
    config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int, largest: int
) -> ConfigDict:
    """Returns the config with the fields that are left to the data set set to suit it.

    - `budget.gpc`: as the parameterization suggests, and at most `largest`, so that in the largest
      class each image starts from its own real image. Smaller classes start several from one.
    - `init.learning_rate`: the published rates, 0.1 up to 32 x 32 and 0.01 above.
    - `evaluate.batch_size`: equal parts of all distilled images, of at most 256.
    - `evaluate.epochs`: about 200 steps, within 30 to 200 epochs.

    Args:
      config: the config, which stays as it is.
      image_shape: height, width and channels.
      num_classes: number of classes.
      largest: training images of the largest class.
    """
    config = config.copy_and_resolve_references()
    if config.budget.gpc == 0:
        kind = COMPONENTS["parameterization"].find(config.parameterization.name)
        suggested = kind.suggested_images(image_shape, config.budget.ipc)
        config.budget.gpc = max(1, min(suggested, largest))
    if config.init.learning_rate == 0:
        config.init.learning_rate = 0.1 if max(image_shape[:2]) <= 32 else 0.01
    num_images = num_classes * config.budget.gpc
    if config.evaluate.batch_size == 0:
        config.evaluate.batch_size = -(-num_images // -(-num_images // 256))
    if config.evaluate.epochs == 0:
        steps_per_epoch = -(-num_images // config.evaluate.batch_size)
        config.evaluate.epochs = max(30, 200 // steps_per_epoch)
    return config


def scaled(config: ConfigDict) -> ConfigDict:
    """Returns a copy of the experiment, shrunk by `config.scale` as its fields declare it.

    Fields that depend on each other stay consistent. Resolution, data set and objective are kept.
    """
    check_value("config.scale", "float", config.scale, (LEAST, 1))
    if config.scale == 1:
        return config
    scale, config = config.scale, config.copy_and_resolve_references()
    objective = COMPONENTS["matching"].find(config.matching.name)
    # Those that a file leaves out have to fit, too.
    options = ConfigDict(defaults(objective) | dict(config.matching.options))
    config.matching.options = options
    gpc = config.budget.gpc
    for name, of in known({group: config[group].name for group in COMPONENTS}).items():
        group, last = parent(config, name)
        if last in group and (shrink := meaning(of).shrink):
            least = max(shrink.least, round(group[last] * scale**shrink.power))
            group[last] = min(group[last], least)
    if options.batch_syn:  # the same share of the images
        options.batch_syn = max(1, int(options.batch_syn / gpc * config.budget.gpc))
    config.matching.options = ConfigDict(objective.shrunk(dict(options), config.experts.epochs))
    return config


def _get(config: ConfigDict, name: str) -> Any:
    group, last = parent(config, name)
    return group[last]
