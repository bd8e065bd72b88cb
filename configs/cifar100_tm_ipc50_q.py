"""CIFAR-100, trajectory matching, IPC 50, Gaussians as codes. To beat, in percent:
53.1 (bfloat16 Gaussians).

    python -m launch.train_experts --config=configs/cifar100_tm_ipc50.py
    python -m launch.distill --config=configs/cifar100_tm_ipc50_q.py \\
        --workdir=runs/cifar100_tm_ipc50_q

500 images a class of about 246 Gaussians, in the bytes of 400 in bfloat16; the same experts.
A class has no more than 500 images: what is left goes into more Gaussians for each.
"""

from configs import cifar100_tm_ipc50, common


def get_config():
    """The row in bfloat16 but for how Gaussians are stored, and for their number."""
    return common.quantized(cifar100_tm_ipc50.get_config(), gpc=500)
