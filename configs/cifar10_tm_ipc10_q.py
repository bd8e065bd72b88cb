"""CIFAR-10, trajectory matching, IPC 10, Gaussians as codes. To beat, in percent:
75.5 (bfloat16 Gaussians), 79.0 (quantised pixels), 77.5 (TM-RUO).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc10.py
    python -m launch.distill --config=configs/cifar10_tm_ipc10_q.py \\
        --workdir=runs/cifar10_tm_ipc10_q

576 images a class of about 42 Gaussians with soft labels, in the bytes of 160 in bfloat16; the
same experts.
"""

from configs import cifar10_tm_ipc10, common


def get_config():
    """The row in bfloat16 but for how Gaussians are stored, their number and soft labels."""
    return common.quantized(cifar10_tm_ipc10.get_config(), gpc=576, soft_labels=True)
