"""Learning curves of deep linear JEPA and MAE, feature by feature (Littwin et al., 2407.03475).

Encoder W_L … W_1 and one linear layer V on top, trained by gradient flow from a small balanced
start on x, y whose second moments are diagonal in one basis. Feature i is then on its own:

* lambda_i = E[x_i y_i], its covariance, and rho_i = lambda_i / E[x_i²], its regression coefficient;
* w_i, the encoder's gain on it, begins at epsilon and follows
  JEPA: dw/dt = lambda (w^(3 - 1/L) - w³ / rho), MAE: dw/dt = lambda (w^(2 - 1/L) - w³ / rho).

Time t is the paper's: depth times the time of gradient flow on ½ E||·||² (`flow_time`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp

Objective = Literal["jepa", "mae"]
# One number for all features, or one for each.
PerFeature = float | Sequence[float] | Float[np.ndarray, "F"]

# Of log w: the solver's critical times are exact to 1e-6.
TOLERANCE = 1e-10
# Fastest growth over the initial one, about waiting time over growing time. Beyond it the steps
# that growing takes are lost in the rounding of time.
RESOLVED = 1e10


@dataclass(frozen=True)
class LinearDynamics:
    """One objective on F independent features; build it with `linear_dynamics`."""

    objective: Objective  # jepa: the target is the encoder's own output on y; mae: y itself
    depth: int  # L, linear layers of the encoder
    covariance: Float[np.ndarray, "F"]  # lambda_i = E[x_i y_i]
    regression: Float[np.ndarray, "F"]  # rho_i = lambda_i / E[x_i²]
    epsilon: Float[np.ndarray, "F"]  # gain w_i at time 0

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(
                f"depth {self.depth} must be at least 1: the encoder needs a layer to learn."
            )
        for name, meaning in (
            ("covariance", "lambda: x must tell something of y, and a sign can be flipped in x"),
            ("regression", "rho: it is the value that V ends at, and a balanced V is positive"),
            ("epsilon", "the initial gain: at zero every gradient vanishes"),
        ):
            values = getattr(self, name)
            wrong = values[~(np.isfinite(values) & (values > 0))]
            if wrong.size:
                raise ValueError(f"{name} {wrong[0]} must be finite and above 0 ({meaning}).")
        end = fixed_point(self.objective, self.depth, self.regression)
        above = self.epsilon >= end
        if above.any():
            raise ValueError(
                f"epsilon {self.epsilon[above][0]:.3g} must be below the fixed point "
                f"{end[above][0]:.3g} of its feature (rho {self.regression[above][0]:.3g}, depth "
                f"{self.depth}): above it a feature decays instead of being learned."
            )


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
    check_objective(objective)
    arrays = (np.atleast_1d(np.asarray(a, float)) for a in (covariance, regression, epsilon))
    covariance, regression, epsilon = (a.copy() for a in np.broadcast_arrays(*arrays))
    return LinearDynamics(objective, depth, covariance, regression, epsilon)


def fixed_point(
    objective: Objective, depth: int, regression: Float[np.ndarray, "F"]
) -> Float[np.ndarray, "F"]:
    """Where the gain ends: rho^L for JEPA, rho^(L / (L + 1)) for MAE.

    Both are the same regression: V = rho in JEPA, V w = rho in MAE.
    """
    return regression ** (depth if objective == "jepa" else depth / (depth + 1))


def log_growth(dynamics: LinearDynamics, gain: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """d ln w / dt = lambda (u^k - u^(2L) / rho), u = w^(1/L), k = 2L - 1 (JEPA) or L - 1 (MAE)."""
    layer = gain ** (1 / dynamics.depth)  # each of the L layers, and V
    rest = layer ** (2 * dynamics.depth) / dynamics.regression
    return dynamics.covariance * (layer ** _power(dynamics) - rest)


def trajectories(
    dynamics: LinearDynamics, times: Float[np.ndarray, "T"]
) -> Float[np.ndarray, "T F"]:
    """The gains at the given times, by a stiff solver in log w.

    A gain waits far longer than its growth then takes, and rests while others still wait: LSODA
    changes between explicit and implicit methods. It gets the exact Jacobian, which is diagonal:
    with a differenced one it took a hundred times as many steps.

    Raises:
        ValueError: times that do not increase, or begin before 0; an epsilon so small that growth
            is a jump at the resolution of time, where only critical times have a meaning.
        RuntimeError: the solver gave up; its reason follows.
    """
    if len(times) == 0 or times[0] < 0 or (np.diff(times) <= 0).any():
        raise ValueError("times must be a list of increasing numbers from 0 on.")
    half = fixed_point(dynamics.objective, dynamics.depth, dynamics.regression) / 2
    jumps = log_growth(dynamics, half) > RESOLVED * log_growth(dynamics, dynamics.epsilon)
    if jumps.any():
        raise ValueError(
            f"epsilon {dynamics.epsilon[jumps][0]:.3g} is too small for a trajectory at depth "
            f"{dynamics.depth}: the feature grows within less than 1 / {RESOLVED:.0e} of the time "
            "that it waits; use critical_time, or a larger epsilon."
        )
    start = np.log(dynamics.epsilon)
    if times[-1] == 0:
        return np.exp(start)[None]
    solved = solve_ivp(
        lambda _, log_gain: log_growth(dynamics, np.exp(log_gain)),
        (0.0, times[-1]),
        start,
        method="LSODA",
        t_eval=times,
        rtol=TOLERANCE,
        atol=TOLERANCE,
        jac=lambda _, log_gain: np.diag(_growth_slope(dynamics, np.exp(log_gain))),
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


def _power(dynamics: LinearDynamics) -> int:
    return (2 if dynamics.objective == "jepa" else 1) * dynamics.depth - 1


def _growth_slope(dynamics: LinearDynamics, gain: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """The derivative of `log_growth` in ln w."""
    depth, power = dynamics.depth, _power(dynamics)
    layer = gain ** (1 / depth)
    rest = 2 * depth * layer ** (2 * depth) / dynamics.regression
    return dynamics.covariance / depth * (power * layer**power - rest)


def check_objective(objective: str) -> None:
    """Refuses a name that is no objective."""
    if objective not in get_args(Objective):
        options = " or ".join(get_args(Objective))
        raise ValueError(f"objective {objective!r} is unknown; choose {options}.")
