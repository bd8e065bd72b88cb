"""Config of your own data: minutes on two cores at 32 x 32, settings that suit the data set."""

import dataclasses
import reprlib

from ml_collections import ConfigDict

from gsdd_jax.config.adapt import in_codes, matched_by, stored_as
from gsdd_jax.config.fields import COMPONENTS, RECOGNIZED, default
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data.soft_labels import LABELER, MIXED, OF_LABELER, Labels

# In place of an objective: what is not distilled, and "dm" with a teacher's labels.
NOT_DISTILLED, TAUGHT = ("none", LABELER), "taught"
FEW_EXPERTS = {"num_experts": 3, "epochs": 8, "batch_size": 64}
# Baselines of short experiments. The last two are the strongest, and take the most time.
BASELINES = "fitted,random_real_uint8,random_real_dct,random_real_dct_soft"


def own(objective: str = "dm") -> ConfigDict:
    """Returns the config for a data set of your own, by an objective: "dm", "tm" or another.

    With one of `NOT_DISTILLED` real images are compressed, and labeled by a teacher or stored with
    a labeler; with others Gaussians are stored as codes. `TAUGHT` is "dm" with a teacher's labels.
    The budget is the bytes of one float32 image per class. `suited` replaces fields that are 0.
    Raises UsageError for an unknown objective.
    """
    known = *COMPONENTS["matching"].known(), *NOT_DISTILLED, TAUGHT
    if objective not in known:
        raise UsageError(
            f"objective: expected one of {', '.join(known)}, got {reprlib.repr(objective)}"
        )
    if objective == TAUGHT:
        return _label_mixtures(own())
    config = in_codes(default())
    config.data.name = ""  # yours
    config.budget.ipc, config.budget.images_per_class = 1, 0
    config.network.options.width = 32 if objective in ("dm", *NOT_DISTILLED) else 16
    config.init.num_steps, config.init.learning_rate = 500, 0.0
    config.distill.steps_per_call = 10
    config.distill.checkpoint_every = 50
    config.evaluate.num_networks = 3
    config.evaluate.epochs, config.evaluate.batch_size = 0, 0
    config.evaluate.rates = "0.03,0.1"
    config.evaluate.baselines, config.teacher.epochs = BASELINES, 0
    if objective in NOT_DISTILLED:
        only_compressed(config)
        return with_labeler(config) if objective == LABELER else config
    if objective in ("tm", "datm"):
        shortened_tm(config, objective)
        config.distill.learning_rate = 3e-4  # larger ones harm codes (docs/own_data.md)
        return config
    config.distill.num_steps = 200
    config.distill.learning_rate = 1.25e-3  # good on CIFAR-10's training images (docs/results.md)
    if objective == "bptt":
        return shortened_bptt(config)
    if objective == "ncfm":
        return shortened_ncfm(config)
    if objective != "dm":
        matched_by(config, objective)
        if config.init.images == "none":  # far from its end (docs/results.md)
            config.distill.learning_rate = 0.03
        return config
    config.matching.options.batch_real = 64  # smaller classes give all their images
    return config


def only_compressed(config: ConfigDict) -> ConfigDict:
    """Changes `config` to compressed real images with a teacher's labels, also of mixtures."""
    stored_as(config, "dct")
    _label_mixtures(config)
    config.distill.num_steps = 0
    config.evaluate.baselines = "random_real_uint8"
    return config


def _label_mixtures(config):
    config.labels.update(source="teacher", **MIXED)
    return config


def with_labeler(config: ConfigDict) -> ConfigDict:
    """Changes `config` to sets with a labeler, and networks to its larger rates."""
    config.labels.update(dataclasses.asdict(Labels(LABELER, **OF_LABELER)))
    config.evaluate.rates = "0.03,0.1,0.2"
    return config


def shortened_bptt(config: ConfigDict) -> ConfigDict:
    """Changes `config` to short trainings of a pool of networks, and returns it."""
    matched_by(config, "bptt")
    config.matching.options.update(
        optimizer="sgd", network_learning_rate=0.03, max_start_step=200, syn_steps=20, batch_syn=64,
        batch_real=64, pool_size=5, augment_real=False,
    )  # fmt: skip
    config.distill.num_steps = 100
    config.distill.learning_rate = 5e-4
    return config


def shortened_ncfm(config: ConfigDict) -> ConfigDict:
    """Changes `config` to characteristic functions under few experts, and returns it."""
    matched_by(config, "ncfm")
    config.matching.options.batch_real = 64
    config.experts.update(FEW_EXPERTS)
    return config


def shortened_tm(config: ConfigDict, objective: str = "tm") -> ConfigDict:
    """Changes `config` to a short trajectory matching with few experts, and returns it."""
    matched_by(config, objective)
    config.matching.options.update(
        syn_steps=20, batch_syn=60, max_start_epoch=6, expert_epochs=2, lr_init=0.05, lr_lr=1e-4
    )
    if objective == "datm":
        config.matching.options.update(grow_start_from=3, grow_start_over=50)
        config.init.images = RECOGNIZED
        config.labels.update(source="teacher", learned=True)
    config.experts.update(FEW_EXPERTS)
    config.distill.num_steps = 100
    config.distill.learning_rate = 3e-3
    return config
