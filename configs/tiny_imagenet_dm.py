"""Tiny ImageNet at 64 x 64, distribution matching, IPC 1, 10, 50: no row of the paper.

    python -m launch.distill --config=tiny_imagenet_dm:ipc=1 --workdir=runs/tiny_imagenet_dm_ipc1

| variant | images per class | Gaussians each | published at these bytes (%) |
| --- | --- | --- | --- |
| ipc=1 | 30 | 91 | DM 3.9 ± 0.2 |
| ipc=10 | 80 | 341 | DM 12.9 ± 0.4 |
| ipc=50 | 400 | 341 | DM 24.1 ± 0.3 |

Real images per class and steps are DM's. Each step makes one update on the loss of all classes; one
update per class would be 200 of all Gaussians. The data set is prepared from its archive
(docs/own_data.md) by

    awk 'BEGIN { print "path,label" } { print "images/" $1 "," $2 }' \\
        tiny-imagenet-200/val/val_annotations.txt > tiny-imagenet-200/val/val.csv
    python -m launch.prepare --images=tiny-imagenet-200/train \\
        --test=tiny-imagenet-200/val/val.csv --name=tiny_imagenet
"""

from configs import common

IMAGES_PER_CLASS = {1: 30, 10: 80, 50: 400}  # by IPC


def get_config(variant: str = ""):
    """Returns the config of a variant, such as "ipc=10"."""
    ipc, _ = common.parse(variant, IMAGES_PER_CLASS, has_codes=False)
    config = common.get_config()
    config.data.name = "tiny_imagenet"
    config.data.resolution = 64
    config.init.learning_rate = 0.01
    config.budget.ipc, config.budget.images_per_class = ipc, IMAGES_PER_CLASS[ipc]
    config.matching.options.class_by_class = True
    config.distill.num_steps = 20_000
    config.distill.eval_every = 2000
    config.evaluate.batch_size = 128
    return config
