"""Scores a distilled set by DD-Ranking: how far behind all real images it is, how far ahead of
random ones of the same bytes, and the label-robust score, from 0 to 1, that is made of both.

    pip install ddranking==0.2.0 torch tensorflow-datasets array_record safetensors
    python examples/dd_ranking.py distilled.safetensors [--data=cifar10] [--transform=PATH]

DD-Ranking takes NumPy below 2 only: an environment of its own, without JAX. It leaves the folders
`random_data` and `results` where it is started. Its other score, of augmentations, does not run on
hard labels in 0.2.0.
"""

import argparse
import sys

import numpy as np
import real_images
import torch
from ddranking.metrics import hard_label

import gsdd_jax

DSA = {"scale": 1.2, "rotate": 15.0, "flip": 0.5, "crop": 0.125, "cutout": 0.5, "brightness": 1.0,
       "saturation": 2.0, "contrast": 0.5, "siamese": False, "latestseed": -1}  # fmt: skip


def real(data, split, transform, count):
    """Real images as network inputs, and their labels."""
    source = real_images.of(data, split)
    examples = [source[i] for i in range(min(count or len(source), len(source)))]
    images = transform(np.stack([e["image"] for e in examples]).astype(np.float32) / 255)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
    return [(image, int(e["label"])) for image, e in zip(tensors, examples, strict=True)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("distilled")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--transform")
    parser.add_argument("--ipc", type=int, default=1)  # real images per class of the set's bytes
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--real_images", type=int)
    args = parser.parse_args()
    distilled = gsdd_jax.load(args.distilled)
    transform = distilled.find_transform(args.transform)
    images, _ = distilled.torch(transform=transform).tensors
    labels = torch.tensor(distilled.labels, dtype=torch.int64)
    train, test = (real(args.data, s, transform, args.real_images) for s in ("train", "test"))

    num_classes, size = int(labels.max()) + 1, tuple(images.shape[2:])
    classes = {label: label for label in range(num_classes)}
    # DD-Ranking would download the data, and normalize them in a way of its own.
    hard_label.get_dataset = lambda *_: (
        images.shape[1], size, None, None, num_classes, train, test, test, classes, classes
    )  # fmt: skip
    hard_label.save_results = lambda *_: None  # 0.2.0 fails there, by columns of different lengths
    score = hard_label.LabelRobustScoreHard(
        dataset="CIFAR10", ipc=args.ipc, model_name="ConvNet-3", im_size=size, num_workers=0,
        data_aug_func="dsa", aug_params=DSA, num_epochs=args.epochs, step_size=args.epochs // 2,
        num_eval=args.networks, eval_full_data=True,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )  # fmt: skip
    found = score.compute_metrics(images, hard_labels=labels, syn_lr=distilled.learning_rate)
    behind, ahead = found["hard_label_recovery_mean"], found["improvement_over_random_mean"]
    alpha = (ahead - behind) / 2 / 100  # the score's own arithmetic takes percent for fractions
    robust = (np.exp(alpha) - np.exp(-1)) / (np.exp(1) - np.exp(-1))
    print(f"behind all real images {behind:.1f} points, ahead of random ones {ahead:.1f}")
    print(f"label-robust score {robust:.2f}")


if __name__ == "__main__":
    try:
        main()
    except gsdd_jax.UsageError as error:
        sys.exit(f"error: {error}")
