"""CIFAR-10, trajectory matching, IPC 10, Gaussians as codes. Published (%) in the same bytes:
75.5 (bfloat16 Gaussians), 79.0 (quantised pixels), 77.5 (TM-RUO).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc10.py
    python -m launch.distill --config=configs/cifar10_tm_ipc10_q.py \\
        --workdir=runs/cifar10_tm_ipc10_q

576 images per class of about 42 Gaussians, with soft labels, in the bytes of 160 images in
bfloat16. Uses the experts of the bfloat16 row.
"""

from configs import cifar10_tm_ipc10, common


def get_config():
    """Config of the bfloat16 row with codes, more images and soft labels."""
    return common.quantized(cifar10_tm_ipc10.get_config(), gpc=576, soft_labels=True)
