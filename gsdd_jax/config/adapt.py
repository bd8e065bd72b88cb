"""Adapts configs to other components, to a data set, or to a smaller scale."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax.config.fields import COMPONENTS, component_options, default, known
from gsdd_jax.core.fields import LEAST, check_options, check_value, defaults, meaning
from gsdd_jax.core.trees import dotted, parent
from gsdd_jax.data.soft_labels import Labels
from gsdd_jax.rasterizer.gaussians import budget_bytes

# Images that a suited teacher sees: of 32 x 32 in all, and of a class.
TAUGHT = 150_000, 10_000


def stored_as(config: ConfigDict, name: str) -> ConfigDict:
    """Changes `config` in place to another parameterization and its published settings; returns it.

    Settings not published for the config's objective stay unchanged.
    """
    kind = COMPONENTS["parameterization"].find(name)
    config.parameterization.name = name
    config.update_from_flattened_dict(kind.recipe(config.matching.name))
    return config


def in_codes(config: ConfigDict, **options: Any) -> ConfigDict:
    """Changes `config` to Gaussians as codes, with `options` of these, and returns it."""
    config.parameterization.name = "quantized"
    config.parameterization.options = ConfigDict(options)
    return config


def matched_by(config: ConfigDict, name: str) -> ConfigDict:
    """Changes `config` to another objective at its defaults, and returns it."""
    config.matching.name, config.matching.options = name, component_options("matching", name)
    config.update_from_flattened_dict(COMPONENTS["matching"].find(name).requires)
    return config


def swapped(config: ConfigDict, before: ConfigDict, given: Mapping[str, Any]) -> ConfigDict:
    """Returns `config`, which has the flags `given` by dotted field, with the defaults of the
    components that they name; `before` has no flags. Flags take precedence."""
    config = config.copy_and_resolve_references()
    for group, package in COMPONENTS.items():
        name = config[group].name
        if given.get(f"{group}.name", before[group].name) == before[group].name:
            continue
        own = defaults(package.find(name)) if name in package.known() else {}
        if group == "parameterization":
            own = {}  # set by the budget and the images
            _undo(config, before)
        start = f"{group}.options."
        own |= {f.removeprefix(start): v for f, v in given.items() if f.startswith(start)}
        # A new ConfigDict has no types: the component checks them.
        config[group].options = ConfigDict(own)
        if name not in package.known():
            continue
        if group == "parameterization":
            stored_as(config, name)
            config.update_from_flattened_dict(given)
        if group == "matching":
            config.update_from_flattened_dict({**package.find(name).requires, **given})
    return config


def _undo(config: ConfigDict, before: ConfigDict) -> None:
    """Resets fields that still have the values published for the parameterization of `before`."""
    kind, original = COMPONENTS["parameterization"].find(before.parameterization.name), default()
    if config.matching.name in COMPONENTS["matching"].known():
        original.matching.options = component_options("matching", config.matching.name)
    for name in kind.recipe(before.matching.name):
        node, last = parent(original, name)
        if last in node:
            group, _ = parent(config, name)
            group[last] = node[last]


def bytes_per_class(config: ConfigDict, image_shape: tuple[int, int, int]) -> int:
    """Returns the budget in bytes per class."""
    return config.budget.bytes or budget_bytes(config.budget.ipc, image_shape)


def is_open(config: ConfigDict) -> bool:
    """Returns whether `suited` would change any field."""
    values = dotted(config.to_dict())
    return any(values.get(name) == 0 for name, of in known().items() if meaning(of).automatic)


def suited(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    num_classes: int,
    largest: int,
    frames: int = 1,
    given: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Returns the config with values for the fields that depend on the data set.

    `given` are the fields that the user sets, by dotted name.

    - `parameterization.name`: codes of clips in place of codes of images, unless the user sets it.
    - `budget.images_per_class`: as the parameterization suggests, but at most the training images
      of the `largest` class, so that its images start from different real ones.
    - `matching.options.batch_syn`: at most the images that the objective can draw from, unless
      the user sets both, or no field is 0.
    - `init.learning_rate`: the published rates, 0.1 up to 32 x 32 and 0.01 above.
    - `evaluate.epochs`: about 200 steps, within 30 to 200 epochs.
    - `teacher.epochs`: 5 to 30, as few as show it both numbers of images of `TAUGHT`.
    """
    config, some = config.copy_and_resolve_references(), is_open(config)
    of_images = config.parameterization.name == "quantized"
    if frames > 1 and of_images and "parameterization.name" not in (given or {}):
        config.parameterization.name = "video_quantized"
    automatic = config.budget.images_per_class == 0
    if automatic:
        there, options = bytes_per_class(config, image_shape), dict(config.parameterization.options)
        kind = COMPONENTS["parameterization"].find(config.parameterization.name)
        kind = check_options(kind, options, "config.parameterization.options")
        options |= {"frames": frames} if frames > 1 else {}
        there = max(1, there - -(-kind.shared_bytes(image_shape, options) // num_classes))
        suggested = kind.suggested_images(image_shape, there, options)
        suggested = Labels(**config.labels).suggested_images(
            suggested, there, image_shape, num_classes
        )
        config.budget.images_per_class = max(1, min(suggested, largest))
    batch = config.matching.options.get("batch_syn", 0)
    if automatic or (some and "matching.options.batch_syn" not in (given or {})):
        objective = COMPONENTS["matching"].find(config.matching.name)
        most, _ = objective.largest_batch(num_classes, config.budget.images_per_class)
        if batch > most:
            config.matching.options.batch_syn = most
    if config.init.learning_rate == 0:
        config.init.learning_rate = 0.1 if max(image_shape[:2]) <= 32 else 0.01
    num_images = num_classes * config.budget.images_per_class
    if config.evaluate.epochs == 0:
        steps_per_epoch = -(-num_images // (config.evaluate.batch_size or 256))
        config.evaluate.epochs = max(30, 200 // steps_per_epoch)
    if config.teacher.epochs == 0:
        pixels = num_classes * largest * image_shape[0] * image_shape[1]
        enough = max(5, TAUGHT[0] * 32 * 32 // pixels, TAUGHT[1] // largest)
        config.teacher.epochs = min(30, enough)
    return config


def scaled(config: ConfigDict, given: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns a copy of the experiment, shrunk by `config.scale` as its fields declare.

    Fields that still have the values `given` by dotted name are not shrunk, except to stay
    consistent with others. Resolution, data set and objective are unchanged.
    """
    check_value("config.scale", "float", config.scale, (LEAST, 1))
    if config.scale == 1:
        return config
    scale, config = config.scale, config.copy_and_resolve_references()
    objective = COMPONENTS["matching"].find(config.matching.name)
    # Defaults of omitted options have to be shrunk, too.
    options = ConfigDict(defaults(objective) | dict(config.matching.options))
    config.matching.options = options
    images = config.budget.images_per_class
    for name, of in known({group: config[group].name for group in COMPONENTS}).items():
        group, last = parent(config, name)
        if last not in group or (given and given.get(name) == group[last]):
            continue
        if shrink := meaning(of).shrink:
            least = max(shrink.least, round(group[last] * scale**shrink.power))
            group[last] = min(group[last], least)
    if options.batch_syn:  # the same share of the images
        options.batch_syn = max(1, int(options.batch_syn / images * config.budget.images_per_class))
    config.matching.options = ConfigDict(objective.shrunk(dict(options), config.experts.epochs))
    return config
