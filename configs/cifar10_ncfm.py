"""CIFAR-10, characteristic function matching (NCFM), IPC 10, stored as Gaussians or codes.

    python -m launch.train_experts --config=cifar10_ncfm
    python -m launch.distill --config=cifar10_ncfm --workdir=runs/cifar10_ncfm

The published settings of Wang et al. (2025) at IPC 10, as far as they exist here; the differences
are in docs/architecture.md. Variants: "" and "codes". The paper of this package has no such row.
"""

from configs import common, load


def get_config(variant: str = ""):
    """Returns the config of the experiment; a variant is "" or "codes"."""
    common.parse(variant, (10,))
    base = load("cifar10_tm:ipc=10" + ",codes" * ("codes" in variant))
    config = common.matched_by(base, "ncfm")
    config.data.transform = "normalize"
    config.labels.learned = False
    config.matching.options.update(batch_real=1024, num_frequencies=4096, per_class_updates=True)
    config.experts.update(num_experts=20, epochs=60)
    config.distill.num_steps = 20_000
    return config
