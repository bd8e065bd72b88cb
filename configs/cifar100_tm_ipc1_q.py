"""CIFAR-100, trajectory matching, IPC 1, Gaussians as codes. Published (%) in the same bytes:
43.0 (bfloat16 Gaussians).

    python -m launch.train_experts --config=configs/cifar100_tm_ipc1.py
    python -m launch.distill --config=configs/cifar100_tm_ipc1_q.py \\
        --workdir=runs/cifar100_tm_ipc1_q

112 images per class of about 22 Gaussians, in the bytes of 30 images in bfloat16. Uses the experts
of the bfloat16 row.
"""

from configs import cifar100_tm_ipc1, common


def get_config():
    """Config of the bfloat16 row with codes and more images."""
    return common.quantized(cifar100_tm_ipc1.get_config(), gpc=112)
