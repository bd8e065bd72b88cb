"""CIFAR-10, pixels, feature regression, IPC 1: published 46.8 % (IPC 10: 65.5, IPC 50: 71.7).

    python -m launch.distill --config=cifar10_frepo:ipc=1 --workdir=runs/cifar10_frepo

The published settings of Zhou et al. (2022), as far as they exist here. The differences are in
docs/architecture.md. Learned labels of 8 bits add ten bytes per image to the budget.
"""

from configs import common

STEPS = {1: 1000, 10: 2000, 50: 5000}  # of an evaluation network, by IPC


def get_config(variant: str = ""):
    """Returns the config of the experiment; a variant is "ipc=1", "ipc=10" or "ipc=50"."""
    ipc, _ = common.parse(variant, STEPS, has_codes=False)
    config = common.matched_by(common.get_config(), "frepo")
    common.stored_as(config, "pixels")
    config.data.update(name="cifar10", transform="zca")
    config.budget.update(ipc=ipc, images_per_class=ipc, bytes=ipc * (4 * 3 * 32 * 32 + 10))
    config.labels.update(learned=True, bits=8)
    config.distill.update(num_steps=500_000, eval_every=10_000)
    # Batches are the whole set: as many epochs as steps.
    config.evaluate.update(optimizer="adam", learning_rate=3e-4, epochs=STEPS[ipc], batch_size=500)
    return config
