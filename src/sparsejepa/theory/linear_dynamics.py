"""Learning curves and critical times of deep linear JEPA and MAE (Littwin et al., 2407.03475).

Encoder W_L … W_1 and one linear layer V on top, trained by gradient flow from a small balanced
start on x, y whose second moments are diagonal in one basis. Feature i is then on its own:

* lambda_i = E[x_i y_i], its covariance, and rho_i = lambda_i / E[x_i²], its regression coefficient;
* w_i, the encoder's gain on it, begins at epsilon and follows
  JEPA: dw/dt = lambda (w^(3 - 1/L) - w³ / rho), MAE: dw/dt = lambda (w^(2 - 1/L) - w³ / rho).

With u = w^(1/L), the value of each layer, these become

    JEPA: dt = (L / lambda) du / (u^(2L) (1 - u / rho)),
    MAE:  dt = (L / lambda) du / (u^L (1 - u^(L+1) / rho)).

A critical time (Thm 4.5) is the integral from epsilon^(1/L) to the layer's value at a fraction of
the fixed point. Time t is the paper's: depth times the time of gradient flow on ½ E||·||²
(`flow_time`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from scipy.integrate import solve_ivp
from scipy.special import hyp2f1

Objective = Literal["jepa", "mae"]
# One number for all features, or one for each.
PerFeature = float | Sequence[float] | Float[np.ndarray, "F"]

# Of log w: the solver's critical times are exact to 1e-6.
TOLERANCE = 1e-10
# Fastest growth over the initial one, about waiting time over growing time. Beyond it the steps
# that growing takes are lost in the rounding of time.
RESOLVED = 1e10
# epsilon^(1/L) over the layer's fixed point. At this share, for half of the fixed point, the series
# of JEPA is 2 % off at depth 1 and 0.1 % or less from depth 2 on; the single term of MAE, which
# drops Theta(1), is 13 % off at depth 2, 1 % at depth 3, and at depth 1 an order of magnitude.
SERIES_SHARE = 0.1


@dataclass(frozen=True)
class LinearDynamics:
    """One objective on F independent features; build it with `linear_dynamics`."""

    objective: Objective  # jepa: the target is the encoder's own output on y; mae: y itself
    depth: int  # L, linear layers of the encoder
    covariance: Float[np.ndarray, "F"]  # lambda_i = E[x_i y_i]
    regression: Float[np.ndarray, "F"]  # rho_i = lambda_i / E[x_i²]
    epsilon: Float[np.ndarray, "F"]  # gain w_i at time 0

    @property
    def power(self) -> int:
        """k of d ln w / dt = lambda (u^k - u^(2L) / rho)."""
        return (2 if self.objective == "jepa" else 1) * self.depth - 1


def linear_dynamics(
    objective: str,
    depth: int,
    covariance: PerFeature,
    regression: PerFeature,
    epsilon: PerFeature,
) -> LinearDynamics:
    """Broadcasts lambda, rho and epsilon to one length and checks that the theory covers them.

    Raises:
        ValueError: an unknown objective, a depth below 1, a lambda, rho or epsilon that is not
            positive, an epsilon at or above its feature's fixed point.
    """
    if objective not in get_args(Objective):
        raise ValueError(f"objective {objective!r} is unknown; choose jepa or mae.")
    if depth < 1:
        raise ValueError(f"depth {depth} must be at least 1: the encoder needs a layer to learn.")
    given = {"covariance": covariance, "regression": regression, "epsilon": epsilon}
    arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, float)) for a in given.values()))
    for name, values in zip(given, arrays, strict=True):
        wrong = values[~(np.isfinite(values) & (values > 0))]
        if wrong.size:
            raise ValueError(f"{name} {wrong[0]} must be finite and above 0 for every feature.")
    found = LinearDynamics(objective, depth, *(a.copy() for a in arrays))
    end = fixed_point(found.objective, depth, found.regression)
    above = found.epsilon >= end
    if above.any():
        raise ValueError(
            f"epsilon {found.epsilon[above][0]:.3g} must be below the fixed point "
            f"{end[above][0]:.3g}, above which a feature decays instead of being learned."
        )
    return found


def fixed_point(
    objective: Objective, depth: int, regression: Float[np.ndarray, "F"]
) -> Float[np.ndarray, "F"]:
    """Where the gain ends: rho^L for JEPA, rho^(L / (L + 1)) for MAE.

    Both are the same regression: V = rho in JEPA, V w = rho in MAE.
    """
    return regression ** (depth if objective == "jepa" else depth / (depth + 1))


def fixed_layer(dynamics: LinearDynamics) -> Float[np.ndarray, "F"]:
    """u*, the value of each layer at the fixed point: rho for JEPA, rho^(1/(L+1)) for MAE."""
    end = fixed_point(dynamics.objective, dynamics.depth, dynamics.regression)
    return end ** (1 / dynamics.depth)


def log_growth(dynamics: LinearDynamics, gain: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """d ln w / dt = lambda (u^k - u^(2L) / rho), u = w^(1/L), k = 2L - 1 (JEPA) or L - 1 (MAE)."""
    layer = gain ** (1 / dynamics.depth)  # each of the L layers, and V
    rest = layer ** (2 * dynamics.depth) / dynamics.regression
    return dynamics.covariance * (layer**dynamics.power - rest)


def trajectories(
    dynamics: LinearDynamics, times: Float[np.ndarray, "T"]
) -> Float[np.ndarray, "T F"]:
    """The gains at increasing times from 0 on, by a stiff solver in log w.

    A gain waits far longer than its growth then takes, and rests while others still wait: LSODA
    changes between explicit and implicit methods. It gets the exact Jacobian, which is diagonal:
    with a differenced one it took a hundred times as many steps.

    Raises:
        ValueError: an epsilon so small that growth is a jump at the resolution of time, where only
            critical times have a meaning.
        RuntimeError: the solver gave up; its reason follows.
    """
    half = fixed_point(dynamics.objective, dynamics.depth, dynamics.regression) / 2
    jumps = log_growth(dynamics, half) > RESOLVED * log_growth(dynamics, dynamics.epsilon)
    if jumps.any():
        raise ValueError(
            f"epsilon {dynamics.epsilon[jumps][0]:.3g} is too small for a trajectory at depth "
            f"{dynamics.depth}: the feature grows within less than 1 / {RESOLVED:.0e} of the time "
            "that it waits; use critical_time, or a larger epsilon."
        )
    depth, start = dynamics.depth, np.log(dynamics.epsilon)

    def slope(log_gain: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
        layer = np.exp(log_gain) ** (1 / depth)
        rest = 2 * depth * layer ** (2 * depth) / dynamics.regression
        return dynamics.covariance / depth * (dynamics.power * layer**dynamics.power - rest)

    solved = solve_ivp(
        lambda _, log_gain: log_growth(dynamics, np.exp(log_gain)),
        (0.0, times[-1]),
        start,
        method="LSODA",
        t_eval=times,
        rtol=TOLERANCE,
        atol=TOLERANCE,
        jac=lambda _, log_gain: np.diag(slope(log_gain)),
    )
    if not solved.success:
        raise RuntimeError(f"The solver gave up: {solved.message}")
    return np.exp(solved.y.T)


def crossing_times(
    times: Float[np.ndarray, "T"], gains: Float[np.ndarray, "T F"], levels: Float[np.ndarray, "F"]
) -> Float[np.ndarray, "F"]:
    """When each measured gain first reaches its level; NaN where it never does.

    Between two samples, log gain is taken as linear in time.
    """
    found = np.full(len(levels), np.nan)
    for feature, level in enumerate(levels):
        reached = gains[:, feature] >= level
        if reached.any():
            after = int(reached.argmax())
            found[feature] = times[after]
            if after > 0:
                ends = np.log(gains[after - 1 : after + 1, feature])
                share = (np.log(level) - ends[0]) / (ends[1] - ends[0])
                found[feature] = times[after - 1] + share * (times[after] - times[after - 1])
    return found


def flow_time(depth: int, time: float) -> float:
    """Time of gradient flow (learning rate x steps) at the paper's time: t / L.

    The gain is the product of L equal layers; each contributes its own growth, so that w changes L
    times as fast as the paper's equation says.
    """
    return time / depth


def critical_time(dynamics: LinearDynamics, fraction: float) -> Float[np.ndarray, "F"]:
    """Time from epsilon to `fraction` of the fixed point, in closed form [derived here].

    JEPA, by partial fractions, with u_0 and u_1 the ends:
        (L / lambda) { sum_{n=1}^{2L-1} (u_0^-n - u_1^-n) / (n rho^(2L-1-n))
                       + rho^(1-2L) ln[ u_1 (1 - u_0 / rho) / (u_0 (1 - u_1 / rho)) ] }.
    MAE, from 1 / (u^L (1 - u^(L+1) / rho)) = u^-L + (u / rho) / (1 - u^(L+1) / rho):
        (L / lambda) { (u_0^(1-L) - u_1^(1-L)) / (L - 1) + (G(u_1) - G(u_0)) / rho },
        G(u) = (u² / 2) 2F1(1, 2/(L+1); 1 + 2/(L+1); u^(L+1) / rho),
    where the first fraction is ln(u_1 / u_0) for L = 1. G is elementary: -(rho/2) ln(1 - u²/rho)
    for L = 1, (sqrt(rho) / 2) artanh(u² / sqrt(rho)) for L = 3.

    Raises:
        ValueError: a fraction outside 0 to 1, or a feature that begins beyond it.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction {fraction} must lie between 0 and 1, which is never reached.")
    depth, rho = dynamics.depth, dynamics.regression
    first = dynamics.epsilon ** (1 / depth)
    last = fraction ** (1 / depth) * fixed_layer(dynamics)
    if (first > last).any():
        raise ValueError(
            f"epsilon {dynamics.epsilon[first > last][0]:.3g} is beyond {fraction:g} of the fixed "
            "point already; choose a smaller epsilon or a larger fraction."
        )
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
    b = 2 / (depth + 1)
    at_first, at_last = (
        u**2 / 2 * hyp2f1(1.0, b, 1 + b, u ** (depth + 1) / rho) for u in (first, last)
    )
    return depth / dynamics.covariance * (total + (at_last - at_first) / rho)


def series_terms(dynamics: LinearDynamics) -> Float[np.ndarray, "N F"]:
    """The terms of the paper's series for small epsilon, the largest first.

    JEPA: L / (lambda n rho^(2L-n-1) epsilon^(n/L)) for n = 2L-1 down to 1, Theta(log 1/epsilon)
    dropped; the first of them does not contain rho. MAE: (L / (L-1)) / (lambda
    epsilon^((L-1)/L)), Theta(1) dropped, and log(1/epsilon) / lambda for L = 1. Valid where
    `series_is_valid`.
    """
    depth, rho, scale = dynamics.depth, dynamics.regression, 1 / dynamics.covariance
    layer = dynamics.epsilon ** (1 / depth)
    if dynamics.objective == "jepa":
        orders = range(2 * depth - 1, 0, -1)
        return np.stack(
            [scale * depth / (n * rho ** (2 * depth - n - 1.0) * layer**n) for n in orders]
        )
    if depth == 1:
        return -(scale * np.log(dynamics.epsilon))[None]
    return (scale * depth / (depth - 1) * layer ** (1.0 - depth))[None]


def series_is_valid(dynamics: LinearDynamics) -> Bool[np.ndarray, "F"]:
    """Whether epsilon^(1/L) is small enough beside the layer's fixed point: at most a tenth."""
    return dynamics.epsilon ** (1 / dynamics.depth) <= SERIES_SHARE * fixed_layer(dynamics)


def limit_slopes(objective: Objective, depth: int) -> dict[str, float]:
    """d ln t / d ln(epsilon, lambda, rho) as epsilon -> 0, from the leading terms of the series."""
    power = (2 * depth - 1) / depth if objective == "jepa" else (depth - 1) / depth
    return {"epsilon": -power, "covariance": -1.0, "regression": 0.0}


def order_ratio(dynamics: LinearDynamics, fraction: float) -> Float[np.ndarray, "P"]:
    """t_A / t_B of features given in pairs A, B, A, B, …: above 1, B is learned first."""
    times = critical_time(dynamics, fraction)
    return times[0::2] / times[1::2]
