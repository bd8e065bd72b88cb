"""Training and storage of a config's experts, whose parameters TM matches."""

import contextlib
import functools
import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from gsdd_jax.config import validate
from gsdd_jax.core import mesh, processes
from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.data import Dataset, augment, transforms
from gsdd_jax.runs.progress import Display
from gsdd_jax.setup import components, experts, input_pipeline, streaming
from gsdd_jax.storage import trajectories
from gsdd_jax.storage.trajectories import ExpertStore, Trajectory
from gsdd_jax.training import evaluate
from gsdd_jax.training import experts as training


def train_all(config: ConfigDict, reporter: Display, dataset: Dataset | None = None) -> ExpertStore:
    """Trains the missing experts of `config` in its directory, then opens all.

    An expert's random numbers depend only on `config.experts.seed` and its index. A CPU trains
    one at a time: no bit depends on `config.experts.at_once` or on existing experts. A GPU trains
    `at_once` together, and XLA orders groups of other sizes differently: results differ by
    rounding. An interrupted call resumes after the last whole epoch, with the same result.
    `dataset` replaces that of `config.data`.

    Raises:
      UsageError: a setting is invalid; the directory cannot be written, is in use, or holds
        damaged experts or ones made with other settings; a loss is not finite.
    """
    settings = config.experts
    validate.ranges(config, "experts", "data")
    validate.options(config)
    augment.parse_strategy(config.matching.strategy)
    dataset = dataset or components.load_data(config)
    components.check_same(dataset)
    components.check_classes(dataset)
    network = components.build_network(config.network, dataset)  # first: whitening takes long
    # A CPU is no faster with several at once, and one at a time keeps every bit.
    on_each = 1 if jax.default_backend() == "cpu" else settings.at_once
    components.check_networks("experts.at_once", on_each, network)
    transform = components.build_transform(config.data.transform, dataset)
    made_of, where = experts.identity(config, dataset, network), experts.directory(config)
    number = counted(settings.num_experts, "expert")
    what = f"{number} of {counted(settings.epochs, 'epoch')} in {where}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(mesh.use_devices(config.mesh.devices))
        reporter.line(components.described(config, dataset, what))
        stack.enter_context(processes.held(lambda: trajectories.exclusive(where)))
        at_once = on_each * mesh.size()
        files: dict[int, Trajectory] = {}  # only in the first process, which writes them

        def unfinished() -> bytes:
            groups = _unfinished(where, made_of, settings.num_experts, at_once)
            files.update({one.expert: one for group in groups for one in group})
            done = lambda group: max(0, min(one.rows for one in group) - 1)  # epochs
            found = [([one.expert for one in group], done(group)) for group in groups]
            return json.dumps(found).encode()

        groups = json.loads(processes.from_first(unfinished))
        if groups:
            _train_groups(groups, files, config, dataset, transform, network, reporter)
        processes.from_first(bytes)  # all exist before any process opens them
    return experts.open_store(config, dataset, network)


def expert_key(seed: int, expert: int) -> Key[Array, ""]:
    """Returns the key of one expert's randomness."""
    return jax.random.fold_in(components.stream(seed, "experts"), expert)


def _unfinished(where, made_of, num_experts, at_once) -> list[list[Trajectory]]:
    """Returns groups of experts to train together, the same after an interruption."""
    groups = []
    for first in range(0, num_experts, at_once):
        chosen = range(first, min(first + at_once, num_experts))
        group = [Trajectory(where, made_of, expert) for expert in chosen]
        groups.append([trajectory for trajectory in group if not trajectory.accuracy])
    return [group for group in groups if group]


def _train_groups(groups, files, config, dataset, transform, network, reporter) -> None:
    settings = config.experts
    streamed = input_pipeline.is_streamed(config, dataset.train.images, transform)
    train, test = (
        (transforms.to_device(split.images, transform), jnp.asarray(split.labels)) if held else None
        for split, held in ((dataset.train, not streamed), (dataset.test, True))
    )
    sgd = dict(learning_rate=jnp.float32(settings.learning_rate), strategy=config.matching.strategy)
    total = settings.num_experts * settings.epochs
    left = sum(len(group) * (settings.epochs - done) for group, done in groups)
    unravel = network.unraveling()

    def train_epoch(params, keys, epoch):
        size = settings.batch_size
        if streamed:
            return streaming.train_epoch(
                network, params, keys, epoch, dataset.train, transform, batch_size=size, **sgd
            )
        return training.train_epoch(network, params, keys, epoch, *train, batch_size=size, **sgd)

    def accuracy(row, held, split):
        if not len(split.labels):
            return math.nan
        # One expert at a time, so that it does not depend on the group.
        one = jax.tree.map(lambda a: a[None], unravel(jnp.asarray(row)))
        if held is None:
            return float(mesh.to_host(streaming.accuracy(network, one, split, transform))[0])
        return float(mesh.to_host(evaluate.accuracy(network, one, *held))[0])

    with reporter.phase("experts", total, total - left, unit="epoch") as progress:
        for group, done in groups:
            keys = [expert_key(settings.seed, expert) for expert in group]
            starts = np.stack([mesh.to_host(training.initial(network, key)) for key in keys])
            written = [files[expert] for expert in group if expert in files]
            begin = functools.partial(_continue, written, done, starts)
            params = np.frombuffer(processes.from_first(begin), np.float32).reshape(starts.shape)
            keys = jnp.stack(keys)
            for epoch in range(done, settings.epochs):
                start = time.monotonic()
                trained, losses = train_epoch(jnp.asarray(params), keys, jnp.int32(epoch))
                params, losses = mesh.to_host(trained), mesh.to_host(losses)
                _check_finite(group, params, losses, epoch)
                for trajectory, row in zip(written, params, strict=False):
                    trajectory.append(row)
                rate = len(group) * len(dataset.train.labels) / (time.monotonic() - start)
                progress.advance(len(group), loss=float(losses.mean()), **{"images/s": rate})
            found = [
                (accuracy(row, train, dataset.train), accuracy(row, test, dataset.test))
                for row in params
            ]
            for trajectory, accuracies in zip(written, found, strict=False):
                trajectory.finish(*accuracies)


def _continue(group, epochs_done, starts) -> bytes:
    """Returns the group's parameters [e, p] after `epochs_done`; `starts` for a new group."""
    for trajectory, start in zip(group, starts, strict=True):
        trajectory.truncate(epochs_done + 1)
        if not trajectory.rows:
            trajectory.append(start)
    return np.stack([trajectory.parameters(epochs_done) for trajectory in group]).tobytes()


def _check_finite(group, params, losses, epoch) -> None:
    for expert, row, loss in zip(group, params, losses, strict=True):
        if not (loss < evaluate.DIVERGED and np.isfinite(row).all()):
            raise UsageError(
                f"expert {expert} diverged in epoch {epoch + 1} (loss {loss:.3g}); lower "
                "config.experts.learning_rate and give another config.experts.dir"
            )
