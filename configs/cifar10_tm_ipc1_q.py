"""CIFAR-10, trajectory matching, IPC 1, Gaussians as codes. To beat, in percent:
67.6 (bfloat16 Gaussians), 68.9 (quantised pixels), 70.3 (TM-RUO).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc1.py
    python -m launch.distill --config=configs/cifar10_tm_ipc1_q.py --workdir=runs/cifar10_tm_ipc1_q

112 images a class of about 21 Gaussians with soft labels, in the bytes of 30 in bfloat16; the
same experts.
"""

from configs import cifar10_tm_ipc1, common


def get_config():
    """The row in bfloat16 but for how Gaussians are stored, their number and soft labels."""
    return common.quantized(cifar10_tm_ipc1.get_config(), gpc=112, soft_labels=True)
