"""A trajectory matching step and an expert's epoch beside the same in plain PyTorch.

    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m launch.benchmark pytorch

At the flagship's shapes on a GPU: ConvNetD3 of width 128, 300 images of 32 x 32 a student step, 60
steps, second-order gradients; TF32 in both. Ours renders Gaussians and recomputes activations in
the backward pass, PyTorch's optimises pixels and keeps the graph. Without a GPU the shapes are tiny
and only show that it runs.
"""

from __future__ import annotations

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.data import augment, transforms
from gsdd_jax.errors import UsageError
from gsdd_jax.files import write_atomically
from gsdd_jax.runs import experts
from gsdd_jax.training import distill
from gsdd_jax.training import experts as training

ROUNDS = 3


def main(out: str | None) -> None:
    """Prints seconds and peak memory of both; writes them to `out` as JSON."""
    try:
        import torch
    except ImportError:
        raise UsageError("the benchmark pytorch needs PyTorch") from None
    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    if not on_gpu:
        print("no GPU for both: tiny shapes, the figures mean nothing")
    sizes = dict(width=128, images=300, syn_steps=60, examples=50_000) if on_gpu else dict(
        width=8, images=20, syn_steps=3, examples=512
    )  # fmt: skip
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = "cuda" if on_gpu else "cpu"
    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    print(f"{name}, jax {jax.__version__}, torch {torch.__version__}; {sizes}")
    print(f"{'what':>16}{'ours s':>10}{'torch s':>10}{'ratio':>8}{'ours MiB':>11}{'torch MiB':>11}")
    rows = []
    for what, pair in (("tm step", tm_steps), ("expert epoch", expert_epochs)):
        ours, ours_bytes, theirs = pair(sizes, device)
        (ours_s, theirs_s), theirs_bytes = turns(ours, theirs, on_gpu)
        rows.append(
            dict(what=what, ours_seconds=ours_s, torch_seconds=theirs_s, ratio=theirs_s / ours_s,
                 ours_bytes=ours_bytes, torch_bytes=theirs_bytes, **sizes)
        )  # fmt: skip
        print(
            f"{what:>16}{ours_s:10.3f}{theirs_s:10.3f}{theirs_s / ours_s:8.2f}"
            f"{ours_bytes / 2**20:11.0f}{theirs_bytes / 2**20:11.0f}",
            flush=True,
        )
    if out:
        result = {"device": name, "jax": jax.__version__, "torch": torch.__version__, "rows": rows}
        write_atomically(out, json.dumps(result, indent=2).encode())


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


def tm_steps(sizes, device):
    """(our step, its bytes, PyTorch's step)."""
    from benchmarks import pytorch_loop

    images, syn_steps, width = sizes["images"], sizes["syn_steps"], sizes["width"]
    network = networks.build("convnet", image_shape=(32, 32, 3), num_classes=10, width=width)
    parameterization = parameterizations.build("gaussian", (32, 32, 3), ipc=1, gpc=images // 10)
    objective = matching.TrajectoryMatching(network, syn_steps, images)
    problem = distill.Problem(parameterization, objective, 10, 1e-3)
    key = jax.random.key(0)
    params = parameterization.init(key, jnp.zeros((images, 32, 32, 3)))
    start, _ = ravel_pytree(network.init(key))
    feed = matching.Segments(start[None, None], start[None, None] + 0.01)
    transform = transforms.Normalize(jnp.full(3, 0.5), jnp.full(3, 0.25))
    pixels, labels = np.zeros((10, 32, 32, 3), np.uint8), np.arange(10, dtype=np.int32)
    data = matching.real_data(pixels, labels, 10, transform)
    state = distill.start(problem, params)
    memory = distill.run.lower(problem, state, key, data, feed, 1).compile().memory_analysis()

    def ours():
        nonlocal state
        state, losses = distill.run(problem, state, key, data, feed, 1)
        jax.block_until_ready(losses)

    theirs = pytorch_loop.TrajectoryMatching(
        pytorch_loop.ConvNet(width, 32, 10), images, 32, 10, syn_steps, images, device
    )
    return ours, memory.temp_size_in_bytes + memory.argument_size_in_bytes, theirs


def expert_epochs(sizes, device):
    """(our epoch, its bytes, PyTorch's epoch): batch 256, one expert."""
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
    transform = transforms.Normalize(jnp.full(3, 0.5), jnp.full(3, 0.25))
    images, targets = jnp.asarray(pixels), jnp.asarray(labels)
    call = lambda: training.train_epoch.lower(
        network, start, keys, jnp.int32(0), images, targets, transform,
        learning_rate=jnp.float32(0.01), batch_size=256, strategy=augment.DSA,
    )  # fmt: skip
    compiled = call().compile()
    memory = compiled.memory_analysis()

    def ours():
        result = compiled(
            start.copy(), keys, jnp.int32(0), images, targets, transform,
            learning_rate=jnp.float32(0.01),
        )  # fmt: skip
        jax.block_until_ready(result)

    theirs = pytorch_loop.Expert(
        pytorch_loop.ConvNet(sizes["width"], 32, 10),
        torch.tensor(pixels.transpose(0, 3, 1, 2).copy(), device=device),
        torch.tensor(labels, device=device).long(),
        256,
    )
    return ours, memory.temp_size_in_bytes + memory.argument_size_in_bytes, theirs
