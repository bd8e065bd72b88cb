"""Trains a PyTorch ResNet18 on a distilled set and tests it on the data set's test images.

    pip install torch safetensors constriction pillow tensorflow-datasets importlib_resources
    python examples/pytorch_resnet18.py distilled.safetensors [--transform=PATH] [--epochs=300]

The data set is CIFAR-10, or any other of TFDS or of your own by `--data=NAME`.

Needs no JAX, where the transform is given as a file (`python -m launch.export --distilled=...
--transform=PATH`).
"""

import argparse
import sys

import numpy as np
import real_images
import torch
import torch.nn.functional as F
from torch import nn

import gsdd_jax


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, before, width, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        same = stride == 1 and before == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, width, 1, stride)

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x))


def resnet18(num_classes):
    """ResNet18 for 32 x 32: the first convolution neither strides nor pools."""
    sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    sizes += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes)]
    return nn.Sequential(*stem, *(Block(*size) for size in sizes), *pool)


def augmented(x):
    """Shifts every batch by up to four pixels, and flips half of them."""
    shift = [int(s) for s in torch.randint(-4, 5, (2,))]
    x = F.pad(x, (4, 4, 4, 4))[..., 4 + shift[0] : 36 + shift[0], 4 + shift[1] : 36 + shift[1]]
    return x.flip(3) if torch.rand(()) < 0.5 else x


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("distilled")
    parser.add_argument("--transform")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--test_images", type=int)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    distilled = gsdd_jax.load(args.distilled)
    test = real_images.of(args.data)
    transform = distilled.find_transform(args.transform)  # test images go through it, too
    train = distilled.torch(transform=transform)

    num_classes = int(distilled.labels.max()) + 1
    network = resnet18(num_classes).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    for _ in range(args.epochs):
        for images, targets in torch.utils.data.DataLoader(train, batch_size=64, shuffle=True):
            loss = F.cross_entropy(network(augmented(images.to(device))), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        cosine.step()

    network.eval()
    right, count = 0, min(args.test_images or len(test), len(test))
    for start in range(0, count, 500):
        examples = [test[i] for i in range(start, min(start + 500, count))]
        images = transform(np.stack([e["image"] for e in examples]).astype(np.float32) / 255)
        with torch.no_grad():
            logits = network(torch.from_numpy(images).permute(0, 3, 1, 2).to(device))
        right += int((logits.argmax(1).cpu() == torch.tensor([e["label"] for e in examples])).sum())
    print(f"test accuracy {100 * right / count:.1f} %")


if __name__ == "__main__":
    try:
        main()
    except gsdd_jax.UsageError as error:
        sys.exit(f"error: {error}")
