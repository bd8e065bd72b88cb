"""Shrinks `configs/demo.py` to seconds, and the shipped distilled set to three images per class."""

import dataclasses
import pathlib

import gsdd_jax

RESULTS = pathlib.Path(__file__).parent.parent / "benchmarks" / "results"
# With the files that figures and reports read.
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


def save_few_of_shipped(path):
    """Saves a tenth of the shipped set of CIFAR-10."""
    set_ = gsdd_jax.load(RESULTS / "cifar10_tm_ipc1_cpu")
    few = dataclasses.replace(
        set_,
        arrays={name: array[::10] for name, array in set_.arrays.items()},
        labels=set_.labels[::10],
        format=dataclasses.replace(set_.format, images_per_class=3),
    )
    gsdd_jax.save(path, few)
