"""ImageNet subsets at 128 x 128, trajectory matching, IPC 10.

    python -m launch.train_experts --config=configs/imagenet_tm_ipc10.py --config.data.subset=nette
    python -m launch.distill --config=configs/imagenet_tm_ipc10.py --config.data.subset=nette \\
        --workdir=runs/imagenet_tm_ipc10_nette

The paper gives settings and a figure for this row, no table of accuracies.
"""

from configs import imagenet_tm_ipc1


def get_config():
    """Config of IPC 1 with the fields that differ."""
    config = imagenet_tm_ipc1.get_config()
    config.budget.ipc, config.budget.gpc = 10, 640  # 170 Gaussians each
    config.matching.options.batch_syn = 160
    config.matching.options.lr_lr = 1e-5
    return config
