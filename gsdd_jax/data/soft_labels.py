"""Labels of a set: classes, a logit per image and class on a fixed grid, or a stored labeler."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from gsdd_jax.core.fields import POSITIVE, field
from gsdd_jax.formats import labeler, mixes
from gsdd_jax.formats.labels import BITS, HIGHEST, codes, values

START = 6.0  # logit of an image's own class; the others start at 0
LABELER = labeler.LABELER
SOURCES = ("class", "teacher", LABELER)
MIXED = {"mixes": 4, "bits": 3}  # fields of labels that suit compressed real images
OF_LABELER = {"temperature": 1.0}  # fields that suit a labeler


@dataclasses.dataclass(frozen=True)
class Labels:
    source: str = field(
        "class",
        "label source: class (hard), teacher (soft: a network's outputs) or labeler (a network, "
        "stored, that labels every view which networks train on)",
        choices=SOURCES,
    )
    learned: bool = field(False, "True: the objective learns soft labels, from labels.source on")
    bits: int = field(4, "bits per soft label, one per image and class", *BITS)
    temperature: float = field(
        2.0, "temperature that divides the teacher's outputs", *labeler.TEMPERATURE
    )
    top: int = field(
        10, "teacher's outputs stored per image, the largest; the others have their mean", 1
    )
    mixes: int = field(
        0, "mixtures of each image with another, which the teacher labels, too", 0, mixes.MOST
    )
    width: int = field(16, "channels per layer of a labeler, a ConvNet", *labeler.WIDTH)
    weight_bits: int = field(6, "bits per weight of a labeler", *labeler.WEIGHT_BITS)
    learning_rate: float = field(0.02, "Adam learning rate of learned labels", *POSITIVE)

    @property
    def soft(self) -> bool:
        """Whether a set stores a value per image and class."""
        return self.learned or self.source == "teacher"

    def optimizer(self) -> optax.GradientTransformation:
        """Returns the optimizer of the logits, which stay unless they are learned."""
        return optax.adam(self.learning_rate) if self.learned else optax.set_to_zero()

    def bytes_per_class(
        self, image_shape: tuple[int, int, int], num_classes: int, images_per_class: int
    ) -> int:
        """Returns the bytes of labels, divided by classes, rounded up; 0 for hard ones.

        The most that they can take; of a teacher's labels an estimate where few outputs are stored.
        Raises UsageError for images that are too small for a labeler.
        """
        if self.source == LABELER:
            depth = labeler.automatic_depth(min(image_shape[:2]))
            of_network = image_shape, num_classes, self.width, depth, self.weight_bits
            return -(-labeler.most_bytes(*of_network) // num_classes)
        if not self.soft:
            return 0
        bits = self.bits * num_classes
        if not self.learned:
            bits = min(bits, math.ceil(self.top * (self.bits + math.log2(num_classes))))
        return -(-images_per_class * (1 + self.mixes) * bits // 8)

    def suggested_images(
        self, images: int, budget: int, image_shape: tuple[int, int, int], num_classes: int
    ) -> int:
        """Returns how many of `images` per class the `budget` in bytes per class holds with their
        labels, all of the quality that they have without labels."""
        labels = self.bytes_per_class(image_shape, num_classes, images)
        if self.source == LABELER:  # of one size, whatever the images
            return max(1, int(images * (1 - labels / budget)))
        return max(1, int(images * budget / (budget + labels)))


HARD = Labels()


def from_outputs(outputs: Float[Array, "m k"], temperature: float, top: int) -> Float[Array, "m k"]:
    """Returns a teacher's outputs as logits within the grid, the largest at its upper end.

    Those below the `top` largest share their probability equally.
    """
    softened = outputs / temperature
    if (rest := softened.shape[1] - top) > 1:
        ranks = jnp.argsort(jnp.argsort(softened, descending=True), stable=True)
        below = ranks >= top
        total = jax.nn.logsumexp(jnp.where(below, softened, -jnp.inf), 1, keepdims=True)
        softened = jnp.where(below, total - jnp.log(rest), softened)
    return clip(softened - softened.max(-1, keepdims=True) + HIGHEST)


def start(labels: Int[Array, "m"], num_classes: int) -> Float[Array, "m {num_classes}"]:
    """Returns initial logits, which give an image's own class nearly all of the probability."""
    return START * jax.nn.one_hot(labels, num_classes)


def clip(logits: Float[Array, "m k"]) -> Float[Array, "m k"]:
    return jnp.clip(logits, 0, HIGHEST)


def on_grid(logits: Float[Array, "m k"], bits: int) -> Float[Array, "m k"]:
    """Returns the nearest logits on the grid; the rounding is straight-through for gradients."""
    nearest = values(codes(logits, bits), bits)
    # The difference is exactly 0: training uses what is stored.
    return jax.lax.stop_gradient(nearest) + (logits - jax.lax.stop_gradient(logits))


def targets(logits: Float[Array, "m k"], bits: int) -> Float[Array, "m k"]:
    """Returns the target probabilities of each image, from the nearest logits on the grid."""
    return jax.nn.softmax(on_grid(logits, bits))


def stored(logits: Float[Array, "m k"], bits: int) -> Float[np.ndarray, "m k"]:
    """Returns logits on the host as a set stores them: the nearest ones on the grid."""
    return values(codes(np.asarray(logits), bits), bits)


def cross_entropy(
    logits: Float[Array, "b k"], targets: Int[Array, "b"] | Float[Array, "b k"]
) -> Float[Array, "b"]:
    """Returns the cross-entropy per image; `targets` are classes, or probabilities of all."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return optax.softmax_cross_entropy(logits, targets)
