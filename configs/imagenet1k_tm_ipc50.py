"""ImageNet-1K at 64 x 64, trajectory matching, IPC 50: no row of the paper.

    python -m launch.train_experts --config=configs/imagenet1k_tm_ipc50.py
    python -m launch.distill --config=configs/imagenet1k_tm_ipc50.py \\
        --workdir=runs/imagenet1k_tm_ipc50

Published accuracy (%) at these bytes: TESLA 27.9 ± 1.2 (with soft labels).

400 images per class of 341 Gaussians. All TM configs of this data set share experts.
"""

from configs import imagenet1k_tm_ipc1


def get_config():
    """Config of IPC 1 with the fields that differ."""
    config = imagenet1k_tm_ipc1.get_config()
    config.budget.ipc, config.budget.gpc = 50, 400  # 341 Gaussians each
    options = config.matching.options
    options.batch_syn = 500
    options.syn_steps = 30
    options.min_start_epoch = 0
    options.lr_lr = 1e-5
    config.evaluate.epochs = 30
    return config
