"""Privacy of the objective `dp_dm`: epsilon of a noise, and the noise for an epsilon.

Accounts for Poisson-sampled Gaussian mechanisms by Google's `dp-accounting`, whose privacy loss
distributions are upper bounds. One image is added or removed (docs/privacy.md).
"""

import functools
import math
from typing import Any

from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import check_value

NOISE = 0.3, 1e4  # least and most; below, epsilon is in the tens, and takes minutes to compute
DELTA = 1e-12, 0.1
EPSILON = 1e-3, 1e3


@checked
def epsilon(*, noise: float, rate: float, steps: int, delta: float = 1e-5) -> float:
    """Returns the epsilon of a distillation by `dp_dm`.

    Args:
      noise: noise multiplier, `matching.options.noise`.
      rate: largest sampling rate of any class: `batch_real`, divided by its training images.
      steps: distillation steps; 0 cost nothing.
      delta: probability beyond epsilon.

    Raises UsageError for a value out of its range, and without `dp-accounting`.
    """
    check_value("noise", "float", noise, NOISE)
    check_value("steps", "int", steps, (0, None))
    _check(rate, delta)
    return _epsilon(float(noise), float(rate), steps, float(delta)) if steps else 0.0


@checked
def noise(*, epsilon: float, rate: float, steps: int, delta: float = 1e-5) -> float:
    """Returns the least noise multiplier with that epsilon, rounded up to thousandths.

    The arguments are those of `epsilon`. Raises UsageError likewise, and for an epsilon that takes
    more noise than is permitted.
    """
    check_value("epsilon", "float", epsilon, EPSILON)
    check_value("steps", "int", steps)
    _check(rate, delta)
    spent = lambda thousandths: _epsilon(thousandths / 1000, float(rate), steps, float(delta))
    least, most = (round(1000 * of) for of in NOISE)
    low = high = 1000
    while spent(high) > epsilon:
        low, high = high, 2 * high
        if high > most:
            raise UsageError(
                f"epsilon: {epsilon:g} takes a noise above {NOISE[1]:g} in so many steps; expected "
                "a larger epsilon, or fewer steps"
            )
    while spent(low) <= epsilon:
        if low == least:
            return NOISE[0]
        low, high = max(least, low * 3 // 4), low
    interpolate = True
    while high - low > 1:  # the larger one suffices, the smaller one does not
        middle = (low + high) // 2
        if interpolate:
            share = math.log(spent(low) / epsilon) / math.log(spent(low) / spent(high))
            middle = round(low * (high / low) ** share)
        middle = min(max(middle, low + 1), high - 1)
        before = high - low
        low, high = (low, middle) if spent(middle) <= epsilon else (middle, high)
        interpolate = 2 * (high - low) <= before or not interpolate
    return high / 1000


def _check(rate: float, delta: float) -> None:
    check_value("rate", "float", rate, (1e-9, 1))
    check_value("delta", "float", delta, DELTA)


@functools.lru_cache(maxsize=256)
def _epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    accounting = _library()
    step = accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(noise))
    accountant = accounting.pld.PLDAccountant()
    accountant.compose(accounting.SelfComposedDpEvent(step, steps))
    found = float(accountant.get_epsilon(delta))
    if not math.isfinite(found):
        raise UsageError(f"epsilon: infinite at delta {delta:g}; expected a larger delta or noise")
    return found


def _library() -> Any:
    try:
        import dp_accounting
        import dp_accounting.pld
    except ImportError:
        raise UsageError(
            "privacy: dp-accounting is not installed; install it by `pip install gsdd-jax[privacy]`"
        ) from None
    return dp_accounting
