"""Tiny ImageNet at 64 x 64, distribution matching, IPC 1: no row of the paper.

    python -m launch.distill --config=configs/tiny_imagenet_dm_ipc1.py \\
        --workdir=runs/tiny_imagenet_dm_ipc1

Published accuracy (%) at these bytes: DM 3.9 ± 0.2.

30 images per class of 91 Gaussians, with DM's number of real images per class and of steps. Each
step makes one update on the loss of all classes; one update per class would be 200 of all
Gaussians.

The data set is prepared from its archive (docs/own_data.md) by

    awk 'BEGIN { print "path,label" } { print "images/" $1 "," $2 }' \\
        tiny-imagenet-200/val/val_annotations.txt > tiny-imagenet-200/val/val.csv
    python -m launch.prepare --images=tiny-imagenet-200/train \\
        --test=tiny-imagenet-200/val/val.csv --name=tiny_imagenet
"""

from configs import common


def get_config():
    """Config of the experiment."""
    config = common.get_config()
    config.data.name = "tiny_imagenet"
    config.data.resolution = 64
    config.init.learning_rate = 0.01
    config.budget.ipc, config.budget.gpc = 1, 30  # 91 Gaussians each
    common.matched_by(config, "dm")
    config.matching.options.batch_real = 256
    config.matching.options.class_by_class = True
    config.distill.num_steps = 20_000
    config.distill.eval_every = 2000
    config.evaluate.batch_size = 128
    return config
