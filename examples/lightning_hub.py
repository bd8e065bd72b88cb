"""Trains a Lightning module on the pictures of a Hugging Face export and tests it on CIFAR-10.

    pip install . datasets lightning torch
    python -m launch.export --distilled=runs/demo --to=hf --out=card
    python examples/lightning_hub.py card [--steps=1600] [--learning_rate=0.1]

The pictures are clipped to [0, 1] and rounded to 8 bits. The set beside them knows its transform;
`--transform` is a file of it.
"""

import argparse
import pathlib
import sys

import datasets
import lightning
import numpy as np
import real_images
import torch
import torch.nn.functional as F
from pytorch_convnet import augmented, convnet
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import gsdd_jax


class Pictures(lightning.LightningDataModule):
    """Pictures and labels of an export, and the test images of CIFAR-10."""

    def __init__(self, folder, transform, steps, batch_size):
        super().__init__()
        self.folder, self.transform_file = pathlib.Path(folder), transform
        self.steps, self.batch_size = steps, batch_size

    def setup(self, stage):
        distilled = gsdd_jax.load(self.folder / "distilled.safetensors")
        transform = distilled.find_transform(self.transform_file)
        if stage == "test":
            test = [*real_images.of("cifar10")]
            labels = np.array([int(example["label"]) for example in test])
            self.test = self._dataset(transform, [example["image"] for example in test], labels)
            return
        table = datasets.load_dataset(str(self.folder), split="train").with_format("numpy")
        soft = "target" in table.column_names
        targets = table["target"][:] if soft else np.eye(distilled.num_classes)[table["label"][:]]
        self.train = self._dataset(transform, table["image"][:], np.asarray(targets, np.float32))

    def _dataset(self, transform, pictures, targets):
        inputs = transform(np.stack(pictures).astype(np.float32) / 255)
        inputs = torch.from_numpy(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)))
        return TensorDataset(inputs, torch.from_numpy(targets))

    def train_dataloader(self):
        drawn = RandomSampler(self.train, num_samples=self.steps * self.batch_size)
        return DataLoader(self.train, self.batch_size, sampler=drawn)

    def test_dataloader(self):
        return DataLoader(self.test, 1000)


class Network(lightning.LightningModule):
    """The field's ConvNetD3, trained by SGD with a cosine schedule."""

    def __init__(self, width, steps, learning_rate):
        super().__init__()
        self.network, self.steps, self.rate = convnet(width, 10), steps, learning_rate

    def training_step(self, batch, index):
        images, targets = batch
        return F.cross_entropy(self.network(augmented(images)), targets)

    def test_step(self, batch, index):
        images, labels = batch
        right = (self.network(images).argmax(1) == labels).float()
        self.log("test accuracy", 100 * right.mean(), batch_size=len(labels))

    def configure_optimizers(self):
        sgd = torch.optim.SGD(self.parameters(), self.rate, momentum=0.9, weight_decay=5e-4)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, self.steps)
        return {"optimizer": sgd, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--transform")
    for name, default in (("width", 16), ("steps", 1600), ("batch_size", 256), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning_rate", type=float, default=0.1)
    args = parser.parse_args()
    lightning.seed_everything(args.seed)
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    pictures = Pictures(args.folder, args.transform, args.steps, args.batch_size)
    network = Network(args.width, args.steps, args.learning_rate)
    trainer.fit(network, pictures)
    trainer.test(network, pictures)


if __name__ == "__main__":
    try:
        main()
    except gsdd_jax.UsageError as error:
        sys.exit(f"error: {error}")
