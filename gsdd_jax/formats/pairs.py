"""Formats whose images are pairs: an array of their class, shown by one of the shared partners."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.formats.base import Contents, Format, Spec
from gsdd_jax.formats.shapes import Float

PAIRS = "pairs"


class Paired(Format):
    """Base of formats with an array `held` by class, whose rows are each shown by all partners.

    Image i of a class is its row i // partners by partner i % partners. `shapes` has one row.
    """

    held: ClassVar[str]
    partner: ClassVar[str]  # field with the number of partners

    @property
    def partners(self) -> int:
        return getattr(self, self.partner)

    @property
    def held_per_class(self) -> int:
        return -(-self.images_per_class // self.partners)

    def is_shared(self, name: str) -> bool:
        return name != PAIRS

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        count = num_images // self.images_per_class * self.held_per_class
        specs = super().array_specs(num_images)
        return specs | {self.held: Spec((count, *self.shapes()[self.held]), self.dtype)}

    def _axes(self) -> dict[str, str]:
        return super()._axes() | {self.held: "by_class"}

    def divided(self, arrays: Mapping[str, np.ndarray]) -> Contents:
        found, (shape,) = super().divided(arrays), self.shapes().values()
        rows = found.by_class[self.held]
        found.by_class[self.held] = rows.reshape(-1, self.held_per_class, *shape)
        return found

    def resized(
        self, contents: Contents, images_per_class: int, num_classes: int
    ) -> tuple[Format, dict[str, np.ndarray]]:
        kind, arrays = super().resized(contents, images_per_class, num_classes)
        kept = arrays[self.held][:, : kind.held_per_class]
        return kind, arrays | {self.held: kept.reshape(-1, *kept.shape[2:])}

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays, and the row and the partner of every image."""
        classes = len(arrays[self.held]) // self.held_per_class
        return dict(arrays) | {PAIRS: self.pairs(classes * self.images_per_class)}

    def pairs(self, num_images: int) -> Float[np.ndarray, "m 2"]:
        """Returns the row and the partner of each image; float32, since differentiated."""
        of_class, place = np.divmod(np.arange(num_images), self.images_per_class)
        row, partner = np.divmod(place, self.partners)
        rows = of_class * self.held_per_class + row
        return np.stack([rows, partner], -1).astype(np.float32)

    def of_images(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns for each image its row and its partner's arrays, by name."""
        row, partner = params[PAIRS].astype(np.int32).T
        own = {self.held: params[self.held][row]}
        return own | {name: params[name][partner] for name in self.shared_shapes()}
