"""A trajectory matching step and an expert's epoch compared with plain PyTorch.

    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m launch.benchmark pytorch

On a GPU at the flagship's shapes: ConvNetD3 of width 128, 300 images of 32 x 32 per student step,
20 and 60 steps, second-order gradients, TF32 in both. Otherwise widths 16, 64 and 128, 60 images
per student step, and fewer steps and training images for wide networks. Ours renders Gaussians and
recomputes activations in the backward pass; PyTorch's optimizes pixels and keeps the graph.

Every row is measured with normalization and with ZCA. The published PyTorch code whitens real
images once, when they are loaded, and optimizes whitened pixels: its loop stays the same. Ours also
whitens real images once, by the code of a real run; those seconds have their own column. Rendered
images are whitened in every step, inside the differentiated function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

from benchmarks import steps
from benchmarks.measure import left_out, take_turns
from benchmarks.table import Table
from gsdd_jax import data
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import transforms

try:
    import torch

    from benchmarks import pytorch_loop
except ImportError:
    torch = None

ROUNDS = 3
TRANSFORMS = {  # at CIFAR-10's size
    "normalize": steps.normalize,
    "zca": functools.cache(lambda: transforms.fit_zca(data.load("cifar10_mini").train.images)),
}
# PyTorch keeps the graph of all steps: an estimated 65 to 90 GiB for sixty. Twenty come first.
ON_GPU = (
    dict(width=128, images=300, syn_steps=20, examples=50_000),
    dict(width=128, images=300, syn_steps=60, examples=50_000),
)
ON_CPU = (
    dict(width=16, images=60, syn_steps=30, examples=20 * 256),
    dict(width=64, images=60, syn_steps=10, examples=10 * 256),
    dict(width=128, images=60, syn_steps=5, examples=4 * 256),
)


COLUMNS = (
    "what width images steps transform ours_seconds:.3f torch_seconds:.3f ratio:.2f ours_bytes:MiB "
    "torch_bytes:MiB once_seconds:.2f"
)


def main(out: str | None) -> None:
    """Prints seconds and peak memory of both."""
    if torch is None:
        raise UsageError("the benchmark pytorch needs PyTorch")
    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    name = torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads"
    about = dict(device=name, jax=jax.__version__, torch=torch.__version__)
    print(about)
    table = Table(out, COLUMNS, about)
    for sizes in ON_GPU if on_gpu else ON_CPU:
        for row in measure(sizes, "cuda" if on_gpu else "cpu"):
            table.add(row)


def measure(sizes: dict[str, int], device: str) -> Iterator[dict[str, Any]]:
    """Yields rows for a step of trajectory matching and an expert's epoch, by either transform.

    A row that fails is skipped.
    """
    batches = -(-sizes["examples"] // steps.BATCH)
    network = pytorch_loop.ConvNet(sizes["width"], 32, 10)
    for transform, make in TRANSFORMS.items():
        for what, pair, images, number in (
            ("tm step", tm_steps, sizes["images"], sizes["syn_steps"]),
            ("expert epoch", expert_epochs, steps.BATCH, batches),
        ):
            with left_out(f"{what} of {number} steps, {transform}"):
                ours, theirs = pair(sizes, network, device, make())
                theirs()
                ours_s, theirs_s = take_turns(ours.call, theirs, rounds=ROUNDS, seconds=0.0)
                theirs_bytes = torch.cuda.max_memory_allocated() if device == "cuda" else 0
                yield dict(
                    what=what, width=sizes["width"], images=images, steps=number,
                    ours_seconds=ours_s, torch_seconds=theirs_s, ratio=theirs_s / ours_s,
                    ours_bytes=ours.bytes, torch_bytes=theirs_bytes, transform=transform,
                    once_seconds=ours.once,
                )  # fmt: skip
            if device == "cuda":  # frees the memory of a failed row
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


def tm_steps(
    sizes: dict[str, int], network: pytorch_loop.ConvNet, device: str, transform: Any
) -> tuple[steps.Timed, Callable]:
    """Returns a step of this package, and PyTorch's."""
    images, syn_steps = sizes["images"], sizes["syn_steps"]
    return (
        steps.timed_step(images, syn_steps, transform, width=network.width),
        pytorch_loop.TrajectoryMatching(network, images, 32, 10, syn_steps, images, device),
    )


def expert_epochs(
    sizes: dict[str, int], network: pytorch_loop.ConvNet, device: str, transform: Any
) -> tuple[steps.Timed, Callable]:
    """Returns an epoch of this package's expert, and PyTorch's."""
    ours, images, labels = steps.expert_epoch(1, sizes["examples"], transform, width=network.width)
    images = torch.tensor(images.transpose(0, 3, 1, 2).copy(), device=device)
    labels = torch.tensor(labels, device=device).long()
    return ours, pytorch_loop.Expert(network, images, labels, steps.BATCH)
