"""The ways to store an image by their names."""

from __future__ import annotations

from gsdd_jax.portable.ddif import DDiF
from gsdd_jax.portable.fred import FreD
from gsdd_jax.portable.gaussian import Gaussian
from gsdd_jax.portable.idc import IDC
from gsdd_jax.portable.pixels import Pixels
from gsdd_jax.portable.quantized import Quantized

BY_NAME = {kind.name: kind for kind in (Gaussian, Pixels, IDC, FreD, DDiF, Quantized)}
