"""ImageNet-1K at 64 x 64, trajectory matching, IPC 1, 10, 50: no row of the paper.

    python -m launch.train_experts --config=imagenet1k_tm
    python -m launch.distill --config=imagenet1k_tm:ipc=1 --workdir=runs/imagenet1k_tm_ipc1

| variant | images per class | Gaussians each | TESLA, soft labels (%) |
| --- | --- | --- | --- |
| ipc=1 | 30 | 91 | 7.7 ± 0.2 |
| ipc=10 | 80 | 341 | 17.8 ± 1.3 |
| ipc=50 | 400 | 341 | 27.9 ± 1.2 |

The epochs followed, the student's steps and the batch size are DATM's for this data set, the number
of experts is TESLA's. All variants share experts. docs/scale.md estimates the cost.
"""

from configs import common

# IPC -> images per class, epochs of evaluation, fields of the objective.
ROWS = {
    1: (30, 300, dict(batch_syn=1000, syn_steps=20, min_start_epoch=10, lr_lr=1e-4)),
    10: (80, 100, dict(batch_syn=500, syn_steps=30, min_start_epoch=10, lr_lr=1e-5)),
    50: (400, 30, dict(batch_syn=500, syn_steps=30, min_start_epoch=0, lr_lr=1e-5)),
}


def get_config(variant: str = ""):
    """Returns the config of a variant, such as "ipc=10"."""
    ipc, _ = common.parse(variant, ROWS, has_codes=False)
    config = common.matched_by(common.get_config(), "tm")
    config.data.name = "imagenet2012"
    config.data.resolution, config.data.resize = 64, "squash"
    config.init.learning_rate = 0.01
    config.budget.ipc = ipc
    # 1000 epochs would be many more steps than for smaller sets.
    config.budget.images_per_class, config.evaluate.epochs, options = ROWS[ipc]
    config.experts.num_experts = 50
    config.matching.options.max_start_epoch = 20
    config.matching.options.grow_start_from = 14
    config.matching.options.grow_start_over = 3_000
    config.matching.options.update(options)
    config.distill.num_steps = 10_000
    return config
