"""CIFAR-10, trajectory matching, IPC 50, Gaussians as codes. Published (%) in the same bytes:
77.7 (bfloat16 Gaussians), 83.8 (quantised pixels), 79.7 (TM-RUO).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc50.py
    python -m launch.distill --config=configs/cifar10_tm_ipc50_q.py \\
        --workdir=runs/cifar10_tm_ipc50_q

900 images per class of about 136 Gaussians, with soft labels, in the bytes of 250 images in
bfloat16. Uses the experts of the bfloat16 row.
"""

from configs import cifar10_tm_ipc50, common


def get_config():
    """Config of the bfloat16 row with codes, more images and soft labels."""
    return common.quantized(cifar10_tm_ipc50.get_config(), gpc=900, soft_labels=True)
