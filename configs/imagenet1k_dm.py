"""ImageNet-1K at 64 x 64, distribution matching, IPC 1, 10, 50: no row of the paper.

    python -m launch.distill --config=imagenet1k_dm:ipc=1 --workdir=runs/imagenet1k_dm_ipc1

| variant | images per class | Gaussians each |
| --- | --- | --- |
| ipc=1 | 30 | 91 |
| ipc=10 | 80 | 341 |
| ipc=50 | 400 | 341 |

We know of no certain accuracy of DM at these bytes; imagenet1k_tm.py has that of trajectory
matching. Real images per class and steps are DM's usual ones. Each step makes one update on the
loss of all classes; one update per class would be 1000 of all Gaussians. docs/scale.md estimates
the cost.
"""

from configs import common

ROWS = {1: (30, 300), 10: (80, 100), 50: (400, 30)}  # IPC -> images per class, epochs of evaluation


def get_config(variant: str = ""):
    """Returns the config of a variant, such as "ipc=10"."""
    ipc, _ = common.parse(variant, ROWS, has_codes=False)
    config = common.get_config()
    config.data.name = "imagenet2012"
    config.data.resolution, config.data.resize = 64, "squash"
    config.init.learning_rate = 0.01
    config.budget.ipc = ipc
    # 1000 epochs would be many more steps than for smaller sets.
    config.budget.images_per_class, config.evaluate.epochs = ROWS[ipc]
    config.matching.options.class_by_class = True
    config.distill.num_steps = 20_000
    if ipc > 1:  # a group at a time, and as many more steps
        config.matching.options.classes_per_step = 100
        config.distill.num_steps *= 10
    return config
