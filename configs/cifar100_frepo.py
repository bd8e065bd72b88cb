"""CIFAR-100, pixels, feature regression, IPC 1: published 28.7 % (IPC 10: 42.5, IPC 50: 44.3).

    python -m launch.distill --config=cifar100_frepo:ipc=1 --workdir=runs/cifar100_frepo

As cifar10_frepo. Mirrored images are not published for IPC 10 and 50. Labels of 8 bits add a
hundred bytes per image to the budget.
"""

from configs import cifar10_frepo, common


def get_config(variant: str = ""):
    """Returns the config of the experiment; a variant is "ipc=1", "ipc=10" or "ipc=50"."""
    ipc, _ = common.parse(variant, cifar10_frepo.STEPS, has_codes=False)
    config = cifar10_frepo.get_config(variant)
    config.data.name = "cifar100"
    config.budget.bytes = ipc * (4 * 3 * 32 * 32 + 100)
    config.matching.options.flip = ipc == 1
    batches = -(-100 * ipc // config.evaluate.batch_size)
    config.evaluate.epochs = -(-cifar10_frepo.STEPS[ipc] // batches)
    return config
