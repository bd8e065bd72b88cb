"""Decodes stored numbers by other methods, for comparison with the rasterizer.

SIREN is the decoder of DDiF (coordinates in, colors out, one small network per image), vmapped
over images and jitted. gsplat is timed if it and PyTorch with CUDA can be imported, on the same
Gaussians, by its own tile intersection and rasterization.
"""

import dataclasses
import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from gsdd_jax.ops.sine import sine


@dataclasses.dataclass(frozen=True)
class Siren:
    """Layers sin(omega (W x + b)) and a linear one, from coordinates to colors."""

    layers: int
    width: int
    first_omega: float = 30.0
    omega: float = 10.0

    def init(self, key, batch: int) -> list[tuple[jax.Array, jax.Array]]:
        sizes = [2, *[self.width] * self.layers, 3]
        params = []
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            bound = 1 / inputs if i == 0 else np.sqrt(6 / inputs) / self.omega
            shape = (batch, inputs, outputs)
            weights = jax.random.uniform(jax.random.fold_in(key, i), shape, jnp.float32, -1, 1)
            params.append((weights * bound, jnp.zeros((batch, outputs))))
        return params

    def decode(self, params, size: int) -> jax.Array:
        """Returns images [B, size, size, 3]."""
        line = jnp.linspace(-1, 1, size)
        x = jnp.stack(jnp.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)

        def one(params):
            h = x
            for i, (weights, bias) in enumerate(params[:-1]):
                h = sine((self.omega if i else self.first_omega) * (h @ weights + bias))
            weights, bias = params[-1]
            return (h @ weights + bias).reshape(size, size, 3)

        return jax.vmap(one)(params)

    @property
    def num_bytes(self) -> int:
        """Returns the bytes of one stored image, in float32 as in DDiF."""
        w = self.width
        return 4 * (3 * w + (self.layers - 1) * (w * w + w) + 3 * w + 3)


def siren_for(size: int, num_bytes: int) -> Siren:
    """Returns DDiF's depth and omega for a resolution, with the width closest in bytes."""
    depth = dict(layers=2, omega=10.0) if size <= 32 else dict(layers=3, omega=40.0)
    candidates = [Siren(width=w, **depth) for w in range(1, 400)]
    return min(candidates, key=lambda siren: abs(siren.num_bytes - num_bytes))


def gsplat_unavailable() -> str | None:
    """Returns the reason that gsplat cannot be timed here, or None."""
    for package in ("torch", "gsplat"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    import torch

    return None if torch.cuda.is_available() else "PyTorch finds no CUDA device"


class Gsplat:
    """The same Gaussians in gsplat: projected conics, tile intersections, compositing.

    A call renders `times` times and waits once, so that long enough kernels hide PyTorch's
    dispatch.
    """

    tile, times = 16, 20

    def __init__(self, parameters, size: int, backward: bool):
        import torch

        self.size, self.backward = size, backward
        tensors = [torch.tensor(np.asarray(p), device="cuda") for p in parameters]
        self.leaves = [t.requires_grad_(backward) for t in tensors]
        self.cotangent = torch.randn(len(tensors[0]), size, size, 3, device="cuda")

    def project(self):
        """Returns (centers, conics, colors, opacities) and the tiles' Gaussians."""
        import torch
        from gsplat import isect_offset_encode, isect_tiles

        means, raw, colors, opacities = self.leaves
        size, tiles = self.size, -(-self.size // self.tile)
        l1, l2, l3 = raw[..., 0] + 0.5, raw[..., 1], raw[..., 2] + 0.5
        xx, xy, yy = l1**2 + 1 / 12, l1 * l2, l2**2 + l3**2 + 1 / 12
        conics = torch.stack([yy, -xy, xx], -1) / (xx * yy - xy**2)[..., None]
        centers = (means + 1) * (size / 2)
        with torch.no_grad():
            cut = (2 * torch.log(opacities.clamp(min=1e-6) * 255)).clamp(min=0)
            radii = torch.stack([(cut * xx).sqrt(), (cut * yy).sqrt()], -1).ceil().int()
            depths = torch.zeros_like(opacities)
            _, keys, ids = isect_tiles(centers, radii, depths, self.tile, tiles, tiles)
            offsets = isect_offset_encode(keys, len(means), tiles, tiles)
        return (centers, conics, colors, opacities), (offsets, ids)

    def composite(self, projected, intersections, leaves) -> None:
        """Renders the images, and computes the gradient of `leaves`."""
        import torch
        from gsplat import rasterize_to_pixels

        size = self.size
        image, _ = rasterize_to_pixels(*projected, size, size, self.tile, *intersections)
        if self.backward:
            torch.autograd.grad(image, leaves, self.cotangent)

    def render(self) -> None:
        self.composite(*self.project(), self.leaves)

    def __call__(self) -> None:
        import torch

        for _ in range(self.times):
            self.render()
        torch.cuda.synchronize()

    def peak_bytes(self) -> int:
        """Returns the device's peak bytes in one rendering."""
        import torch

        torch.cuda.reset_peak_memory_stats()
        self.render()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()


class GsplatKernels(Gsplat):
    """Times gsplat's compositing, replayed as a CUDA graph after projection and intersection."""

    def __init__(self, parameters, size: int, backward: bool):
        import torch

        super().__init__(parameters, size, backward)
        projected, self.intersections = self.project()
        self.projected = [p.detach().requires_grad_(backward) for p in projected]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # keeps the setup of first calls out of the graph
            for _ in range(3):
                self.render()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for _ in range(self.times):
                self.render()

    def render(self) -> None:
        self.composite(self.projected, self.intersections, self.projected)

    def __call__(self) -> None:
        import torch

        self.graph.replay()
        torch.cuda.synchronize()
