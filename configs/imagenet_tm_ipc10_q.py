"""ImageNet subsets at 128 x 128, trajectory matching, IPC 10, Gaussians as codes.

    python -m launch.train_experts --config=configs/imagenet_tm_ipc10.py --config.data.subset=nette
    python -m launch.distill --config=configs/imagenet_tm_ipc10_q.py --config.data.subset=nette \\
        --workdir=runs/imagenet_tm_ipc10_q_nette

720 images per class of about 545 Gaussians with soft labels, in the bytes of 640 in bfloat16; the
same experts. A class may have
only 732 real images to start from, so the rest of the bytes buys more Gaussians per image.
"""

from configs import common, imagenet_tm_ipc10


def get_config():
    """Config of the bfloat16 row with codes, more images and soft labels."""
    return common.quantized(imagenet_tm_ipc10.get_config(), gpc=720, soft_labels=True)
