"""Intervals for a number of artifacts that is estimated from contexts drawn in strata."""

from __future__ import annotations

from scipy.special import betaincinv

__all__ = ["LEVEL", "interval"]

LEVEL = 0.95


def interval(estimate: float, variance: float, weight: float, room: float) -> tuple[float, float]:
    """Return the 95 % interval, (low, high), of a total that lies in 0..`room`.

    `variance`: that of the estimate, as the draws show it; `weight`: the most that one artifact that was not met may
    add: about N_h / n_h for the stratum of N_h contexts from which n_h were drawn that has the most, less where much of
    it was read (see `SampledCounter._spread`); 0 where all were read.

    With one stratum, one possible artifact a context and few of many contexts drawn this is the interval of Clopper and
    Pearson (1934), which never covers less than it says: its upper end is a quantile of the Beta distribution with x +
    1 hits of n + 1 draws. Fay and Feuer (1997) carry that over to weighted sums of Poisson numbers: to what was met
    they add one more event of the greatest weight, to the variance its square, and choose the gamma distribution with
    these two moments; coverage fell below what it should be in none of their simulations, with no event met either.
    Here numbers are bounded, so the same is done with Beta. In shares of the room, with p the estimate, v its variance
    and a the weight,

        p' = (p + a) / (1 + a),   v' = (v + a^2 (1 - p)) / (1 + a)^3,   n' = p' (1 - p') / v'

    and the upper end is the quantile of Beta(n' p', n' (1 - p')): for p = x / n, v = p (1 - p) / n and a = 1 / n that
    is Beta(x + 1, n - x), exactly; for rare artifacts it tends to the gamma distribution. The lower end is the same
    seen from the other side: what is no artifact is a share 1 - p.
    """
    if weight <= 0 or room <= 0:
        return estimate, estimate
    share, spread, most = min(max(estimate / room, 0.0), 1.0), variance / room**2, weight / room
    return room * (1 - _upper(1 - share, spread, most)), room * _upper(share, spread, most)


def _upper(share: float, variance: float, most: float) -> float:
    if share >= 1:
        return 1.0
    moved = (share + most) / (1 + most)
    size = moved * (1 - moved) * (1 + most) ** 3 / (variance + most**2 * (1 - share))
    return float(betaincinv(size * moved, size * (1 - moved), (1 + LEVEL) / 2))
