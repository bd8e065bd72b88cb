"""Evaluation of distilled sets, and of baselines with the same bytes."""

import dataclasses
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from gsdd_jax import data, networks, parameterizations
from gsdd_jax.config import validate
from gsdd_jax.core import memory, mesh
from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import DivergedError, UsageError, located
from gsdd_jax.core.fields import check_value, listed
from gsdd_jax.core.files import read_object
from gsdd_jax.data import corruptions, rows, transforms
from gsdd_jax.data.soft_labels import LABELER
from gsdd_jax.data.transforms import to_unit
from gsdd_jax.formats import file
from gsdd_jax.formats.base import COPIES
from gsdd_jax.formats.clips import check_shape
from gsdd_jax.formats.distilled import DistilledSet, class_names_of
from gsdd_jax.formats.info import origins
from gsdd_jax.formats.parts import PARTS, PRIVACY
from gsdd_jax.rasterizer.limits import MAX_SIDE
from gsdd_jax.runs import trainings
from gsdd_jax.runs.progress import Display
from gsdd_jax.setup import components, experiment
from gsdd_jax.setup.components import load_data, stream
from gsdd_jax.setup.experiment import EvaluationParts, Experiment
from gsdd_jax.setup.provenance import resolve
from gsdd_jax.training import evaluate, labeling

_TRIED = 16  # images that a labeler labels before networks learn from it
ELSEWHERE = "; evaluate a merged set by gsdd_jax.evaluate(set, test_images, test_labels)"


class Accuracies(NamedTuple):
    """Accuracies per network, in percent, and the confusion matrix of the test images."""

    test: Float[np.ndarray, "s"]
    # On real training images, the basis of every choice; None if nothing is to be chosen.
    train: Float[np.ndarray, "s"] | None
    confusion: Int[np.ndarray, "k k"]  # [class, predicted class], counted over all networks
    learning_rate: float  # of the networks


class Trained(NamedTuple):
    """Stacked parameters of networks, and their learning rate."""

    params: Any
    learning_rate: float


@dataclasses.dataclass(frozen=True)
class Parts(EvaluationParts):
    """Parts of an experiment for evaluation: no objective, and so no experts."""

    network: networks.Network
    schedule: evaluate.Schedule


def summary(name: str, accuracies: list[float] | Float[np.ndarray, "s"]) -> dict[str, Any]:
    """Returns mean, sample standard deviation and each network's accuracy, in percent."""
    values = [float(a) for a in accuracies]  # float32 would round a mean to another digit
    return {
        f"{name}_accuracy": float(np.mean(values)),
        f"{name}_std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        f"{name}_accuracies": values,
    }


def shown(accuracies: list[float] | Float[np.ndarray, "s"]) -> str:
    """Returns the mean as text, in percent, with the deviation if there are several."""
    said = summary("", accuracies)
    deviation = f" ± {said['_std']:.1f}" if len(accuracies) > 1 else ""
    return f"{said['_accuracy']:.1f}{deviation} %"


def compared(arms: Iterable[str | None], result: Mapping[str, Any]) -> str:
    """Returns the accuracies of the arms that a result has, as text."""
    found = {arm: result[name] for arm in arms if (name := f"{arm}_accuracies") in result}
    text = "   ".join(f"{arm.replace('_', ' ')} {shown(values)}" for arm, values in found.items())
    return text or "none of a single class; merge the set with others"


def by_class(name: str, counts: Int[np.ndarray, "k k"]) -> dict[str, Any]:
    """Returns the accuracy per class on test images, in percent, and the confusion matrix."""
    shares = 100 * np.diag(counts) / np.maximum(counts.sum(1), 1)
    return {f"{name}_by_class": shares.tolist(), f"{name}_confusion": counts.tolist()}


def distilled(
    config: ConfigDict,
    parts: Experiment | Parts,
    set_: DistilledSet,
    name: str,
    reporter: Display,
    chosen: bool = False,
    schedule: evaluate.Schedule | None = None,
) -> Accuracies:
    """Evaluates fresh networks trained on a distilled set.

    Their learning rate is the set's, or the best of that and `config.evaluate.rates`. `chosen` adds
    the accuracies on training images. `schedule` replaces that of `parts`.
    """
    trained = students(config, parts, set_, name, reporter, schedule=schedule)
    accuracies = tested(parts, *trained)
    if not chosen:
        return accuracies
    train = evaluate.accuracy(parts.network, trained.params, *parts.chosen_on)
    return accuracies._replace(train=mesh.to_host(train))


def students(
    config: ConfigDict,
    parts: Experiment | Parts,
    set_: DistilledSet,
    name: str,
    reporter: Display,
    resample: str = "bilinear",
    schedule: evaluate.Schedule | None = None,
) -> Trained:
    """Trains such networks at the real images' size."""
    images = parameterizations.rendered(set_, *parts.dataset.image_shape[:2], resample)
    images = parts.transform(images)[None]
    steps = parts.schedule.num_steps(set_.num_stored)  # mixtures cost no more
    schedule = schedule or parts.schedule.with_steps(steps, len(set_.labels))
    rate = set_.learning_rate
    if set_.labeler is None:
        labels = jnp.asarray(set_.targets)
    else:
        where = "labeler: images of another size have no labels: "
        check_shape(images.shape[2:], set_.format.image_shape, where=where)
        set_.labeler.logits(np.asarray(images[0, :_TRIED]))  # refuses what is not finite
        labels = labeling.of_set(set_.labeler)
    return _train(config, parts, images, labels, schedule, rate, name, reporter)


def random_real(
    config: ConfigDict,
    parts: Experiment | Parts,
    num_images: int,
    arm: str,
    name: str,
    reporter: Display,
) -> Accuracies:
    """Evaluates networks, each trained on other random real images, for an arm of `REAL`.

    Classes have the shares of `config.budget.split`; one of fewer images gives all. The steps of
    SGD are those of a distilled set of `num_images`: short epochs are no disadvantage.
    """
    counts = experiment.check_real(config, parts.dataset, arm)
    per_class = experiment.real_per_class(config, parts.dataset, arm)
    train = parts.dataset.train
    key = stream(config.seed, f"random real {per_class}")
    chosen = np.stack([
        experiment.choose_by_class(k, train.labels, counts)
        for k in jax.random.split(key, config.evaluate.num_networks)
    ])  # fmt: skip
    images = rows.take(train.images, chosen).astype(np.float32) / 255
    labels = jnp.asarray(train.labels[chosen[0]])  # by class, so the same for all
    schedule = parts.schedule.with_steps(parts.schedule.num_steps(num_images), len(labels))
    rate = config.evaluate.learning_rate
    images = jnp.stack([parts.transform(jnp.asarray(i)) for i in images])
    trained = _train(config, parts, images, labels, schedule, rate, name, reporter)
    return tested(parts, *trained)


def on_training_images(
    config: ConfigDict, parts: Experiment | Parts, name: str, reporter: Display
) -> Accuracies:
    """Evaluates networks trained on all training images of the data set."""
    train = parts.dataset.train
    memory.check("the training images", 4 * train.images.size, COPIES)
    return of_images(config, parts, to_unit(train.images), train.labels, name, reporter)


def of_images(
    config: ConfigDict,
    parts: Experiment | Parts,
    images: Float[Array, "m h w c"],
    targets: Any,
    name: str,
    reporter: Display,
    schedule: evaluate.Schedule | None = None,
) -> Accuracies:
    """Evaluates networks trained on images in [0, 1] with classes, or probabilities of these.

    `schedule` replaces that of `parts`.
    """
    images = parts.transform(images)[None]
    given = images, jnp.asarray(targets), schedule or parts.schedule, config.evaluate.learning_rate
    return tested(parts, *_train(config, parts, *given, name, reporter))


def _train(config, parts, images, labels, schedule, learning_rate, name, reporter) -> Trained:
    """Trains networks, at the best of `learning_rate` and `config.evaluate.rates`."""

    def at(rate, key, count, name):
        with reporter.phase(name, schedule.num_epochs, unit="epoch") as progress, located(name):
            return trainings.train(
                parts.network, schedule, key, images[:count], labels,
                learning_rate=rate, num_students=count, progress=progress.advance,
            )  # fmt: skip

    def held_out(rate):
        try:
            one = at(rate, stream(config.seed, "rates"), 1, f"{name} at rate {rate:g}")
        except DivergedError:
            return 0.0
        return float(mesh.to_host(evaluate.accuracy(parts.network, one, *parts.chosen_on))[0])

    if rates := experiment.rates(config):
        # Rounded, since a set stores its own in float32.
        tried = dict.fromkeys(float(np.float32(rate)) for rate in (learning_rate, *rates))
        learning_rate = max(tried, key=held_out)
    key = stream(config.seed, "evaluate")
    return Trained(at(learning_rate, key, config.evaluate.num_networks, name), learning_rate)


def tested(parts: Experiment | Parts, params: Any, learning_rate: float) -> Accuracies:
    """Tests networks of stacked `params`, which were trained at that rate."""
    test, labels = parts.tested_on
    found = mesh.to_host(evaluate.predictions(parts.network, params, test))
    confusion = np.zeros((parts.dataset.num_classes,) * 2, np.int64)
    np.add.at(confusion, (np.broadcast_to(labels, found.shape), found), 1)
    right = (found == np.asarray(labels)).sum(-1)
    accuracies = (100 * right).astype(np.float32) / np.float32(len(labels))
    return Accuracies(accuracies, None, confusion, learning_rate)


def _corrupted(config, parts, students, kinds) -> dict[str, Any]:
    """Returns accuracies on corrupted test images: per kind the mean at each of five strengths, and
    each network's mean over them."""
    test, result = parts.dataset.test, {}
    labels = jnp.asarray(test.labels)
    for kind in kinds:
        accuracies = []
        for strength in range(1, corruptions.NUM_STRENGTHS + 1):
            key = stream(config.seed, f"{kind} {strength}")
            worse = corruptions.corrupt(key, test.images, kind, strength)
            worse = transforms.to_device(np.asarray(worse), parts.transform)
            found = evaluate.accuracy(parts.network, students, worse, labels)
            accuracies.append(mesh.to_host(found))
        accuracies = np.stack(accuracies)
        result[kind] = [float(a) for a in accuracies.mean(1)]
        result[f"{kind}_accuracies"] = [float(a) for a in accuracies.mean(0)]
    return result


@checked
def evaluate_file(
    path: str | os.PathLike,
    *,
    overrides: Mapping[str, Any] | None = None,
    learning_rate: float | None = None,
    resolution: int | None = None,
    resample: str = "bilinear",
    corrupted: Sequence[str] = (),
    baselines: bool = True,
    display: Display | None = None,
) -> dict[str, Any]:
    """Trains networks on a distilled set from a file, and on real images of the same bytes.

    Compressed real images are those that the set's run left next to its file, if there are any.

    Args:
      path: path of a `distilled.safetensors`.
      overrides: dotted field of the set's config -> value; None leaves it unchanged.
      learning_rate: learning rate of the networks; None: that of the set.
      resolution: side of the networks' inputs, real ones too; None: that of the set.
      resample: "bilinear" or "nearest", for sets stored at one size.
      corrupted: kinds of `data.corruptions` for further tests.
      baselines: whether to evaluate real images, too, if the budget holds one per class.
      display: display of the progress.

    Raises:
      UsageError: the file is no distilled set, its provenance is incomplete or contradicts it, the
        data differ on this machine, or a setting is invalid.
    """
    if resolution is not None:
        check_value("resolution", "int", resolution, (1, MAX_SIDE))
    for kind in listed("corrupted", ",".join(corrupted)):
        if kind not in corruptions.STRENGTHS:
            known = ", ".join(corruptions.STRENGTHS)
            raise UsageError(f"corrupted: expected some of {known}, got {kind!r}")
    set_, config, parts = opened(path, overrides or {}, learning_rate, resolution)
    display = display or Display()
    result = {"network": config.network.name, "resolution": parts.dataset.image_shape[0]}
    # Before networks are trained.
    compressed = _compressed(path, set_, display) if baselines else {}
    baselines = baselines and experiment.real_per_class(config, parts.dataset, "random_real") > 0
    if baselines:
        experiment.check_real(config, parts.dataset, "random_real")
    given = is_rate_given(config, set_, learning_rate)

    def students_of(of, name):
        rate = config.evaluate.learning_rate if given else of.learning_rate
        steps = parts.schedule.num_steps(set_.num_stored)
        schedule = parts.schedule.with_steps(steps, len(of.labels))
        of = dataclasses.replace(of, learning_rate=rate)
        return students(config, parts, of, name, display, resample, schedule)

    with mesh.use_devices(config.mesh.devices):
        trained = students_of(set_, "distilled")
        found = tested(parts, *trained)
        result["learning_rate"] = trained.learning_rate
        result |= summary("distilled", found.test) | by_class("distilled", found.confusion)
        if corrupted:
            result["corrupted"] = _corrupted(config, parts, trained.params, corrupted)
        if baselines:
            count = set_.num_stored
            real = random_real(config, parts, count, "random_real", "random real", display)
            result |= summary("random_real", real.test)
        for arm, real in compressed.items():
            trained = students_of(real, arm.replace("_", " "))
            result |= summary(arm, tested(parts, *trained).test)
    return result


def is_rate_given(config: ConfigDict, set_: DistilledSet, learning_rate: float | None) -> bool:
    """Returns whether networks take the config's learning rate, not the set's: the user gave it, or
    another architecture than the set's has its own."""
    own = set_.provenance["config"]["network.name"] == config.network.name
    across = not own and networks.find(config.network.name).rate_across
    return learning_rate is not None or bool(across)


def _compressed(
    path: str | os.PathLike, set_: DistilledSet, display: Display
) -> dict[str, DistilledSet]:
    """Returns the sets of compressed real images next to the file of a set of the same data and
    budget.

    Shows a line for a file that holds no such set.
    """

    def described(of: DistilledSet):
        config = of.provenance.get("config")
        config = config if isinstance(config, dict) else {}
        budget = [config.get(f"budget.{name}") for name in ("ipc", "bytes")]
        return of.format.image_shape, of.data.get("fingerprint"), budget

    def source(of: DistilledSet) -> str:
        if of.labeler is not None:
            return LABELER
        return "class" if of.soft_labels is None else "teacher"

    place, found = file.path_of(path), {}
    for arm, labels in experiment.COMPRESSED.items():
        at = place.with_name(f"{arm}.safetensors")
        if at == place or at.is_dir() or not os.path.lexists(at):
            continue
        try:
            other = file.load(at)
        except UsageError as error:
            display.line(f"left out: {error}")
            continue
        if other.format.name != "dct" or described(other) != described(set_):
            display.line(f"left out: {at}: expected compressed images of the set's data and budget")
        elif source(other) != labels:
            display.line(f"left out: {at}: expected labels of source {labels}, got {source(other)}")
        else:
            found[arm] = other
    return found


def is_result(path: str | os.PathLike) -> bool:
    """Returns whether a file holds the result of `evaluate_file`, as JSON."""
    try:
        found = read_object(path, "an evaluation's result")
    except UsageError:
        return False
    return {"network", "learning_rate", "distilled_accuracies"} <= found.keys()


def real_parts(config: ConfigDict, dataset: data.Dataset | None = None) -> Parts:
    """Builds the parts of evaluations of real images; raises UsageError for invalid settings."""
    validate.ranges(config, "seed", "data", "evaluate")
    return parts_of(config, dataset or load_data(config))


def opened(
    path: str | os.PathLike,
    overrides: Mapping[str, Any],
    learning_rate: float | None = None,
    resolution: int | None = None,
) -> tuple[DistilledSet, ConfigDict, Parts]:
    """Loads a set, with the config and parts of its evaluation; like `evaluate_file`."""
    set_ = file.load(path)
    with located(path):
        config = resolve(set_.provenance, overrides, learning_rate)
        return set_, config, _build(config, set_, resolution)


def _build(config: ConfigDict, set_: DistilledSet, other_resolution: int | None) -> Parts:
    """Builds the parts. Raises UsageError if data and set do not match."""
    fingerprint = set_.data.get("fingerprint")
    # Private sets have no hash of their images.
    is_private = all(PRIVACY in of for of in origins(set_.provenance))

    def loaded():
        whole = load_data(config)
        return data.with_public_constants(whole) if is_private else whole

    if not isinstance(fingerprint, str) and not is_private:
        raise UsageError(
            "provenance.data.fingerprint: expected that of the data the set was made from, got "
            f"{reprlib.repr(fingerprint)}{ELSEWHERE if PARTS in set_.provenance else ''}"
        )
    kind, resolution = set_.format, config.data.resolution
    if resolution and kind.image_shape[:2] != (resolution, resolution):
        raise UsageError(
            f"provenance.config['data.resolution']: expected height and width of the set, "
            f"{kind.image_shape[:2]}, got {resolution}"
        )
    whole = loaded()
    if not is_private and whole.fingerprint != fingerprint:
        raise UsageError(
            f"distilled from another version of {whole.name} "
            f"(fingerprint {fingerprint[:12]!r}, found {whole.fingerprint[:12]!r})"
        )
    transform, dataset = None, _of_set(whole, set_)
    found = (*kind.image_shape, set_.num_classes)
    expected = (*dataset.image_shape, dataset.num_classes)
    if found != expected:
        raise UsageError(
            f"parameterization: expected height, width, channels and number of classes {expected}, "
            f"as for {dataset.name}, got {found}"
        )
    if other_resolution:
        config.data.resolution = other_resolution
        whole = loaded()
        dataset = _of_set(whole, set_)
    if dataset is not whole:  # the transform is that of all images
        transform = components.build_transform(config.data.transform, whole)
    return parts_of(config, dataset, transform)


def _of_set(dataset: data.Dataset, set_: DistilledSet) -> data.Dataset:
    """Returns the classes that a set still has after a cut, found by the names in the whole set:
    the data may be prepared under others."""
    names = set_.class_names
    if PARTS not in set_.provenance or not names:
        return dataset
    whole = class_names_of(origins(set_.provenance)[0].get("data"), dataset.num_classes)
    if whole is None or len(set(whole)) < len(whole):
        whole = dataset.class_names
    for name in names:
        if name not in whole:
            raise UsageError(
                f"provenance.data.class_names: expected classes of {dataset.name}, by its names or "
                f"by those of the first of provenance.parts, got {reprlib.repr(name)}"
            )
    return dataset if names == whole else data.only(dataset, list(map(whole.index, names)))


def parts_of(config: ConfigDict, dataset: data.Dataset, transform: Any = None) -> Parts:
    """Builds the parts of evaluations on a data set; `transform` replaces the config's."""
    components.check_classes(dataset)
    network = components.build_network(config.network, dataset)  # first: whitening takes long
    components.check_networks("evaluate.num_networks", config.evaluate.num_networks, network)
    if transform is None:
        transform = components.build_transform(config.data.transform, dataset)
    return Parts(dataset, transform, network, experiment.build_schedule(config))
