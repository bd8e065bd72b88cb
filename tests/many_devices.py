"""Prints, as JSON in the last line, how far several devices' results are from one device's."""

import dataclasses
import json
import pathlib
import sys
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from configs import demo
from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.core import mesh
from gsdd_jax.data import transforms
from gsdd_jax.data.soft_labels import Labels
from gsdd_jax.matching.ncfm import Chosen
from gsdd_jax.matching.tm import Segments
from gsdd_jax.runs import distill as runs
from gsdd_jax.training import distill, evaluate, experts, fit
from tests.tiny import TINY

SHAPE, CLASSES, GPC, STEPS = (8, 8, 3), 3, 3, 3
STRATEGY = "flip"  # few operations: compiling them all takes most of the time
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (100, *SHAPE), np.uint8)
LABELS = np.arange(100, dtype=np.int32) % CLASSES
NETWORK = networks.build("convnet", image_shape=SHAPE, num_classes=CLASSES, width=4, depth=1)
TRANSFORM = transforms.Normalize(jnp.full(3, 0.5), jnp.full(3, 0.3))
KIND = parameterizations.build("gaussian", SHAPE, ipc=1, images_per_class=GPC)
CODED = parameterizations.build(
    "quantized", SHAPE, ipc=1, images_per_class=GPC, num_classes=CLASSES
)
HMN = parameterizations.build("hmn", SHAPE, ipc=1, images_per_class=0, num_classes=CLASSES)
REAL = jnp.asarray(IMAGES[: CLASSES * GPC] / np.float32(255))


def distilled(name, host_inputs=None, kind=KIND, counts=(), **options):
    """Returns the losses of some steps, and parameters, moments and other arrays after them."""
    objective = matching.build(
        name, network=NETWORK, num_classes=CLASSES, images_per_class=GPC, strategy=STRATEGY,
        **options,
    )  # fmt: skip
    problem = distill.Problem(kind, objective, CLASSES, counts=counts)
    data = matching.real_data(IMAGES, LABELS, CLASSES, TRANSFORM)
    state = distill.start(problem, kind.init(jax.random.key(0), REAL), 1e-3)
    state, losses = distill.run(problem, state, jax.random.key(1), data, host_inputs, STEPS)
    return losses, state.params, state.optimizer, state.aux_params


def followed(num_experts, **options):
    """Returns the same for TM, along random segments."""
    shape = STEPS, num_experts, experts.num_parameters(NETWORK)
    random = np.random.default_rng(1)
    start, way = (random.normal(0, s, shape).astype(np.float32) for s in (0.1, 0.01))
    host_inputs = Segments(start, start + way)
    return distilled("tm", host_inputs, syn_steps=2, experts_per_step=num_experts, **options)


def between(**options):
    """Returns the same for NCFM, with a random expert in each step."""
    shape = STEPS, experts.num_parameters(NETWORK)
    first, last = np.random.default_rng(2).normal(0, 0.1, (2, *shape)).astype(np.float32)
    return distilled("ncfm", Chosen(None, first, last), num_frequencies=16, **options)


def evaluated():
    """Returns five trained networks, and their predictions for real images."""
    schedule = evaluate.Schedule(epochs=2, batch_size=16, strategy=STRATEGY)
    params = evaluate.train(
        NETWORK, schedule, jax.random.key(0), jnp.asarray(IMAGES[None, :30] / np.float32(255)),
        LABELS[:30], learning_rate=0.01, num_students=5,
    )  # fmt: skip
    real = transforms.to_device(IMAGES, TRANSFORM)
    return params, evaluate.predictions(NETWORK, params, real)


def trained():
    """Returns three experts after one epoch."""
    keys = jax.random.split(jax.random.key(0), 3)
    start = jnp.stack([experts.initial(NETWORK, key) for key in keys])
    real = transforms.to_device(IMAGES, TRANSFORM)
    return experts.train_epoch(
        NETWORK, start, keys, jnp.int32(0), real, jnp.asarray(LABELS),
        learning_rate=jnp.float32(0.01), batch_size=32, strategy=STRATEGY,
    )  # fmt: skip


def fitted():
    """Returns the result of some fit steps."""
    return fit.run(CODED, fit.start(CODED, jax.random.key(0), REAL, 0.1), REAL, 0.1, STEPS)


# For each computation the number of groups of devices (0: automatic, by classes), and the
# function.
THINGS = {
    "dm, codes, class after class, two groups of classes": (
        2, lambda: distilled("dm", batch_real=13, batch_syn=2, kind=CODED, per_class_updates=True),
    ),
    "dc, one class each, of unequal sizes": (
        4, lambda: distilled("dc", batch_real=13, outer_loops=2, counts=(1, 5, 3)),
    ),
    "dm, unequal classes of two devices each": (
        2, lambda: distilled("dm", batch_real=13, counts=(5, 1, 3)),
    ),
    "dm, memories of images, classes and the data set": (
        2, lambda: distilled(
            "dm", batch_real=13, kind=dataclasses.replace(HMN, images_per_class=GPC)
        ),
    ),
    "tm": (2, lambda: followed(5, batch_syn=5)),
    "ncfm, unequal classes": (2, lambda: between(batch_real=13, counts=(5, 1, 3))),
    "frepo, learned labels": (
        0, lambda: distilled(
            "frepo", batch_real=13, pool_size=2, ridge=0.01, labels=Labels(learned=True)
        ),
    ),
    "bptt, learned labels": (
        0, lambda: distilled(
            "bptt", batch_real=13, pool_size=2, syn_steps=2, min_start_step=1, max_start_step=3,
            optimizer="sgd", last_rate=0.5, labels=Labels(learned=True),
        ),
    ),
    "evaluation": (0, evaluated),
    "experts": (0, trained),
    "fit of codes": (0, fitted),
}  # fmt: skip


def numbers(tree):
    """Returns every array of a pytree."""
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def ended(workdir, devices, calls=None):
    """Returns the state at the end of a run on some devices, or after some calls if interrupted."""
    config = demo.get_config()
    config.update_from_flattened_dict(TINY | {"distill.eval_every": 0, "distill.snapshot_every": 0})
    config.mesh.devices, states, step = devices, [], distill.run

    def run(*arguments):
        if len(states) == calls:
            raise KeyboardInterrupt
        state, losses = step(*arguments)
        states.append(jax.tree.map(np.asarray, state))  # the next call takes its memory
        return state, losses

    finish = mock.patch.object(runs._Run, "finish")  # evaluates
    with mock.patch.object(distill, "run", run), finish:
        try:
            runs.distill_to(config, workdir)
        except KeyboardInterrupt:
            assert calls
    return states[-1]


def continued(num_devices):
    """Compares an uninterrupted run with one finished on a single device."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        expected = ended(folder / "whole", num_devices)
        ended(folder / "begun", num_devices, calls=1)
        state = ended(folder / "begun", 1)
        assert int(state.step) == int(expected.step) == TINY["distill.num_steps"]
        return difference(numbers(expected), numbers(state))


def difference(expected, found):
    """Returns the largest difference, relative to the largest number of its array."""
    return max(
        float(np.abs(one - other).max() / max(np.abs(one).max(), 1e-30))
        for one, other in zip(expected, found, strict=True)
    )


def main(num_devices):
    """Prints the largest difference of each computation."""
    found = {"ended by one": continued(num_devices)}
    for name, (groups, thing) in THINGS.items():
        results = []
        for count in (1, num_devices):
            with mesh.use_devices(count), mesh.group_devices(CLASSES, groups):
                assert mesh.size() == count
                results.append(numbers(thing()))
        found[name] = difference(*results)
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
