"""Tiny ImageNet at 64 x 64, trajectory matching, IPC 1, 10, 50: no row of the paper.

    python -m launch.train_experts --config=tiny_imagenet_tm
    python -m launch.distill --config=tiny_imagenet_tm:ipc=1 --workdir=runs/tiny_imagenet_tm_ipc1

| variant | images per class | Gaussians each | MTT (%) | DATM, soft labels, whitened (%) |
| --- | --- | --- | --- | --- |
| ipc=1 | 30 | 91 | 8.8 ± 0.3 | 17.1 ± 0.3 |
| ipc=10 | 80 | 341 | 23.2 ± 0.2 | 31.1 ± 0.3 |
| ipc=50 | 400 | 341 | 28.0 ± 0.3 | 39.7 ± 0.3 |

The epochs followed, the student's steps and the batch size are DATM's; experts train for 100
epochs. All variants share experts. tiny_imagenet_dm.py has the commands that prepare the data set.
"""

from configs import common

# IPC -> images per class, fields of the objective.
ROWS = {
    1: (30, dict(batch_syn=1000, syn_steps=40, max_start_epoch=20, grow_start_from=15)),
    10: (
        80,
        dict(
            batch_syn=500,
            syn_steps=40,
            min_start_epoch=10,
            max_start_epoch=50,
            grow_start_from=46,
        ),
    ),
    50: (
        400,
        dict(
            batch_syn=1000,
            syn_steps=20,
            min_start_epoch=40,
            max_start_epoch=60,
            grow_start_from=46,
        ),
    ),
}


def get_config(variant: str = ""):
    """Returns the config of a variant, such as "ipc=10"."""
    ipc, _ = common.parse(variant, ROWS, has_codes=False)
    config = common.matched_by(common.get_config(), "tm")
    config.data.name = "tiny_imagenet"
    config.data.resolution = 64
    config.init.learning_rate = 0.01
    config.budget.ipc = ipc
    config.budget.images_per_class, options = ROWS[ipc]
    config.experts.epochs = 100
    config.matching.options.grow_start_over = 3_000
    config.matching.options.lr_lr = 1e-4
    config.matching.options.update(options)
    config.distill.num_steps = 10_000
    config.distill.eval_every = 1000
    return config
