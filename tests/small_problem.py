"""A distillation of six pixel images in three classes, for tests of single objectives."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from configs import common, demo
from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.data import transforms
from gsdd_jax.data.soft_labels import HARD
from gsdd_jax.training import distill
from tests.tiny import TINY

SIZE, CLASSES, IPC = 8, 3, 2
SHAPE = (SIZE, SIZE, 3)
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
TRANSFORM = transforms.Normalize(jnp.float32(MEAN), jnp.float32(STD))
NETWORK = networks.build(
    "convnet", image_shape=SHAPE, num_classes=CLASSES, width=4, depth=1, precision="float32"
)
_RANDOM = np.random.default_rng(0)
COUNTS = (7, 5, 9)
REAL = _RANDOM.integers(0, 256, (sum(COUNTS), *SHAPE), np.uint8)
REAL_LABELS = np.repeat(np.arange(CLASSES), COUNTS)
START = _RANDOM.normal(size=(CLASSES * IPC, *SHAPE)).astype(np.float32)


@dataclasses.dataclass
class Experts:
    """Three experts, whose parameters say which expert and epoch they are of."""

    epochs: int

    def __len__(self):
        return 3

    def parameters(self, expert, epoch):
        return np.array([expert, epoch], np.float32)


def problem(objective, labels=HARD, strategy="", **options):
    """Returns the problem of an objective by name."""
    objective = matching.build(
        objective, network=NETWORK, num_classes=CLASSES, images_per_class=IPC, strategy=strategy,
        labels=labels, **options,
    )  # fmt: skip
    kind = parameterizations.build("pixels", SHAPE, ipc=IPC, images_per_class=IPC)
    return distill.Problem(kind, objective, CLASSES)


def real():
    """Returns the real images."""
    return matching.real_data(REAL, REAL_LABELS.astype(np.int32), CLASSES, TRANSFORM)


def started(of, rate=0.1):
    """Returns the state of a problem at its start."""
    return distill.start(of, {"pixels": jnp.array(START)}, rate)


def with_learned_labels(objective, **options):
    """Returns the tiny config of an image per class, with its ten labels of four bits."""
    config = demo.get_config()
    common.matched_by(common.stored_as(config, "pixels"), objective)
    changes = {"distill.eval_every": 0, "distill.snapshot_every": 0, "evaluate.baselines": ""}
    config.update_from_flattened_dict(TINY | changes)
    config.matching.options.update(options)
    config.labels.update(learned=True)
    config.budget.images_per_class = 1
    config.budget.bytes = 4 * 3 * 8 * 8 + 5
    return config
