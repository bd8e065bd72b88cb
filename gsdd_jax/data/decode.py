"""Decoding of a prepared set's images or clips into arrays of one size, chunk by chunk."""

import concurrent.futures
import functools
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image
from tqdm import tqdm

from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.data.frames import images_of, spread
from gsdd_jax.data.quiet import quietly
from gsdd_jax.exports.png import MODES
from gsdd_jax.formats.base import MAX_FRAMES

RESIZES = ("crop", "squash")
CHUNK = 1024  # images held in memory at a time
CLIPS = 16  # likewise, whose encoded frames may take megabytes each


class Chunk(NamedTuple):
    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, "n"]


def decode_split(
    builder,
    split: str,
    image_key: str,
    label_key: str,
    classes: Sequence[int],
    size: tuple[int, str] | None,
    frames: int | None = None,
) -> Iterator[Chunk]:
    """Yields the images of `classes` in file order; labels are positions in `classes`.

    `size` is as in `decode_image`, `frames` as in `decode_clip`. Raises UsageError if the sizes of
    images or the lengths of clips vary, no example is of `classes`, or an example has no label
    although all classes are asked for.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    of_clips = images_of(features[image_key]) is not None
    channels = features[image_key].shape[-1]
    decoded = functools.partial(decode_image, channels=channels, size=size)
    if of_clips:
        decoded = functools.partial(decode_clip, channels=channels, size=size, frames=frames)
    new_labels = {old: new for new, old in enumerate(classes)}
    every_class = len(classes) == features[label_key].num_classes
    # Further image features, such as segmentation masks, are left encoded too.
    encoded = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image) or images_of(feature)
    ]
    source = builder.as_data_source(
        split,
        decoders={key: _undecoded() for key in encoded},
        file_format="array_record",
    )

    shape = None
    progress = tqdm(total=len(source), desc=f"decoding {builder.info.name} {split}", disable=None)
    with concurrent.futures.ThreadPoolExecutor() as pool, progress:
        at_once = CLIPS if of_clips else CHUNK
        for start in range(0, len(source), at_once):
            indices = range(start, min(start + at_once, len(source)))
            examples = source.__getitems__(indices)
            if every_class and any(int(e[label_key]) not in new_labels for e in examples):
                raise UsageError(
                    f"data set {builder.info.name!r} has examples without a label in its split"
                    f" {split!r}; expected a class label for each"
                )
            examples = [e for e in examples if int(e[label_key]) in new_labels]
            with quietly(), located(f"data set {builder.info.name!r}"):
                images = list(pool.map(lambda e: decoded(e[image_key]), examples))
            for image in images:
                shape = shape or image.shape
                _check_equal(shape, image.shape, channels, builder.info.name)
            if images:
                labels = [new_labels[int(e[label_key])] for e in examples]
                yield Chunk(np.stack(images), np.array(labels, np.int32))
            progress.update(len(indices))
    if shape is None:
        raise UsageError(
            f"data set {builder.info.name!r} has no examples of the classes asked for in its split"
            f" {split!r}"
        )


def in_memory(chunks: Iterable[Chunk]) -> Chunk:
    """Concatenates one or more chunks into a read-only one."""
    pixels, labels = bytearray(), []  # a bytearray grows without a second copy
    for chunk in chunks:
        pixels += chunk.images.data
        labels.append(chunk.labels)
    images = np.frombuffer(pixels, np.uint8).reshape(-1, *chunk.images.shape[1:])
    whole = Chunk(images, np.concatenate(labels))
    for array in whole:
        array.setflags(write=False)
    return whole


def decode_image(
    encoded: bytes, channels: int, size: tuple[int, str] | None
) -> UInt8[np.ndarray, "h w {channels}"]:
    """Decodes one image and resizes it to `size`, if given: (pixels per side, one of `RESIZES`).

    Rounds sizes and offsets as torchvision's Resize and CenterCrop do.
    """
    resolution, resize = size or (None, "")
    with Image.open(io.BytesIO(encoded)) as image:
        image = image.convert(MODES[channels])
    if resize == "squash":
        image = image.resize((resolution, resolution), Image.Resampling.BILINEAR)
    elif resize == "crop" and image.size != (resolution, resolution):
        short = min(image.size)
        width, height = (side * resolution // short for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - resolution) / 2), round((height - resolution) / 2)
        image = image.crop((left, top, left + resolution, top + resolution))
    return np.ascontiguousarray(image, np.uint8).reshape(image.height, image.width, channels)


def decode_clip(
    encoded: Sequence[bytes] | np.ndarray,
    channels: int,
    size: tuple[int, str] | None,
    frames: int | None,
) -> UInt8[np.ndarray, "h w tc"]:
    """Decodes `frames` of a clip, evenly spaced (None: all), each as `decode_image` does.

    They are channels, one after the other. Raises UsageError for a clip that is too short, or too
    long without `frames`.
    """
    if frames is None and len(encoded) > MAX_FRAMES:
        raise UsageError(
            f"clips of {len(encoded)} frames, expected at most {MAX_FRAMES}; give how many to take"
        )
    taken = [encoded[i] for i in spread(len(encoded), frames or len(encoded))]
    return np.concatenate([decode_image(of, channels, size) for of in taken], axis=-1)


def _undecoded():
    """Returns a decoder that leaves an image, or every frame of a clip, encoded."""
    import tensorflow_datasets as tfds

    decoder = tfds.decode.SkipDecoding()
    decoder.decode_batch_example_np = decoder.decode_example_np
    return decoder


def _check_equal(shape, other, channels, name) -> None:
    """Raises UsageError for images of several sizes, or clips of several lengths."""
    if shape[2] != other[2]:
        lengths = f"{shape[2] // channels}, {other[2] // channels}, ..."
        raise UsageError(
            f"the clips of data set {name!r} have different numbers of frames ({lengths}); give "
            "how many to take"
        )
    if shape != other:
        raise UsageError(
            f"the image sizes of data set {name!r} vary"
            f" ({size_text(shape)}, {size_text(other)}, ...); give a resolution"
        )


def size_text(shape: Sequence[int]) -> str:
    """Returns height and width, for an error message."""
    return f"{shape[0]}x{shape[1]}"
