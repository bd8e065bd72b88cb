"""ImageNet subsets at 128 x 128, trajectory matching, IPC 1, Gaussians as codes.

    python -m launch.train_experts --config=configs/imagenet_tm_ipc1.py --config.data.subset=nette
    python -m launch.distill --config=configs/imagenet_tm_ipc1_q.py --config.data.subset=nette \\
        --workdir=runs/imagenet_tm_ipc1_q_nette

230 images per class of about 170 Gaussians, with soft labels, in the bytes of 64 images in
bfloat16. Uses the experts of the bfloat16 row.
"""

from configs import common, imagenet_tm_ipc1


def get_config():
    """Config of the bfloat16 row with codes, more images and soft labels."""
    return common.quantized(imagenet_tm_ipc1.get_config(), gpc=230, soft_labels=True)
