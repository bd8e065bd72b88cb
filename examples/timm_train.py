"""Trains a timm network on a distilled set and tests it on CIFAR-10.

pip install timm torch safetensors constriction tensorflow-datasets importlib_resources
python examples/timm_train.py distilled.safetensors [--model=resnet18] [--epochs=100]
"""

import argparse
import sys

import numpy as np
import real_images
import timm
import timm.loss
import timm.optim
import timm.scheduler
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import gsdd_jax


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("distilled")
    parser.add_argument("--transform")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    args = parser.parse_args()
    torch.manual_seed(0)
    distilled = gsdd_jax.load(args.distilled)
    test = real_images.of("cifar10")
    transform = distilled.find_transform(args.transform)  # test images go through it, too
    train = distilled.torch(transform=transform)
    batches = DataLoader(train, args.batch_size, shuffle=True)
    network = timm.create_model(args.model, num_classes=distilled.num_classes)
    adamw = timm.optim.create_optimizer_v2(network, "adamw", args.learning_rate, weight_decay=0.05)
    schedule = timm.scheduler.CosineLRScheduler(adamw, args.epochs, warmup_t=5, warmup_lr_init=1e-5)
    cross_entropy = timm.loss.SoftTargetCrossEntropy()
    for epoch in range(args.epochs):
        for images, targets in batches:
            if targets.ndim == 1:
                targets = F.one_hot(targets, distilled.num_classes).float()
            mirrored = torch.rand(len(images)) < 0.5
            images[mirrored] = images[mirrored].flip(3)
            loss = cross_entropy(network(images), targets)
            adamw.zero_grad()
            loss.backward()
            adamw.step()
        schedule.step(epoch + 1)
    network.eval()
    right = 0
    for start in range(0, len(test), 500):
        examples = [test[i] for i in range(start, min(start + 500, len(test)))]
        pixels = np.stack([example["image"] for example in examples]).astype(np.float32) / 255
        inputs = np.ascontiguousarray(transform(pixels).transpose(0, 3, 1, 2))
        labels = torch.tensor([int(example["label"]) for example in examples])
        with torch.no_grad():
            right += int((network(torch.from_numpy(inputs)).argmax(1) == labels).sum())
    print(f"test accuracy {100 * right / len(test):.1f} %")


if __name__ == "__main__":
    try:
        main()
    except gsdd_jax.UsageError as error:
        sys.exit(f"error: {error}")
