"""Makes clips of Fashion-MNIST pictures in motion: 16 frames of 64 x 64, classes by what moves how.

    pip install .
    python examples/moving_fashion.py fashion_mnist moving_fashion
    python -m launch.prepare --clips=moving_fashion --name=moving_fashion

The first folder holds the four IDX files of Fashion-MNIST, also packed by gzip. The second one then
has folders of frames, by part and class, such as train/bag zooms/000, for `launch.prepare`. A file
moving_fashion.npz has clips [n, t, h, w, 1] and class names as labels, for `gsdd_jax.distill`:

    file = np.load("moving_fashion.npz")
    test = file["test_images"], file["test_labels"]
    gsdd_jax.distill(file["images"], file["labels"], test=test,
                     parameterization={"name": "video_gaussian"}, network={"name": "minic3d"})

The same arguments give the same clips. Test clips are of the test pictures.
"""

import argparse
import gzip
import math
import pathlib
import zlib

import numpy as np

from gsdd_jax.exports import png

NAMES = (
    *("top", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
MOTIONS = ("right", "down", "turns", "zooms")
FRAMES, SIDE, PICTURE = 16, 64, 28
FILES = {"train": "train", "test": "t10k"}


def idx(folder: pathlib.Path, name: str, magic: int, header: int) -> np.ndarray:
    """Returns the bytes of an IDX file after its header; SystemExit for any other file."""
    for path, opened in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
        if path.is_file():
            try:
                with opened(path, "rb") as file:
                    content = file.read()
            except (OSError, EOFError, zlib.error) as error:
                raise SystemExit(f"error: {path}: {error}") from None
            sizes = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
            if int.from_bytes(content[:4], "big") != magic or len(content) != header + math.prod(
                sizes
            ):
                raise SystemExit(f"error: {path}: expected a whole IDX file of type {magic}")
            return np.frombuffer(content, np.uint8, offset=header)
    raise SystemExit(f"error: {folder / name}: expected this file, or {name}.gz")


def pictures(folder: pathlib.Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pictures [n, 28, 28] of a part, and their classes."""
    images = idx(folder, f"{FILES[part]}-images-idx3-ubyte", 2051, 16)
    labels = idx(folder, f"{FILES[part]}-labels-idx1-ubyte", 2049, 8)
    return images.reshape(-1, PICTURE, PICTURE), labels


def positions(rng: np.random.Generator, motion: str) -> np.ndarray:
    """Returns the rows and columns of the picture that pixels of each frame show [t, 2, h, w].

    Place and speed are random, and so is the sign of a turn or a zoom.
    """
    step = np.linspace(-1, 1, FRAMES)[:, None, None]
    grid = np.mgrid[:SIDE, :SIDE][None] + 0.5 - SIDE / 2  # from the middle
    center = np.zeros((FRAMES, 2, 1, 1)) + rng.uniform(-8, 8, (2, 1, 1))
    angle, size = np.zeros_like(step), 1.2 * np.ones_like(step)
    speed, sign = rng.uniform(0.7, 1.3), rng.choice([-1, 1])
    if motion in ("right", "down"):
        center[:, int(motion == "right")] += 14 * speed * step
    elif motion == "turns":
        angle = sign * speed * np.pi / 2 * step
    else:
        size = 1.2 * np.exp(0.5 * sign * speed * step)
    row, column = np.moveaxis(grid - center, 1, 0)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    turned = np.stack([cos * row - sin * column, sin * row + cos * column], 1)
    return turned + PICTURE / 2 - 0.5


def moving(picture: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns a picture at positions, bilinearly and zero outside, as bytes [t, h, w, 1]."""
    padded = np.pad(picture.astype(float), 1)
    at = np.clip(at + 1, 0, PICTURE + 0.999)
    (row, column), (below, right) = np.moveaxis(at.astype(int), 1, 0), np.moveaxis(at % 1, 1, 0)
    shown = sum(
        (below if i else 1 - below) * (right if j else 1 - right) * padded[row + i, column + j]
        for i in (0, 1)
        for j in (0, 1)
    )
    return np.rint(shown).astype(np.uint8)[..., None]


def clips(
    folder: pathlib.Path, part: str, per_class: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `per_class` clips of each picture class and motion, each of another picture."""
    images, labels = pictures(folder, part)
    rng = np.random.default_rng([seed, part == "test"])
    made, names = [], []
    for label, name in enumerate(NAMES):
        there = np.flatnonzero(labels == label)
        if len(there) < per_class * len(MOTIONS):
            raise SystemExit(f"error: expected {per_class * len(MOTIONS)} pictures of {name!r}")
        chosen = rng.permutation(there)[: per_class * len(MOTIONS)].reshape(len(MOTIONS), -1)
        for motion, indices in zip(MOTIONS, chosen, strict=True):
            made += [moving(images[i], positions(rng, motion)) for i in indices]
            names += per_class * [f"{name} {motion}"]
    return np.stack(made), np.array(names)


def write_clips(folder: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes clips as folders of PNG frames, by class."""
    for i, (clip, name) in enumerate(zip(images, labels, strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        png.write_frames(folder / name / f"{i:05}", clip)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, help="folder of the IDX files")
    parser.add_argument("out", type=pathlib.Path, help="new folder, or .npz file, for the clips")
    parser.add_argument("--train", type=int, default=100, help="training clips per class")
    parser.add_argument("--test", type=int, default=25, help="test clips per class")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.out.exists():
        raise SystemExit(f"error: {args.out}: expected a new folder, or a new .npz file")
    images, labels = clips(args.folder, "train", args.train, args.seed)
    test_images, test_labels = clips(args.folder, "test", args.test, args.seed)
    if args.out.suffix == ".npz":
        tests = dict(test_images=test_images, test_labels=test_labels)
        np.savez_compressed(args.out, images=images, labels=labels, **tests)
    else:
        write_clips(args.out / "train", images, labels)
        write_clips(args.out / "test", test_images, test_labels)
    print(f"{args.out}: {len(images):,} training and {len(test_images):,} test clips")


if __name__ == "__main__":
    main()
