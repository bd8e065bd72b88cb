"""CIFAR-10, trajectory matching, IPC 1, Gaussians as codes. Published (%) in the same bytes:
67.6 (bfloat16 Gaussians), 68.9 (quantised pixels), 70.3 (TM-RUO).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc1.py
    python -m launch.distill --config=configs/cifar10_tm_ipc1_q.py --workdir=runs/cifar10_tm_ipc1_q

112 images per class of about 21 Gaussians, with soft labels, in the bytes of 30 images in
bfloat16. Uses the experts of the bfloat16 row.
"""

from configs import cifar10_tm_ipc1, common


def get_config():
    """Config of the bfloat16 row with codes, more images and soft labels."""
    return common.quantized(cifar10_tm_ipc1.get_config(), gpc=112, soft_labels=True)
