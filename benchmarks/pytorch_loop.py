"""Trajectory matching and expert training in plain PyTorch, as a baseline.

Written in the field's usual way: functional convolutions on slices of a flat parameter vector. DSA
is drawn on the host; the whole graph of the unroll is kept for the second backward pass.
"""

import math

import torch
import torch.nn.functional as F

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")


class ConvNet:
    """ConvNetD3 with instance norm; its parameters are one flat vector."""

    def __init__(self, width: int, size: int, classes: int, depth: int = 3):
        self.shapes, channels = [], 3
        for _ in range(depth):
            self.shapes += [(width, channels, 3, 3), (width,), (width,), (width,)]
            channels, size = width, size // 2
        self.shapes += [(classes, width * size * size), (classes,)]
        self.depth, self.width = depth, width

    def init(self, device) -> torch.Tensor:
        """Returns weights uniform within one over the root of the fan-in; norms at 1 and 0."""
        parts = []
        for i, shape in enumerate(self.shapes):
            part = i % 4 if i < 4 * self.depth else i - 4 * self.depth
            if i < 4 * self.depth and part >= 2:
                parts.append(torch.full(shape, float(part == 2)))
                continue
            weight = shape if len(shape) > 1 else self.shapes[i - 1]
            bound = 1 / math.sqrt(math.prod(weight[1:]))
            parts.append(torch.empty(shape).uniform_(-bound, bound))
        return torch.cat([p.flatten() for p in parts]).to(device)

    def __call__(self, flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        sizes = [math.prod(shape) for shape in self.shapes]
        p = [t.view(s) for t, s in zip(flat.split(sizes), self.shapes, strict=True)]
        for i in range(self.depth):
            weight, bias, scale, shift = p[4 * i : 4 * i + 4]
            x = F.conv2d(x, weight, bias, padding=1)
            x = F.relu(F.group_norm(x, self.width, scale, shift, 1e-5))
            x = F.avg_pool2d(x, 2)
        return F.linear(x.flatten(1), p[-2], p[-1])


def augment(x: torch.Tensor) -> torch.Tensor:
    """Applies DSA: one of six operations per batch, with numbers per image."""
    n, _, h, w = x.shape
    r = lambda: torch.rand(n, 1, 1, 1, device=x.device)
    operation = OPERATIONS[int(torch.randint(len(OPERATIONS), ()))]
    if operation == "color":
        x = x + (r() - 0.5)
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * (2 * r()) + mean
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * (r() + 0.5) + mean
    if operation == "flip":
        return torch.where(r() < 0.5, x.flip(3), x)
    rows = torch.arange(h, device=x.device).view(1, h, 1)
    columns = torch.arange(w, device=x.device).view(1, 1, w)
    if operation == "crop":
        pad = int(h * 0.125 + 0.5)
        dy, dx = (torch.randint(-pad, pad + 1, (n, 1, 1), device=x.device) for _ in range(2))
        padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
        image = torch.arange(n, device=x.device).view(n, 1, 1)
        return padded[image, rows + dy + pad, columns + dx + pad].permute(0, 3, 1, 2)
    if operation == "cutout":
        half = int(h * 0.5 + 0.5) // 2
        cy, cx = (torch.randint(0, h, (n, 1, 1), device=x.device) for _ in range(2))
        inside = ((rows - cy).abs() < half) & ((columns - cx).abs() < half)
        return x * ~inside[:, None]
    theta = torch.zeros(n, 2, 3, device=x.device)
    if operation == "scale":
        theta[:, 0, 0] = torch.empty(n, device=x.device).uniform_(1 / 1.2, 1.2)
        theta[:, 1, 1] = torch.empty(n, device=x.device).uniform_(1 / 1.2, 1.2)
    else:
        angle = torch.empty(n, device=x.device).uniform_(-math.pi / 12, math.pi / 12)
        theta[:, 0, 0] = theta[:, 1, 1] = angle.cos()
        theta[:, 0, 1], theta[:, 1, 0] = -angle.sin(), angle.sin()
    grid = F.affine_grid(theta, list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, align_corners=True)


class TrajectoryMatching:
    """One distillation step on pixels: unroll, match, update the images and the learning rate."""

    def __init__(self, network: ConvNet, images: int, size: int, classes: int, syn_steps: int,
                 batch: int, device):  # fmt: skip
        self.network, self.syn_steps, self.batch = network, syn_steps, batch
        self.images = torch.randn(images, 3, size, size, device=device, requires_grad=True)
        self.labels = torch.arange(images, device=device) % classes
        self.learning_rate = torch.tensor(0.01, device=device, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.images], lr=1e-3)
        self.rate_optimizer = torch.optim.SGD([self.learning_rate], lr=1e-5, momentum=0.5)
        self.start = network.init(device)
        self.target = self.start + 0.01

    def __call__(self) -> float:
        student = self.start.clone().requires_grad_(True)
        order = []
        for _ in range(self.syn_steps):
            if not order:
                order = list(torch.randperm(len(self.images)).split(self.batch))
            chosen = order.pop().to(self.images.device)
            batch = augment(self.images[chosen])
            loss = F.cross_entropy(self.network(student, batch), self.labels[chosen])
            (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
            student = student - self.learning_rate * gradient
        distance = (student - self.target).square().sum()
        loss = distance / (self.start - self.target).square().sum()
        self.optimizer.zero_grad()
        self.rate_optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.rate_optimizer.step()
        return loss.item()


class Expert:
    """SGD on images held on the device: bytes, or whitened float32."""

    def __init__(self, network: ConvNet, images: torch.Tensor, labels: torch.Tensor, batch: int):
        self.network, self.images, self.labels, self.batch = network, images, labels, batch
        self.flat = network.init(images.device).requires_grad_(True)

    def __call__(self) -> float:
        optimizer = torch.optim.SGD([self.flat], lr=0.01)
        for chosen in torch.randperm(len(self.images)).split(self.batch):
            chosen = chosen.to(self.images.device)
            batch = self.images[chosen]
            batch = augment(batch if batch.is_floating_point() else batch.float() / 255)
            loss = F.cross_entropy(self.network(self.flat, batch), self.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()
