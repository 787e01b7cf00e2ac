"""Critical times: how long a deep linear network takes to learn a feature (2407.03475, Thm 4.5).

With u = w^(1/L), the value of each layer, the equations of `linear_dynamics` become

    JEPA: dt = (L / lambda) du / (u^(2L) (1 - u / rho)),
    MAE:  dt = (L / lambda) du / (u^L (1 - u^(L+1) / rho)),

integrated from epsilon^(1/L) to the layer's value at a fraction p of the fixed point. There is the
integral by quadrature, in closed form, and, for JEPA, the paper's series for small epsilon.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.integrate import quad
from scipy.special import hyp2f1

from sparsejepa.theory.linear_dynamics import LinearDynamics, Objective, fixed_point

# epsilon^(1/L) over the layer's fixed point. At this share, for half of the fixed point, the series
# of JEPA is 2 % off at depth 1 and 0.1 % or less from depth 2 on; the single term of MAE, which
# drops Theta(1), is 13 % off at depth 2 and 1 % at depth 3, and at depth 1 a mere order of size.
SERIES_SHARE = 0.1


def critical_time(dynamics: LinearDynamics, fraction: float) -> Float[np.ndarray, "F"]:
    """Time from epsilon to `fraction` of the fixed point, by quadrature, relative error 1e-10.

    Integrated over z = logit(u / u*), u* the layer's fixed point: the integrand is then smooth and
    bounded at both ends.

    Raises:
        ValueError: a fraction outside 0 to 1, or a feature that begins beyond it.
    """
    first, last = _layer_range(dynamics, fraction)
    end = fixed_layer(dynamics)
    depth = dynamics.depth
    times = np.empty_like(end)
    for feature, (top, low, high) in enumerate(zip(end, first, last, strict=True)):
        # In units of the integrand at its start, which may be 1e100.
        def integrand(z: float, top: float = top, low: float = low) -> float:
            share = 1 / (1 + np.exp(-z))
            relative = top * share / low
            if dynamics.objective == "jepa":
                return relative ** (1 - 2 * depth)
            return relative ** (1 - depth) * (1 - share) / (1 - share ** (depth + 1))

        value, _ = quad(
            integrand,
            *(np.log(u / (top - u)) for u in (low, high)),
            epsabs=0,
            epsrel=1e-11,
            limit=400,
        )
        times[feature] = value * low ** (1 - (2 if dynamics.objective == "jepa" else 1) * depth)
    return depth / dynamics.covariance * times


def critical_time_closed_form(dynamics: LinearDynamics, fraction: float) -> Float[np.ndarray, "F"]:
    """The same integral without quadrature [derived here].

    JEPA, by partial fractions, with u_0 and u_1 the ends:
        (L / lambda) { sum_{n=1}^{2L-1} (u_0^-n - u_1^-n) / (n rho^(2L-1-n))
                       + rho^(1-2L) ln[ u_1 (1 - u_0 / rho) / (u_0 (1 - u_1 / rho)) ] }.
    MAE, from 1 / (u^L (1 - u^(L+1) / rho)) = u^-L + (u / rho) / (1 - u^(L+1) / rho):
        (L / lambda) { (u_0^(1-L) - u_1^(1-L)) / (L - 1) + (G(u_1) - G(u_0)) / rho },
        G(u) = (u² / 2) 2F1(1, 2/(L+1); 1 + 2/(L+1); u^(L+1) / rho),
    where the first fraction is ln(u_1 / u_0) for L = 1. G is elementary: -(rho/2) ln(1 - u²/rho)
    for L = 1, (sqrt(rho) / 2) artanh(u² / sqrt(rho)) for L = 3.

    Raises:
        ValueError: as `critical_time`.
    """
    first, last = _layer_range(dynamics, fraction)
    depth, rho = dynamics.depth, dynamics.regression
    if dynamics.objective == "jepa":
        total = rho ** (1.0 - 2 * depth) * (
            np.log(last / first) + np.log1p(-first / rho) - np.log1p(-last / rho)
        )
        for n in range(1, 2 * depth):
            total += rho ** (n + 1.0 - 2 * depth) * (first**-n - last**-n) / n
    else:
        if depth == 1:
            total = np.log(last / first)
        else:
            total = (first ** (1.0 - depth) - last ** (1.0 - depth)) / (depth - 1)
        total = total + (_remainder(last, depth, rho) - _remainder(first, depth, rho)) / rho
    return depth / dynamics.covariance * total


def series_terms(dynamics: LinearDynamics) -> Float[np.ndarray, "N F"]:
    """The terms of the paper's series for small epsilon, the largest first.

    JEPA: L / (lambda n rho^(2L-n-1) epsilon^(n/L)) for n = 2L-1 down to 1, Theta(log 1/epsilon)
    dropped. The first of them knows nothing of rho. MAE: (L / (L-1)) / (lambda
    epsilon^((L-1)/L)), Theta(1) dropped, and log(1/epsilon) / lambda for L = 1. Nothing is checked
    here: see `series_is_valid`.
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


def critical_time_series(dynamics: LinearDynamics) -> Float[np.ndarray, "F"]:
    """The sum of `series_terms`. It does not depend on the fraction of the fixed point.

    Raises:
        ValueError: an epsilon for which the series means nothing.
    """
    outside = ~series_is_valid(dynamics)
    if outside.any():
        bound = (SERIES_SHARE * fixed_layer(dynamics)[outside][0]) ** dynamics.depth
        raise ValueError(
            f"epsilon {dynamics.epsilon[outside][0]:.3g} is too large for the series, which needs "
            f"epsilon^(1/L) far below the layer's fixed point: choose at most {bound:.3g}, or use "
            "critical_time."
        )
    return series_terms(dynamics).sum(0)


def fixed_layer(dynamics: LinearDynamics) -> Float[np.ndarray, "F"]:
    """u*, the value of each layer at the fixed point: rho for JEPA, rho^(1/(L+1)) for MAE."""
    end = fixed_point(dynamics.objective, dynamics.depth, dynamics.regression)
    return end ** (1 / dynamics.depth)


def order_ratio(dynamics: LinearDynamics, fraction: float) -> Float[np.ndarray, "P"]:
    """t_A / t_B of features given in pairs A, B, A, B, …: above 1, B is learned first.

    Raises:
        ValueError: an odd number of features, or as `critical_time`.
    """
    if len(dynamics.covariance) % 2:
        raise ValueError(f"{len(dynamics.covariance)} features do not come in pairs.")
    times = critical_time_closed_form(dynamics, fraction)
    return times[0::2] / times[1::2]


def limit_slopes(objective: Objective, depth: int) -> dict[str, float]:
    """d ln t / d ln(epsilon, lambda, rho) as epsilon -> 0, from the leading terms of the series."""
    power = (2 * depth - 1) / depth if objective == "jepa" else (depth - 1) / depth
    return {"epsilon": -power, "covariance": -1.0, "regression": 0.0}


def _layer_range(
    dynamics: LinearDynamics, fraction: float
) -> tuple[Float[np.ndarray, "F"], Float[np.ndarray, "F"]]:
    """The layer's value at the start and at `fraction` of the fixed point."""
    if not 0 < fraction < 1:
        raise ValueError(
            f"fraction {fraction} must lie between 0 and 1: the fixed point is never reached."
        )
    first = dynamics.epsilon ** (1 / dynamics.depth)
    last = fraction ** (1 / dynamics.depth) * fixed_layer(dynamics)
    if (first > last).any():
        raise ValueError(
            f"epsilon {dynamics.epsilon[first > last][0]:.3g} is beyond {fraction:g} of the fixed "
            "point already; choose a smaller epsilon or a larger fraction."
        )
    return first, last


def _remainder(
    layer: Float[np.ndarray, "F"], depth: int, rho: Float[np.ndarray, "F"]
) -> Float[np.ndarray, "F"]:
    """G(u) of `critical_time_closed_form`: the integral of v / (1 - v^(L+1) / rho) from 0 to u."""
    b = 2 / (depth + 1)
    return layer**2 / 2 * hyp2f1(1.0, b, 1 + b, layer ** (depth + 1) / rho)
