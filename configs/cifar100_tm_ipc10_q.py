"""CIFAR-100, trajectory matching, IPC 10, Gaussians as codes. To beat, in percent:
47.4 (bfloat16 Gaussians).

    python -m launch.train_experts --config=configs/cifar100_tm_ipc10.py
    python -m launch.distill --config=configs/cifar100_tm_ipc10_q.py \\
        --workdir=runs/cifar100_tm_ipc10_q

288 images a class of about 85 Gaussians, in the bytes of 80 in bfloat16; the same experts.
"""

from configs import cifar100_tm_ipc10, common


def get_config():
    """The row in bfloat16 but for how Gaussians are stored, and for their number."""
    return common.quantized(cifar100_tm_ipc10.get_config(), gpc=288)
