"""Real images of TensorFlow Datasets, which the examples without JAX test on."""

import tensorflow_datasets as tfds

import gsdd_jax


def of(name, split="test"):
    """Returns records of an image and a label. Raises UsageError if TFDS does not have them."""
    try:
        return tfds.data_source(name, split=split)
    except (ImportError, OSError, ValueError) as error:  # neither prepared nor downloaded
        reason = str(error).splitlines()[0]
        raise gsdd_jax.UsageError(
            f"{name}: expected a data set that TFDS finds or downloads ({reason})"
        ) from None
