"""Limits of sizes, without JAX for `gsdd_jax.formats`."""

# An image of a distilled set.
MAX_SIDE = 4096  # pixels; larger ones exhaust the memory of most machines
MAX_CHANNELS = 4  # of a frame
MAX_FRAMES = 256  # of a clip
MAX_SAMPLES_PER_SIDE = 16  # sample points of a pixel in each direction

# A custom call. xla_ops/rasterizer/gaussian.h and shapes.h check the same limits.
MAX_CALL_SIDE = 2**16  # pixels
MAX_CALL_CHANNELS = 4  # more are rendered by several calls
MAX_CALL_ELEMENTS = 2**40  # in all images
MAX_CALL_GAUSSIANS = 2**31 - 1  # in a ragged batch: offsets are int32
