"""CIFAR-100, trajectory matching, IPC 50, Gaussians as codes. Published (%) in the same bytes:
53.1 (bfloat16 Gaussians).

    python -m launch.train_experts --config=configs/cifar100_tm_ipc50.py
    python -m launch.distill --config=configs/cifar100_tm_ipc50_q.py \\
        --workdir=runs/cifar100_tm_ipc50_q

500 images per class of about 246 Gaussians, in the bytes of 400 images in bfloat16. A class has
only 500 real images to start from, so the rest of the bytes buys more Gaussians per image. Uses the
experts of the bfloat16 row.
"""

from configs import cifar100_tm_ipc50, common


def get_config():
    """Config of the bfloat16 row with codes and more images."""
    return common.quantized(cifar100_tm_ipc50.get_config(), gpc=500)
