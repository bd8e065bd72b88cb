"""A trajectory matching step and an expert's epoch beside the same in plain PyTorch.

    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m launch.benchmark pytorch

At the flagship's shapes on a GPU: ConvNetD3 of width 128, 300 images of 32 x 32 a student step, 20
and 60 steps, second-order gradients; TF32 in both. Without a GPU for both of them: widths 16, 64
and 128, 60 images a student step, and fewer steps and training images where the network is wide.
Ours renders Gaussians and recomputes activations in the backward pass, PyTorch's optimises pixels
and keeps the graph.

Every row once with normalisation and once with ZCA. As in the published PyTorch code, the real
images are whitened once, when they are loaded, and pixels are optimised whitened: PyTorch's loop is
the same, only its input is another. Ours whitens real images once too, by the code of a real run,
whose seconds are a column of their own and not in the epoch's; rendered images are whitened inside
the differentiated function, in every step.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks.left_out import left_out
from gsdd_jax import data, matching, networks, parameterizations
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import write_json
from gsdd_jax.data import augment, transforms
from gsdd_jax.runs import experts
from gsdd_jax.training import distill
from gsdd_jax.training import experts as training

ROUNDS = 3
BATCH = 256  # of an expert
TRANSFORMS = ("normalize", "zca")
# PyTorch keeps the graph of all steps: of sixty 65 to 90 GiB, by estimate. Twenty come first.
ON_GPU = (
    dict(width=128, images=300, syn_steps=20, examples=50_000),
    dict(width=128, images=300, syn_steps=60, examples=50_000),
)
ON_CPU = (
    dict(width=16, images=60, syn_steps=30, examples=20 * 256),
    dict(width=64, images=60, syn_steps=10, examples=10 * 256),
    dict(width=128, images=60, syn_steps=5, examples=4 * 256),
)


def main(out: str | None) -> None:
    """Prints seconds and peak memory of both; writes them to `out` as JSON, anew after each row."""
    try:
        import torch
    except ImportError:
        raise UsageError("the benchmark pytorch needs PyTorch") from None
    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = "cuda" if on_gpu else "cpu"
    name = torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads"
    print(f"{name}, jax {jax.__version__}, torch {torch.__version__}")
    print(
        f"{'what':>14}{'width':>7}{'images':>8}{'steps':>7}{'ours s':>10}{'torch s':>10}"
        f"{'ratio':>8}{'ours MiB':>11}{'torch MiB':>11}{'transform':>11}{'once s':>8}"
    )
    rows = []
    for sizes in ON_GPU if on_gpu else ON_CPU:
        for row in measure(sizes, device):
            rows.append(row)
            print(
                f"{row['what']:>14}{row['width']:7}{row['images']:8}{row['steps']:7}"
                f"{row['ours_seconds']:10.3f}{row['torch_seconds']:10.3f}{row['ratio']:8.2f}"
                f"{row['ours_bytes'] / 2**20:11.0f}{row['torch_bytes'] / 2**20:11.0f}"
                f"{row['transform']:>11}{row['once_seconds']:8.2f}",
                flush=True,
            )
            if out:
                figures = dict(device=name, jax=jax.__version__, torch=torch.__version__, rows=rows)
                write_json(out, figures)


def measure(sizes: dict[str, int], device: str) -> Iterator[dict[str, Any]]:
    """Rows for a step of trajectory matching and for an epoch of an expert, by either transform.

    A row that fails is left out.
    """
    import torch

    width = sizes["width"]
    for transform, what, pair, images, steps in (
        (transform, *row)
        for transform in TRANSFORMS
        for row in (
            ("tm step", tm_steps, sizes["images"], sizes["syn_steps"]),
            ("expert epoch", expert_epochs, BATCH, -(-sizes["examples"] // BATCH)),
        )
    ):
        with left_out(f"{what} of {steps} steps, {transform}"):
            ours, ours_bytes, theirs, once = pair(sizes, device, transform)
            (ours_s, theirs_s), theirs_bytes = turns(ours, theirs, device == "cuda")
            yield dict(
                what=what, width=width, images=images, steps=steps, ours_seconds=ours_s,
                torch_seconds=theirs_s, ratio=theirs_s / ours_s, ours_bytes=ours_bytes,
                torch_bytes=theirs_bytes, transform=transform, once_seconds=once,
            )  # fmt: skip
        if device == "cuda":  # what a row that failed had taken
            torch.cuda.empty_cache()


def turns(ours, theirs, on_gpu: bool):
    """Median seconds of both, in turn, and PyTorch's peak memory; the first call warms up."""
    import torch

    times = ([], [])
    for _ in range(1 + ROUNDS):
        for call, mine in zip((ours, theirs), times, strict=True):
            if on_gpu:
                torch.cuda.synchronize()
            before = time.perf_counter()
            call()
            if on_gpu:
                torch.cuda.synchronize()
            mine.append(time.perf_counter() - before)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    return [float(np.median(mine[1:])) for mine in times], peak


@functools.cache
def transform_of(name: str) -> Any:
    """The transform of CIFAR-10's size that a run would have."""
    if name == "normalize":
        return transforms.Normalize(jnp.full(3, 0.5), jnp.full(3, 0.25))
    return transforms.fit_zca(data.load("cifar10_mini").train.images)


def tm_steps(sizes, device, transform):
    """(our step, its bytes, PyTorch's step, seconds of what is done once)."""
    from benchmarks import pytorch_loop

    images, syn_steps, width = sizes["images"], sizes["syn_steps"], sizes["width"]
    network = networks.build("convnet", image_shape=(32, 32, 3), num_classes=10, width=width)
    parameterization = parameterizations.build("gaussian", (32, 32, 3), ipc=1, gpc=images // 10)
    objective = matching.TrajectoryMatching(network, syn_steps, images)
    problem = distill.Problem(parameterization, objective, 10)
    key = jax.random.key(0)
    params = parameterization.init(key, jnp.zeros((images, 32, 32, 3)))
    start, _ = ravel_pytree(network.init(key))
    feed = matching.Segments(start[None, None], start[None, None] + 0.01)
    pixels, labels = np.zeros((10, 32, 32, 3), np.uint8), np.arange(10, dtype=np.int32)
    real = matching.real_data(pixels, labels, 10, transform_of(transform), drawn=False)
    state = distill.start(problem, params, 1e-3)
    memory = distill.run.lower(problem, state, key, real, feed, 1).compile().memory_analysis()

    def ours():
        nonlocal state
        state, losses = distill.run(problem, state, key, real, feed, 1)
        jax.block_until_ready(losses)

    theirs = pytorch_loop.TrajectoryMatching(
        pytorch_loop.ConvNet(width, 32, 10), images, 32, 10, syn_steps, images, device
    )
    return ours, memory.temp_size_in_bytes + memory.argument_size_in_bytes, theirs, 0.0


def expert_epochs(sizes, device, transform):
    """(our epoch, its bytes, PyTorch's epoch, seconds of what is done once) of one expert."""
    import torch

    from benchmarks import pytorch_loop

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (sizes["examples"], 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, sizes["examples"], np.int32)
    network = networks.build(
        "convnet", image_shape=(32, 32, 3), num_classes=10, width=sizes["width"]
    )
    keys = experts.expert_key(0, 0)[None]
    start = training.initial(network, keys[0])[None]
    transform = transform_of(transform)
    jax.block_until_ready(transforms.to_device(pixels, transform))  # compiles
    before = time.perf_counter()
    images = jax.block_until_ready(transforms.to_device(pixels, transform))
    once, targets = time.perf_counter() - before, jnp.asarray(labels)
    call = lambda: training.train_epoch.lower(
        network, start, keys, jnp.int32(0), images, targets,
        learning_rate=jnp.float32(0.01), batch_size=BATCH, strategy=augment.DSA,
    )  # fmt: skip
    compiled = call().compile()
    memory = compiled.memory_analysis()

    def ours():
        result = compiled(
            start.copy(), keys, jnp.int32(0), images, targets,
            learning_rate=jnp.float32(0.01),
        )  # fmt: skip
        jax.block_until_ready(result)

    theirs = pytorch_loop.Expert(
        pytorch_loop.ConvNet(sizes["width"], 32, 10),
        torch.tensor(np.array(images.stored).transpose(0, 3, 1, 2).copy(), device=device),
        torch.tensor(labels, device=device).long(),
        BATCH,
    )
    return ours, memory.temp_size_in_bytes + memory.argument_size_in_bytes, theirs, once
