"""Shrinks `configs/demo.py` to seconds, with the files that figures and reports read."""

TINY = {
    "data.resolution": 8,
    "budget.images_per_class": 7,
    "network.options.width": 4,
    "network.options.depth": 1,
    "init.num_steps": 20,
    "matching.options.batch_real": 4,
    "matching.strategy": "",
    "distill.num_steps": 6,
    "distill.learning_rate": 0.02,
    "distill.steps_per_call": 2,
    "distill.checkpoint_every": 2,
    "distill.eval_every": 3,
    "distill.snapshot_every": 3,
    "evaluate.baselines": "fitted,random_real,random_real_uint8",
    "evaluate.num_networks": 2,
    "evaluate.epochs": 1,
}
