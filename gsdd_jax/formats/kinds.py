"""The ways to store an image by their names."""

from __future__ import annotations

from gsdd_jax.formats.ddif import DDiF
from gsdd_jax.formats.fred import FreD
from gsdd_jax.formats.gaussian import Gaussian
from gsdd_jax.formats.idc import IDC
from gsdd_jax.formats.pixels import Pixels
from gsdd_jax.formats.quantized import Quantized

BY_NAME = {kind.name: kind for kind in (Gaussian, Pixels, IDC, FreD, DDiF, Quantized)}
