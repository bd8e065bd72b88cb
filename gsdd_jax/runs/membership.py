"""Statistics of membership inference: likelihood ratios of shadow sets, and what they tell.

Shadows come in pairs: of every pair one set was made with a candidate, the other without it.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gsdd_jax.core.errors import UsageError

LEAST = 6  # shadows: two other pairs are needed for a variance
FALSE = {"tpr_at_0.1%_fpr": 1e-3, "tpr_at_1%_fpr": 1e-2}  # false positive rates by measure


class Curve(NamedTuple):
    """True and false positive rates at decreasing thresholds, from 0 to 1."""

    true: Float[np.ndarray, "t"]
    false: Float[np.ndarray, "t"]


def ratios(
    scores: Float[np.ndarray, "s n"], inside: Bool[np.ndarray, "s n"]
) -> Float[np.ndarray, "s n"]:
    """Returns the log-likelihood ratios of candidates to be members of each set.

    Each set is the target in turn. A normal distribution is fitted to the scores of a candidate by
    other sets that contain it, and one by those that do not (LiRA, Carlini et al. 2022). The
    target's whole pair is left out: otherwise the number of other sets would tell the answer.
    Candidates share the two variances: with 39 other pairs, those of each are still worse.

    Args:
      scores: score of each candidate by each set, larger for members.
      inside: whether the set was made with the candidate. Sets 2i and 2i + 1 complement each other.

    Raises UsageError for an odd number of sets or fewer than `LEAST`.
    """
    check_shadows(len(scores))
    pairs, first = scores.reshape(-1, 2, scores.shape[1]).astype(np.float64), inside[::2]
    if not np.array_equal(first, ~inside[1::2]):
        raise ValueError("expected pairs of sets that complement each other")
    of_both = np.where(first, pairs[:, 0], pairs[:, 1]), np.where(first, pairs[:, 1], pairs[:, 0])
    found = np.empty(pairs.shape)
    for i, target in enumerate(pairs):
        logs = [_log_density(target, np.delete(of, i, 0)) for of in of_both]
        found[i] = logs[0] - logs[1]
    return found.reshape(scores.shape)


def check_shadows(count: int) -> None:
    if count < LEAST or count % 2:
        raise UsageError(f"shadows: expected an even number of at least {LEAST}, got {count}")


def _log_density(
    target: Float[np.ndarray, "2 n"], others: Float[np.ndarray, "p n"]
) -> Float[np.ndarray, "2 n"]:
    """Returns the log density of scores, up to a constant, by a normal distribution of `others`."""
    variance = max(others.var(0, ddof=1).mean(), 1e-12)
    return -((target - others.mean(0)) ** 2) / (2 * variance) - np.log(variance) / 2


def curve(scores: Float[np.ndarray, "n"], member: Bool[np.ndarray, "n"]) -> Curve:
    """Returns the rates of the attack that calls members whatever scores a threshold or more."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of equal scores
    rates = [np.cumsum(of[order])[last] / of.sum() for of in (member, ~member)]
    return Curve(*(np.append(0.0, of) for of in rates))


def measures(of: Curve) -> dict[str, float]:
    """Returns the area under the curve, the best balanced accuracy, and true positive rates at
    small false positive rates."""
    area = (np.diff(of.false) * (of.true[1:] + of.true[:-1]) / 2).sum()
    found = {
        "auc": float(area),
        "balanced_accuracy": float(((of.true + 1 - of.false) / 2).max()),
    }
    at_most = lambda rate: float(of.true[of.false <= rate].max())
    return found | {name: at_most(rate) for name, rate in FALSE.items()}


def attacked(scores: Float[np.ndarray, "s n"], inside: Bool[np.ndarray, "s n"]) -> dict[str, Any]:
    """Returns the measures of all targets together, by name, each with the standard deviation over
    targets."""
    pooled = measures(curve(scores.ravel(), inside.ravel()))
    each = [measures(curve(*target)) for target in zip(scores, inside, strict=True)]
    spread = {name: float(np.std([of[name] for of in each], ddof=1)) for name in pooled}
    return {name: {"value": value, "std": spread[name]} for name, value in pooled.items()}
