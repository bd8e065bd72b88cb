"""Transforms from [0, 1] images to networks' inputs and back, in NumPy or JAX; their description.

A file names its transform and holds a normalization's numbers. A whitening matrix is too large (38
MB on CIFAR, a distilled set 0.12 MB): the file holds a digest of the images that define it.
"""

import dataclasses
import hashlib
import json
import logging
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gsdd_jax.core import files, memory
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.fields import LEAST, MOST
from gsdd_jax.core.files import parse_json
from gsdd_jax.formats.arrays import matmul, namespace
from gsdd_jax.formats.clips import folded, unfolded
from gsdd_jax.formats.shapes import Float, UInt8

# Published mean and standard deviation of the channels.
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ZCA_EPSILON = 0.1
MAX_ZCA_SIZE = 12288
"""Numbers of an image, height · width · channels, up to which its covariance is affordable."""

FORMAT = "gsdd_jax.transform.1"
KEPT = "gsdd_jax.zca.1"  # metadata of a cached matrix: the fingerprint of its data
FAR = 10.0  # largest magnitude of images in about [0, 1]; those in 0 to 255 exceed it
# Bytes centered at 128 have products of at most 2¹⁴: float32 holds sums of 2¹⁰ of them exactly, in
# any order.
_CHUNK = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Normalize:
    """Per-channel normalization: (x - mean) / std."""

    # Any: JAX builds pytrees of shapes, partition specs and placeholders.
    mean: Float[Any, "c"] | Any
    std: Float[Any, "c"] | Any

    def __call__(self, images: Any) -> Float[Any, "*n h w c"]:
        """Normalizes float images [..., h, w, c] in [0, 1]; float32.

        Raises UsageError for integers, for NumPy values beyond `FAR`, and for other channels.
        """
        return self.apply(_near(images))

    def apply(self, images: Any) -> Float[Any, "*n h w c"]:
        """Normalizes images of any range, such as those of a distilled set."""
        images = _checked(images, images.shape[-3:-1] + self.mean.shape, self.mean)
        return (images - self.mean) / self.std

    def inverse(self, images: Any) -> Float[Any, "*n h w c"]:
        """Returns the images in [0, 1] of normalized ones."""
        return images * self.std + self.mean


@dataclasses.dataclass(frozen=True, eq=False)
class ZCA:
    """Whitening of flattened images: (x - mean) W, with W symmetric and positive definite."""

    mean: Float[Any, "d"] | Any
    whitening: Float[Any, "d d"] | Any
    image_shape: tuple[int, int, int]  # h w c = d

    def __call__(self, images: Any) -> Float[Any, "*n h w c"]:
        """Whitens float images [..., h, w, c] in [0, 1]; float32.

        Raises UsageError for integers, for NumPy values beyond `FAR`, and for another shape.
        """
        return self.apply(_near(images))

    def apply(self, images: Any) -> Float[Any, "*n h w c"]:
        """Whitens images of any range, such as those of a distilled set."""
        images = _checked(images, self.image_shape, self.mean)
        return matmul(_flat(images) - self.mean, self.whitening).reshape(images.shape)

    def inverse(self, images: Any) -> Float[Any, "*n h w c"]:
        """Returns the images in [0, 1] of whitened ones."""
        flat = _flat(_checked(images, self.image_shape, self.mean))
        xp = namespace(flat)
        solution = xp.linalg.solve(self.whitening, flat.reshape(-1, flat.shape[-1]).T).T
        return (solution.reshape(flat.shape) + self.mean).reshape(images.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class OfClips:
    """Transform of clips, by that of images whose channels hold the frames."""

    of_images: Normalize | ZCA
    frames: int

    def __call__(self, clips: Any) -> Float[Any, "*n t h w c"]:
        """Transforms float clips [..., t, h, w, c] in [0, 1]. Raises UsageError as `of_images`."""
        if clips.ndim < 4 or clips.shape[-4] != self.frames:
            raise UsageError(
                f"clips: expected shape [..., {self.frames}, height, width, channels], got "
                f"{list(clips.shape)}"
            )
        return unfolded(self.of_images(folded(clips)), self.frames)

    def inverse(self, clips: Any) -> Float[Any, "*n t h w c"]:
        """Returns the clips in [0, 1] of transformed ones."""
        return unfolded(self.of_images.inverse(folded(clips)), self.frames)


def _near(images: Any) -> Any:
    """Raises UsageError for NumPy values beyond `FAR`; JAX's are not awaited."""
    if isinstance(images, np.ndarray) and images.dtype.kind == "f" and images.size:
        least, most = images.min(), images.max()
        if not (least >= -FAR and most <= FAR):  # NaN is neither
            raise UsageError(
                f"images: expected floats in about [0, 1], got {least:g} to {most:g}; divide bytes "
                "by 255"
            )
    return images


def _checked(images, shape, like) -> Float[Any, "*n h w c"]:
    """Returns the images as float32, in JAX if they or `like` are."""
    if np.issubdtype(images.dtype, np.integer):
        raise UsageError(
            f"images: expected floats in [0, 1], got {images.dtype}; divide bytes by 255"
        )
    if images.shape[-3:] != shape:
        raise UsageError(
            f"images: expected shape [..., {', '.join(map(str, shape))}], channels last, got "
            f"{list(images.shape)}"
        )
    return namespace(images, like).asarray(images, np.float32)


def _flat(images) -> Float[Any, "*n d"]:
    return images.reshape(*images.shape[:-3], -1)


def fit_zca(images: np.ndarray) -> ZCA:
    """Returns the ZCA whitening of training images; see `whitening`."""
    mean, matrix = whitening(images)
    return ZCA(mean.astype(np.float32), matrix.astype(np.float32), images.shape[1:])


def whitening(images: np.ndarray) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d d"]]:
    """Returns mean and matrix of the ZCA of images, uint8 [n, h, w, c], in float64 (appendix A.1).

    With mean and unbiased covariance U S Uᵀ of the images flattened in [0, 1],
    W = U (S + 0.1)^{-½} Uᵀ. The covariance is summed in whole numbers: the result does not depend
    on threads or on the order of images. Raises UsageError for an h w c above 12288, ValueError for
    fewer than two images, or others than uint8 [n, h, w, c].
    """
    size, num = check_images(images), images.shape[0]
    total, products = np.zeros(size), np.zeros((size, size))
    for start in range(0, num, _CHUNK):
        chunk = images[start : start + _CHUNK].reshape(-1, size).astype(np.float32) - 128
        total += chunk.sum(axis=0, dtype=np.float64)
        products += chunk.T @ chunk
    products -= np.outer(total, total / num)
    products /= (num - 1) * 255**2
    mean = (total / num + 128) / 255
    variances, directions = np.linalg.eigh(products)
    # Rounding may leave the smallest variances below zero.
    scales = 1 / np.sqrt(np.maximum(variances, 0) + ZCA_EPSILON)
    half = directions * np.sqrt(scales)
    return mean, half @ half.T


def check_images(images: np.ndarray) -> int:
    """Returns the numbers per image; raises as `whitening`."""
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[0] < 2:
        raise ValueError(
            f"ZCA: got {images.dtype} images of shape {images.shape}, expected two or more uint8 "
            "images [n, h, w, c]; pass the training images as stored"
        )
    size = math.prod(images.shape[1:])
    if size > MAX_ZCA_SIZE:
        raise UsageError(
            f"ZCA of {'x'.join(map(str, images.shape[1:]))} images: {size} numbers per image, "
            f"expected at most {MAX_ZCA_SIZE}; use per-channel normalization"
        )
    return size


def digest(images: UInt8[np.ndarray, "n h w c"]) -> str:
    """Returns the SHA-256 of the sorted SHA-256s of training images, independent of their order."""
    each = sorted(hashlib.sha256(np.ascontiguousarray(image)).digest() for image in images)
    shape = " ".join(map(str, images.shape))
    return hashlib.sha256(shape.encode() + b"".join(each)).hexdigest()


def describe(
    name: str, mean: tuple[float, ...], std: tuple[float, ...], images: UInt8[np.ndarray, "n h w c"]
) -> dict[str, Any]:
    """Returns the description of the transform `name` ("normalize" or "zca") for the provenance.

    `images` are the training images, `mean` and `std` those of their channels.
    """
    if name == "normalize":
        return {"name": name, "mean": list(mean), "std": list(std)}
    return {"name": name, "epsilon": ZCA_EPSILON, "images_sha256": digest(images)}


def from_description(said: Mapping[str, Any], channels: int) -> Normalize | None:
    """Returns a described normalization, or None if the description does not suffice.

    Raises UsageError for an invalid description.
    """
    if "mean" not in said and "std" not in said:
        return None
    numbers = []
    for name in ("mean", "std"):
        value = said.get(name)
        least = LEAST if name == "std" else -MOST
        right = isinstance(value, list) and len(value) == channels
        if not right or not all(type(x) in (int, float) and least <= x <= MOST for x in value):
            raise UsageError(
                f"provenance.transform.{name}: expected {channels} "
                f"{'positive ' if name == 'std' else ''}numbers, one per channel, got {value!r:.80}"
            )
        numbers.append(np.array(value, np.float32))
    return Normalize(*numbers)


def save(
    path: str | os.PathLike, transform: Normalize | ZCA, description: Mapping[str, Any]
) -> None:
    """Writes a transform and its description as a `.safetensors` file, atomically."""
    import safetensors.numpy

    names = ("mean", "std") if isinstance(transform, Normalize) else ("mean", "whitening")
    tensors = {name: np.asarray(getattr(transform, name), np.float32) for name in names}
    header = {FORMAT: json.dumps(dict(description), sort_keys=True)}
    files.write_atomically(path, safetensors.numpy.save(tensors, header))


def load(
    path: str | os.PathLike, image_shape: tuple[int, int, int]
) -> tuple[Normalize | ZCA, dict[str, Any]]:
    """Reads a transform of `save` for images of that shape, and its description.

    Raises UsageError for anything else.
    """
    import safetensors

    path, size = pathlib.Path(path), math.prod(image_shape)
    files.check_regular(path, "a transform that launch.export --transform wrote")
    with located(path):
        memory.check("its matrix", path.stat().st_size, 2)
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                description = parse_json((file.metadata() or {}).get(FORMAT, "null"))
                tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, TypeError, safetensors.SafetensorError) as e:
            reason = " ".join(str(e).split())
            raise UsageError(f"not a readable transform ({reason})") from None
        if not isinstance(description, dict):
            raise UsageError("not a transform; expected a file of launch.export --transform")
        shapes = {name: a.shape for name, a in tensors.items() if np.isfinite(a).all()}
        if shapes == {"mean": (size,), "whitening": (size, size)}:
            return ZCA(**tensors, image_shape=image_shape), description
        if shapes == {"mean": image_shape[-1:], "std": image_shape[-1:]}:
            return Normalize(**tensors), description
        raise UsageError(
            f"expected mean and whitening, or mean and std, of {'x'.join(map(str, image_shape))} "
            "images, got others"
        )


def kept(
    path: str | os.PathLike | None, fingerprint: str, image_shape: tuple[int, ...]
) -> ZCA | None:
    """Returns the cached ZCA of a fingerprint; None if missing, damaged or different."""
    import safetensors

    if path is None:
        return None
    size = math.prod(image_shape)
    try:
        files.check_regular(path, "a kept transform")
        with safetensors.safe_open(path, framework="numpy") as file:
            shape = file.get_slice("whitening").get_shape()
            if file.metadata() != {KEPT: fingerprint} or shape != [size, size]:
                return None  # before it is read, as it may be large
            mean, matrix = file.get_tensor("mean"), file.get_tensor("whitening")
    except (UsageError, OSError, safetensors.SafetensorError):
        return None
    expected = [(np.float32, (size,)), (np.float32, (size, size))]
    if [(a.dtype, a.shape) for a in (mean, matrix)] != expected:
        return None
    return ZCA(mean, matrix, image_shape)


def kept_at(fingerprint: str, cache_dir: str | os.PathLike | None = None) -> pathlib.Path | None:
    """Returns the path of the cached ZCA of a fingerprint; default as `files.cache_dir`."""
    folder = cache_dir or files.cache_dir()
    return folder and pathlib.Path(folder, f"zca-{fingerprint}.safetensors")


def cached_zca(
    images: UInt8[np.ndarray, "n h w c"],
    fingerprint: str,
    cache_dir: str | os.PathLike | None = None,
) -> ZCA:
    """Returns `fit_zca`, cached in a file by the images' fingerprint, a unique name.

    Damaged files are replaced; without write permission nothing is cached. Raises as `whitening`,
    and ValueError for a fingerprint of other than letters, digits, `.`, `_` and `-`.
    """
    import safetensors.numpy

    check_images(images)
    if not re.fullmatch(r"[\w.-]+", fingerprint, re.ASCII):
        raise ValueError(
            f"cached_zca: fingerprint {fingerprint!r} names a file, expected letters, digits, "
            "'.', '_' and '-'; pass a hexadecimal digest"
        )
    path = kept_at(fingerprint, cache_dir)
    if (zca := kept(path, fingerprint, images.shape[1:])) is not None:
        return zca
    zca = fit_zca(images)
    if path is None:
        return zca
    tensors = {"mean": zca.mean, "whitening": zca.whitening}
    try:
        files.write_atomically(path, safetensors.numpy.save(tensors, {KEPT: fingerprint}))
    except OSError as error:
        logging.getLogger(__name__).warning("ZCA is not cached in %s: %s", path, error)
    return zca
