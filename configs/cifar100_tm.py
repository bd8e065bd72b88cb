"""CIFAR-100, trajectory matching: published 43.0, 47.4, 53.1 % at IPC 1, 10, 50 (Table 11).

    python -m launch.train_experts --config=cifar100_tm
    python -m launch.distill --config=cifar100_tm:ipc=1 --workdir=runs/cifar100_tm_ipc1

| variant | images per class | Gaussians each | published (%) |
| --- | --- | --- | --- |
| ipc=1 | 30 | 22 | 43.0 ± 0.1 |
| ipc=10 | 80 | 85 | 47.4 ± 0.3 |
| ipc=50 | 400 | 85 | 53.1 ± 0.2 |
| ipc=1,codes | 112 | 22 | |
| ipc=10,codes | 288 | 85 | |
| ipc=50,codes | 500 | 246 | |

Codes take the bytes of the bfloat16 row. At IPC 50 a class has only 500 real images to start from,
so the rest of the bytes buys more Gaussians per image. All variants share experts.
"""

from configs import cifar10_tm, common

# IPC -> images per class as Gaussians and as codes, synthetic images per student step.
ROWS = {1: (30, 112, 512), 10: (80, 288, 512), 50: (400, 500, 640)}


def get_config(variant: str = ""):
    """Returns the config of a variant, such as "ipc=10,codes"."""
    ipc, codes = common.parse(variant, ROWS)
    gpc, as_codes, batch_syn = ROWS[ipc]
    config = cifar10_tm.get_config()
    config.data.name = "cifar100"
    config.init.learning_rate = 0.01
    config.budget.ipc, config.budget.images_per_class = ipc, gpc
    config.matching.options.batch_syn = batch_syn
    return common.quantized(config, as_codes) if codes else config
