"""Trains PyTorch ConvNets on a distilled set of CIFAR-10 or CIFAR-100 by SGD and tests them.

    pip install torch safetensors constriction pillow tensorflow-datasets importlib_resources
    python examples/pytorch_convnet.py cifar10-12kB [--width=16] [--steps=1600] [--networks=3]

The network is the field's ConvNetD3: three blocks of a convolution, an instance norm and a pooling.
A labeler, if the set has one, labels every view.
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


def convnet(width, num_classes):
    layers, before = [], 3
    for _ in range(3):
        norm = nn.GroupNorm(width, width)  # a group per channel
        layers += [nn.Conv2d(before, width, 3, padding=1), norm, nn.ReLU(), nn.AvgPool2d(2)]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * width, num_classes))


def labeler_of(distilled):
    """Returns the network that labels views, from its weights in NumPy; None if there is none."""
    stored = distilled.labeler
    if stored is None:
        return None
    network = convnet(stored.width, stored.num_classes)
    weights = {name: torch.tensor(array) for name, array in stored.weights.items()}
    with torch.no_grad():
        for i in range(3):
            conv, norm = network[4 * i], network[4 * i + 1]
            conv.weight.copy_(weights[f"kernel{i}"].permute(3, 2, 0, 1))
            conv.bias.zero_()  # the norm cancels it
            norm.weight.copy_(weights[f"scale{i}"])
            norm.bias.copy_(weights[f"shift{i}"])
        # Channels come last there, first here.
        kernel = weights["kernel"].reshape(4, 4, stored.width, -1).permute(3, 2, 0, 1)
        network[-1].weight.copy_(kernel.flatten(1))
        network[-1].bias.copy_(weights["bias"])
    return lambda views: F.softmax(network(views) / stored.temperature, 1)


def augmented(x):
    """Shifts every batch by up to four pixels, flips half of the images and erases a square."""
    down, right = torch.randint(0, 9, (2,)).tolist()
    x = F.pad(x, (4, 4, 4, 4))[..., down : down + 32, right : right + 32].clone()
    mirrored = torch.rand(len(x)) < 0.5
    x[mirrored] = x[mirrored].flip(3)
    top, left = torch.randint(0, 24, (2,)).tolist()
    x[..., top : top + 8, left : left + 8] = 0
    return x


def mixed(x):
    """Puts a square of another image, of a tenth to a half of the area, into each."""
    found = x.clone()
    for image, other in zip(found, torch.randperm(len(x)), strict=True):
        side = round(32 * float(torch.empty(()).uniform_(0.1, 0.5)) ** 0.5)
        down, right = torch.randint(0, 33 - side, (2,)).tolist()
        place = slice(down, down + side), slice(right, right + side)
        image[:, *place] = x[other][:, *place]
    return found


def trained(images, targets, labeler, args):
    network = convnet(args.width, int(targets.shape[1]))
    rate = args.learning_rate
    sgd = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, args.steps)
    for _ in range(args.steps):
        chosen = torch.randperm(len(images))[: args.batch_size]
        if labeler is None:
            views, wanted = augmented(images[chosen]), targets[chosen]
        else:
            views = augmented(mixed(images[chosen]))
            with torch.no_grad():
                wanted = labeler(views)
        loss = F.cross_entropy(network(views), wanted)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        cosine.step()
    return network.eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("distilled")
    parser.add_argument("--transform")
    for name, default in (("width", 16), ("steps", 1600), ("networks", 3), ("batch_size", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning_rate", type=float, default=0.1)
    args = parser.parse_args()
    distilled = gsdd_jax.load(args.distilled)
    if distilled.format.image_shape != (32, 32, 3):
        size = distilled.format.image_shape
        raise gsdd_jax.UsageError(f"{args.distilled}: expected images of (32, 32, 3), got {size}")
    test = real_images.of(str(distilled.data.get("name")).removesuffix("_mini"))
    transform = distilled.find_transform(args.transform)  # test images go through it, too
    images, targets = distilled.torch(transform=transform).tensors
    if targets.ndim == 1:
        targets = F.one_hot(targets).float()
    examples = [test[i] for i in range(len(test))]
    pixels = np.stack([example["image"] for example in examples]).astype(np.float32) / 255
    inputs = torch.from_numpy(np.ascontiguousarray(transform(pixels).transpose(0, 3, 1, 2)))
    labels = torch.tensor([int(example["label"]) for example in examples])
    labeler, accuracies = labeler_of(distilled), []
    for seed in range(args.networks):
        torch.manual_seed(seed)
        network = trained(images, targets, labeler, args)
        with torch.no_grad():
            found = torch.cat([network(part).argmax(1) for part in inputs.split(1000)])
        accuracies.append(100 * float((found == labels).float().mean()))
    print(f"test accuracy {np.mean(accuracies):.1f} ± {np.std(accuracies, ddof=1):.1f} %")


if __name__ == "__main__":
    try:
        main()
    except gsdd_jax.UsageError as error:
        sys.exit(f"error: {error}")
