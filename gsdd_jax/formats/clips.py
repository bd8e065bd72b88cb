"""Clips as images whose channels hold the frames one after the other."""

from typing import Any

from gsdd_jax.core.errors import UsageError


def folded(clips: Any) -> Any:
    """Returns images [*m, h, w, t·c] of clips [*m, t, h, w, c], in NumPy or JAX.

    Channel = frame · c + color.
    """
    *many, frames, height, width, colors = clips.shape
    clips = clips.reshape(-1, frames, height, width, colors).transpose(0, 2, 3, 1, 4)
    return clips.reshape(*many, height, width, frames * colors)


def unfolded(images: Any, frames: int) -> Any:
    """Returns clips [*m, t, h, w, c]: the inverse of `folded`; images [*m, h, w, c] of one frame.

    Any type of numbers.
    """
    return images if frames == 1 else in_frames(images, frames)


def in_frames(images: Any, frames: int) -> Any:
    """Returns the frames [*m, t, h, w, c] of folded clips, or of images if `frames` is 1."""
    *many, height, width, channels = images.shape
    images = images.reshape(-1, height, width, frames, channels // frames)
    return images.transpose(0, 3, 1, 2, 4).reshape(*many, frames, height, width, -1)


def shown_shape(image_shape: tuple[int, int, int], frames: int) -> str:
    """Returns frames of a clip, height, width and colors, for people."""
    return "x".join(map(str, clip_shape(image_shape, frames)))


def clip_shape(image_shape: tuple[int, int, int], frames: int) -> tuple[int, ...]:
    """Returns [t, h, w, c] of folded clips, [h, w, c] of images."""
    if frames == 1:
        return tuple(image_shape)
    height, width, channels = image_shape
    return frames, height, width, channels // frames


def check_shape(
    found: tuple[int, ...], expected: tuple[int, ...], frames: int = 1, where: str = ""
) -> None:
    """Raises UsageError, beginning with `where`, for images or folded clips of another shape."""
    if found != expected:
        shapes = [clip_shape(shape, frames) for shape in (expected, found)]
        raise UsageError(f"{where}expected images of {shapes[0]}, got {shapes[1]}")
