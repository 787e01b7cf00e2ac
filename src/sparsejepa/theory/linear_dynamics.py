"""Learning curves and critical times of deep linear JEPA and MAE (Littwin et al., 2407.03475).

Encoder W_L … W_1 and one linear layer V on top, trained by gradient flow from a small balanced
start on x, y whose second moments are diagonal in one basis. Feature i is then on its own, with
covariance lambda = E[x y], regression coefficient rho = lambda / E[x²], and a gain w of the encoder
that begins at epsilon. With u = w^(1/L), the value of each layer,

    JEPA: dw/dt = lambda (w^(3 - 1/L) - w³ / rho), dt = (L / lambda) du / (u^(2L) (1 - u / rho)),
    MAE:  dw/dt = lambda (w^(2 - 1/L) - w³ / rho), dt = (L / lambda) du / (u^L (1 - u^(L+1) / rho)).

Time t is the paper's: L times learning rate x steps of gradient flow on ½ E||·||².
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.integrate import solve_ivp
from scipy.special import hyp2f1

Objective = Literal["jepa", "mae"]
PerFeature, Gains = Float[np.ndarray, "F"], Float[np.ndarray, "T F"]
Numbers = float | Sequence[float] | PerFeature  # one for all features, or one for each

TOLERANCE = 1e-10  # of log w: the solver's critical times are exact to 1e-6
RESOLVED = 1e10  # fastest growth over the first: beyond, growth is lost in the rounding of time
# epsilon^(1/L) over the layer's fixed point up to which JEPA's series, for half of the fixed point,
# is 2 % off or less at depth 1 and 0.1 % from depth 2 on. MAE's term is 13 % off at depth 2, 1 % at
# depth 3, and at depth 1 an order of magnitude.
SERIES_SHARE = 0.1


@dataclass(frozen=True)
class LinearDynamics:
    """One objective on F independent features; build it with `linear_dynamics`."""

    objective: Objective  # jepa: the target is the encoder's own output on y; mae: y itself
    depth: int  # L, linear layers of the encoder
    covariance: PerFeature  # lambda_i = E[x_i y_i]
    regression: PerFeature  # rho_i = lambda_i / E[x_i²]
    epsilon: PerFeature  # gain w_i at time 0

    @property
    def power(self) -> int:
        """k of `log_growth`."""
        return (2 if self.objective == "jepa" else 1) * self.depth - 1

    @property
    def end(self) -> PerFeature:
        """The fixed points."""
        return fixed_point(self.objective, self.depth, self.regression)


def linear_dynamics(
    objective: Objective, depth: int, covariance: Numbers, regression: Numbers, epsilon: Numbers
) -> LinearDynamics:
    """Broadcasts lambda, rho and epsilon to one length and checks that the theory covers them."""
    given = (np.atleast_1d(np.asarray(a, float)) for a in (covariance, regression, epsilon))
    lam, rho, start = (a.copy() for a in np.broadcast_arrays(*given))
    if not ((lam > 0) & (rho > 0) & np.isfinite(lam + rho)).all():
        raise ValueError(f"covariance {lam} and regression {rho} must be finite and above 0.")
    end = fixed_point(objective, depth, rho)
    if not ((0 < start) & (start < end)).all():
        what = f"epsilon {start} must be above 0 and below the fixed point {end}"
        raise ValueError(f"{what}, above which a feature decays instead of being learned.")
    return LinearDynamics(objective, depth, lam, rho, start)


def fixed_point(objective: Objective, depth: int, regression: PerFeature) -> PerFeature:
    """Where the gain ends: rho^L for JEPA (V = rho), rho^(L / (L + 1)) for MAE (V w = rho)."""
    return regression ** (depth if objective == "jepa" else depth / (depth + 1))


def log_growth(dynamics: LinearDynamics, gain: PerFeature) -> PerFeature:
    """d ln w / dt = lambda (u^k - u^(2L) / rho), u = w^(1/L), k = 2L - 1 (JEPA) or L - 1 (MAE)."""
    layer = gain ** (1 / dynamics.depth)
    rest = layer ** (2 * dynamics.depth) / dynamics.regression
    return dynamics.covariance * (layer**dynamics.power - rest)


def trajectories(dynamics: LinearDynamics, times: Float[np.ndarray, "T"]) -> Gains:
    """The gains at increasing times from 0 on, by a stiff solver in log w.

    ValueError: an epsilon so small that growth is a jump at the resolution of time.
    """
    fastest, first = (log_growth(dynamics, w) for w in (dynamics.end / 2, dynamics.epsilon))
    depth = dynamics.depth
    if (jumps := fastest > RESOLVED * first).any():
        what = f"epsilon {dynamics.epsilon[jumps][0]:.3g} is too small for a trajectory at depth"
        advice = "growth is a jump; use critical_time, or a larger epsilon"
        raise ValueError(f"{what} {depth}: {advice}.")

    def slope(log_gain: PerFeature) -> PerFeature:
        layer = np.exp(log_gain) ** (1 / depth)
        rest = 2 * depth * layer ** (2 * depth) / dynamics.regression
        return dynamics.covariance / depth * (dynamics.power * layer**dynamics.power - rest)

    solved = solve_ivp(
        lambda _, log_gain: log_growth(dynamics, np.exp(log_gain)),
        (0.0, times[-1]),
        np.log(dynamics.epsilon),
        method="LSODA",
        t_eval=times,
        rtol=TOLERANCE,
        atol=TOLERANCE,
        # Without the exact Jacobian it takes a hundred times as many steps.
        jac=lambda _, log_gain: np.diag(slope(log_gain)),
    )
    if not solved.success:
        raise RuntimeError(f"The solver gave up: {solved.message}")
    return np.exp(solved.y.T)


def crossing_times(times: Float[np.ndarray, "T"], gains: Gains, levels: PerFeature) -> PerFeature:
    """When each gain, log-linear between samples, first reaches its level; NaN: never."""
    found = np.full(len(levels), np.nan)
    for feature, level in enumerate(levels):
        after = int((gains[:, feature] >= level).argmax())
        if gains[after, feature] >= level:
            found[feature] = times[after]
            if after > 0:
                ends = np.log(gains[after - 1 : after + 1, feature])
                share = (np.log(level) - ends[0]) / (ends[1] - ends[0])
                found[feature] = times[after - 1] + share * (times[after] - times[after - 1])
    return found


def critical_time(dynamics: LinearDynamics, fraction: float) -> PerFeature:
    """Time from epsilon to `fraction` of the fixed point, in closed form [derived here].

    JEPA, by partial fractions, with u_0 and u_1 the ends:
        (L / lambda) { sum_{n=1}^{2L-1} (u_0^-n - u_1^-n) / (n rho^(2L-1-n))
                       + rho^(1-2L) ln[ u_1 (1 - u_0 / rho) / (u_0 (1 - u_1 / rho)) ] }.
    MAE, from 1 / (u^L (1 - u^(L+1) / rho)) = u^-L + (u / rho) / (1 - u^(L+1) / rho):
        (L / lambda) { (u_0^(1-L) - u_1^(1-L)) / (L - 1) + (G(u_1) - G(u_0)) / rho },
        G(u) = (u² / 2) 2F1(1, 2/(L+1); 1 + 2/(L+1); u^(L+1) / rho),
    where the first fraction is ln(u_1 / u_0) for L = 1.

    ValueError: a fraction that no feature reaches, or beyond which one begins.
    """
    depth, rho = dynamics.depth, dynamics.regression
    first = dynamics.epsilon ** (1 / depth)
    last = fraction ** (1 / depth) * dynamics.end ** (1 / depth)
    if not (fraction < 1 and (first <= last).all()):
        what = f"fraction {fraction:g} of the fixed point must be below 1, and no epsilon of"
        advice = "choose another fraction or a smaller epsilon"
        raise ValueError(f"{what} {dynamics.epsilon} beyond it: {advice}.")
    if dynamics.objective == "jepa":
        total = rho ** (1.0 - 2 * depth) * (
            np.log(last / first) + np.log1p(-first / rho) - np.log1p(-last / rho)
        )
        for n in range(1, 2 * depth):
            total += rho ** (n + 1.0 - 2 * depth) * (first**-n - last**-n) / n
        return depth / dynamics.covariance * total
    if depth == 1:
        total = np.log(last / first)
    else:
        total = (first ** (1.0 - depth) - last ** (1.0 - depth)) / (depth - 1)
    b, ends = 2 / (depth + 1), (first, last)
    at_first, at_last = (u**2 / 2 * hyp2f1(1.0, b, 1 + b, u ** (depth + 1) / rho) for u in ends)
    return depth / dynamics.covariance * (total + (at_last - at_first) / rho)


def series_terms(dynamics: LinearDynamics) -> Float[np.ndarray, "N F"]:
    """The terms of the paper's series, for an epsilon that `series_is_valid`, the largest first.

    JEPA: L / (lambda n rho^(2L-n-1) epsilon^(n/L)) for n = 2L-1 down to 1, Theta(log 1/epsilon)
    dropped. MAE: (L / (L-1)) / (lambda epsilon^((L-1)/L)), Theta(1) dropped, and
    log(1/epsilon) / lambda for L = 1.
    """
    depth, rho, scale = dynamics.depth, dynamics.regression, 1 / dynamics.covariance
    layer = dynamics.epsilon ** (1 / depth)
    if dynamics.objective == "jepa":
        orders, power = range(2 * depth - 1, 0, -1), 2 * depth - 1.0
        return np.stack([scale * depth / (n * rho ** (power - n) * layer**n) for n in orders])
    if depth == 1:
        return -(scale * np.log(dynamics.epsilon))[None]
    return (scale * depth / (depth - 1) * layer ** (1.0 - depth))[None]


def series_is_valid(dynamics: LinearDynamics) -> Bool[np.ndarray, "F"]:
    """Whether epsilon^(1/L) is small enough beside the layer's fixed point: at most a tenth."""
    root = 1 / dynamics.depth
    return dynamics.epsilon**root <= SERIES_SHARE * dynamics.end**root


def limit_slopes(objective: Objective, depth: int) -> dict[str, float]:
    """d ln t / d ln(epsilon, lambda, rho) as epsilon -> 0, from the leading terms of the series."""
    power = (2 * depth - 1) / depth if objective == "jepa" else (depth - 1) / depth
    return {"epsilon": -power, "covariance": -1.0, "regression": 0.0}


def order_ratio(dynamics: LinearDynamics, fraction: float) -> Float[np.ndarray, "P"]:
    """t_A / t_B of features given in pairs A, B, A, B, …: above 1, B is learned first."""
    times = critical_time(dynamics, fraction)
    return times[0::2] / times[1::2]
