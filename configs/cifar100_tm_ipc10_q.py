"""CIFAR-100, trajectory matching, IPC 10, Gaussians as codes. Published (%) in the same bytes:
47.4 (bfloat16 Gaussians).

    python -m launch.train_experts --config=configs/cifar100_tm_ipc10.py
    python -m launch.distill --config=configs/cifar100_tm_ipc10_q.py \\
        --workdir=runs/cifar100_tm_ipc10_q

288 images per class of about 85 Gaussians, in the bytes of 80 images in bfloat16. Uses the experts
of the bfloat16 row.
"""

from configs import cifar100_tm_ipc10, common


def get_config():
    """Config of the bfloat16 row with codes and more images."""
    return common.quantized(cifar100_tm_ipc10.get_config(), gpc=288)
