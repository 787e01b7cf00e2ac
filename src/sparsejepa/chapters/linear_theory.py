"""The chapter on linear theory: its networks, its figures, and planted features in transformers.

Part 5 takes the theory to small transformers, on images with a planted signal and a planted
nuisance. Each patch p of image i gets a_s c_ip of one fixed texture and a_n c'_ip of another, both
orthogonal and of unit norm. A coefficient is shared by the patches of an image in part,

    c_ip = sqrt(kappa) g_i + sqrt(1 - kappa) h_ip, g and h independent standard normal,

so that, between two patches of an image, it has the theory's lambda = a² kappa and rho = kappa. The
signal has high kappa, the nuisance low kappa and a variance a² so much larger that their lambdas
are equal: a high-variance feature of low predictability.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.scale import SymmetricalLogScale
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor, nn

from sparsejepa.data.batches import channel_statistics, to_unit
from sparsejepa.data.image_set import ImageSet
from sparsejepa.intervals import Interval, seed_interval
from sparsejepa.model.jepa import patch_pixels
from sparsejepa.model.masks import MaskConfig, sample_masks
from sparsejepa.model.vit import (
    Encoder,
    EncoderConfig,
    Predictor,
    PredictorConfig,
    gather_tokens,
    initialise,
)
from sparsejepa.plots import method_color
from sparsejepa.randomness import generator
from sparsejepa.theory.linear_dynamics import (
    LinearDynamics,
    Objective,
    critical_time,
    crossing_times,
    fixed_point,
    linear_dynamics,
    order_ratio,
    trajectories,
)
from sparsejepa.theory.linear_features import (
    diagonal_features,
    generalised_features,
    learned_values,
    model_of,
    sample,
    turned_moments,
)
from sparsejepa.theory.linear_networks import (
    Descent,
    Moments,
    Start,
    feature_gains,
    gradient_descent,
    initial_network,
    minibatches,
)

NAMES = {"jepa": "JEPA", "mae": "MAE"}
# Small enough that a measured time is within 2 % of the exact one.
STEP_SIZES = {"jepa": 0.1, "mae": 0.02}
# Ratios of lambda at which the map of inversion draws its contours.
CONTOURS = (1.01, 1.05, 1.2, 1.5, 2.0, 3.0)
PATCH = 4  # pixels along a side
LEADING = 8  # principal components of the tokens
MEASURES = {
    "decoded": "R², all features",
    "leading": "R², 8 leading PCs",
    "share": "share of variance",
}

# Parts 1 to 4: the networks of the theory.


def descend(
    dynamics: LinearDynamics,
    horizon: float,
    seed: int,
    step_size: float | None = None,
    start: Start = "aligned",
) -> Descent:
    """Gradient descent on one network with all the features, up to time `horizon`."""
    draws = generator(seed, "start", dynamics.objective, start)
    lam, rho = map(torch.from_numpy, (dynamics.covariance, dynamics.regression))
    moments = Moments((lam / rho).diag(), lam.diag())
    return _descend(dynamics, moments, horizon, draws, step_size, start)


def gains_of(descent: Descent, count: int | None = None) -> Float[np.ndarray, "T F"]:
    """Gains of the first `count` features, or of all, where each is an axis of its own."""
    axes = torch.eye(descent.encoders.shape[-1], dtype=torch.float64)
    return feature_gains(descent.encoders, axes).numpy()[:, :count]


def measured_times(
    dynamics: LinearDynamics, seed: int, step_size: float | None = None
) -> Float[np.ndarray, "F"]:
    """Half-way times by gradient descent: in one network, or one each where starts differ."""
    if np.ptp(dynamics.epsilon) > 0:
        each = zip(dynamics.covariance, dynamics.regression, dynamics.epsilon, strict=True)
        alone = (linear_dynamics(dynamics.objective, dynamics.depth, *one) for one in each)
        return np.concatenate([measured_times(one, seed, step_size) for one in alone])
    descent = descend(dynamics, 1.05 * critical_time(dynamics, 0.5).max(), seed, step_size)
    level = 0.5 * fixed_point(dynamics.objective, dynamics.depth, dynamics.regression)
    return crossing_times(descent.times.numpy(), gains_of(descent), level)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """d ln y / d ln x, by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def lead_overcome(
    objective: Objective,
    layers: int,
    layer: Float[np.ndarray, "X"],
    share: Float[np.ndarray, "Y"],
    rho: float,
) -> Float[np.ndarray, "Y X"]:
    """g = t_A / t_B at equal lambda over epsilon^(1/L) and rho_A / rho_B, with rho_B = `rho`.

    NaN where A begins beyond half of its fixed point.
    """
    x, y = np.meshgrid(layer, share)
    begins = x < (0.5 * fixed_point(objective, layers, y * rho)) ** (1 / layers)
    pairs = np.stack([y[begins] * rho, np.full(begins.sum(), rho)], axis=1).ravel()
    epsilon = np.repeat(x[begins], 2) ** layers
    values = np.full(x.shape, np.nan)
    values[begins] = order_ratio(linear_dynamics(objective, layers, 1.0, pairs, epsilon), 0.5)
    return values


def coupled_times(
    dynamics: LinearDynamics, degrees: float, seed: int
) -> dict[str, Float[np.ndarray, "2"]]:
    """Half-way times of two features whose E[x x^T] is turned: measured, and by two readings."""
    objective, depth = dynamics.objective, dynamics.depth
    lam, rho = map(torch.from_numpy, (dynamics.covariance, dynamics.regression))
    moments = turned_moments(lam, rho, degrees)
    pair, found = generalised_features(moments), {}
    for name, read in (("generalised pairs", pair), ("diagonal", diagonal_features(moments))):
        values = (read.covariance.numpy(), read.regression.numpy(), dynamics.epsilon)
        found[name] = critical_time(linear_dynamics(objective, depth, *values), 0.5)
    horizon = 1.3 * max(times.max() for times in found.values())
    descent = _descend(dynamics, moments, horizon, generator(seed, "coupled"))
    values = learned_values(objective, descent, moments, pair).clamp(min=1e-12)
    # Half of the gain is this share of V (JEPA), or of V W (MAE).
    level = 0.5 ** ((1 if objective == "jepa" else depth + 1) / depth) * pair.regression
    measured = crossing_times(descent.times.numpy(), values.numpy(), level.numpy())
    return {"measured": measured} | found


def noisy_pairs(
    covariance: Sequence[float], regression: Sequence[float], noise_inputs: int, seed: int
) -> tuple[Moments, tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]]]:
    """Static-model features among inputs of pure noise: their moments, and 20,000 samples."""
    lam, rho = (torch.tensor(values, dtype=torch.float64) for values in (covariance, regression))
    noise = torch.zeros(noise_inputs, dtype=torch.float64)
    moments = Moments(torch.cat([lam / rho, noise + 1]).diag(), torch.cat([lam, noise]).diag())
    x, y = sample(model_of(lam.numpy(), rho.numpy()), 20_000, generator(seed, "samples"))
    shape, draws = (2, len(x), noise_inputs), generator(seed, "noise inputs")
    inputs = torch.randn(shape, generator=draws, dtype=torch.float64)
    return moments, (torch.cat([x, inputs[0]], dim=1), torch.cat([y, inputs[1]], dim=1))


def descend_from(
    start: Start,
    dynamics: LinearDynamics,
    data: Moments | tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]],
    horizon: float,
    step_size: float,
    seed: int,
    repeat: int,
) -> Descent:
    """Features among noise, on moments or on minibatches of 64 samples, from one kind of start."""
    dimension = (data.xx if isinstance(data, Moments) else data[0]).shape[1]
    if not isinstance(data, Moments):
        data = minibatches(*data, 64, generator(seed, "batches", repeat))
    draws = generator(seed, "repeat", repeat, start)
    return _descend(dynamics, data, horizon, draws, step_size, start, dimension, records=300)


def _descend(
    dynamics: LinearDynamics,
    moments: Moments | Callable[[], Moments],
    horizon: float,
    draws: torch.Generator,
    step_size: float | None = None,
    start: Start = "aligned",
    dimension: int | None = None,
    records: int = 2000,
) -> Descent:
    step_size = step_size or STEP_SIZES[dynamics.objective]
    dimension = dimension or len(dynamics.covariance)
    epsilon = float(dynamics.epsilon[0])
    network = initial_network(dynamics.objective, start, dimension, dynamics.depth, epsilon, draws)
    steps = int(horizon / dynamics.depth / step_size)
    every = max(1, steps // records)
    return gradient_descent(
        dynamics.objective, network, moments, step_size=step_size, steps=steps, every=every
    )


# Figures.


@dataclass(frozen=True)
class Line:
    """One curve or row of points of a panel."""

    x: Sequence[float]
    y: Sequence[float]
    color: object
    label: str | None = None
    style: str = "-"  # of matplotlib; "o": points
    width: float = 1.6


def shades(objective: Objective, count: int) -> list:
    """From light, but still to be seen, to the colour of the objective itself."""
    palette = sns.light_palette(method_color(objective), as_cmap=True)
    return [palette(share) for share in np.linspace(0.45, 1, count)]


def line_panels(
    panels: Mapping[str, Sequence[Line]],
    xlabel: str,
    ylabel: str,
    *,
    columns: int,
    size: tuple[float, float] = (2.9, 2.4),
    share: bool | str = False,
    **scales: object,
) -> Figure:
    """A panel a title, in raster order; `scales` are settings of every axis."""
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False,
        sharey=share, layout="constrained",
    )  # fmt: skip
    for axis, (title, lines) in zip(axes.flat, panels.items(), strict=True):
        for line in lines:
            axis.plot(line.x, line.y, line.style, color=line.color, label=line.label or None,
                      lw=line.width, mec="white" if line.style == "o" else None)  # fmt: skip
        axis.set(**scales)
        axis.set_title(title, fontsize=9)
        axis.legend(frameon=False, fontsize=7, handlelength=1.2)
        for side in (axis.xaxis, axis.yaxis):
            _log_ticks(side)
        axis.grid(alpha=0.3)
        sns.despine(ax=axis)
    for axis in axes[-1]:
        axis.set_xlabel(xlabel)
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    return figure


def learning_curves(dynamics: LinearDynamics) -> tuple[list[Line], Float[np.ndarray, "F"]]:
    """Solved trajectories with their exact half-way times as points, and these times."""
    critical = critical_time(dynamics, 0.5)
    times = np.geomspace(critical.min() / 8, 1.5 * critical_time(dynamics, 0.99).max(), 400)
    end = fixed_point(dynamics.objective, dynamics.depth, dynamics.regression)
    learned, lines = trajectories(dynamics, times) / end, []
    for index, color in enumerate(shades(dynamics.objective, len(end))):
        label = f"λ {dynamics.covariance[index]:g}, ρ {dynamics.regression[index]:g}"
        lines.append(Line(times, learned[:, index], color, label))
        lines.append(Line(critical[index : index + 1], [0.5], color, style="o"))
    return lines, critical


def gain_lines(descents: Sequence[Descent], dynamics: LinearDynamics, horizon: float) -> list[Line]:
    """Gains of single runs (thin), and over them the solved equation (black, dashed)."""
    lines = []
    for index, descent in enumerate(descents):
        gains = gains_of(descent, len(dynamics.regression))
        for feature, color in enumerate(shades(dynamics.objective, gains.shape[1])):
            label = None if index else f"ρ {dynamics.regression[feature]:g}"
            lines.append(Line(descent.times.numpy(), gains[:, feature], color, label, width=1))
    times = np.linspace(0, horizon, 300)
    solved = trajectories(dynamics, times).T
    return lines + [Line(times, gains, "black", style="--", width=0.9) for gains in solved]


def inversion_map(
    ratios: Mapping[tuple[str, int], Float[np.ndarray, "Y X"]],
    layer: Float[np.ndarray, "X"],
    share: Float[np.ndarray, "Y"],
) -> Figure:
    """t_A / t_B at equal lambda, a row a depth and a column an objective.

    The lead in lambda that is overcome, over epsilon^(1/L) and rho_A / rho_B; grey where A begins
    beyond its level.
    """
    columns, rows = (list(dict.fromkeys(key[i] for key in ratios)) for i in (0, 1))
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(2.9 * len(columns) + 0.8, 2.2 * len(rows)),
        squeeze=False, sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    shading = None
    for (objective, depth), values in ratios.items():
        axis = axes[rows.index(depth), columns.index(objective)]
        shading = axis.pcolormesh(
            layer, share, np.log(values), cmap="vlag", vmin=-np.log(4), vmax=np.log(4),
            shading="nearest", rasterized=True,
        )  # fmt: skip
        axis.set(xscale="log", facecolor="0.75")
        axis.set_title(f"{NAMES[objective]}, L = {depth}", fontsize=9)
        # Beyond the ridge, where g falls steeply, contours lie too close to be drawn or labelled.
        ridge = np.nanargmax(values, axis=1, keepdims=True)
        rising = np.where(np.arange(len(layer)) <= ridge, values, np.nan)
        drawn = axis.contour(layer, share, rising, CONTOURS, colors="black", linewidths=0.7)
        axis.clabel(drawn, fmt="%g", fontsize=6)
    for axis in axes[-1]:
        axis.set_xlabel(r"$\epsilon^{1/L}$")
    for axis in axes[:, 0]:
        axis.set_ylabel(r"$\rho_A / \rho_B$")
    ticks = np.array([0.25, 0.5, 1, 2, 4])
    bar = figure.colorbar(shading, ax=axes, ticks=np.log(ticks), shrink=0.8, extend="max")
    bar.set_ticklabels([f"{tick:g}" for tick in ticks])
    bar.set_label(r"lead $\lambda_A / \lambda_B$ that is overcome")
    return figure


def _log_ticks(axis: Axis) -> None:
    """Few labels on a logarithmic axis, so that they do not run together in a narrow panel."""
    if axis.get_scale() != "log":
        return
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high < 10 * low else (1, 3) if high < 50 * low else (1,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=5))
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float, _: int) -> str:
    power = int(np.floor(np.log10(value) + 1e-9))
    if -4 < power < 4:
        return f"{value:g}"
    digits = round(value / 10.0**power)
    return f"$10^{{{power}}}$" if digits == 1 else rf"${digits}\cdot10^{{{power}}}$"


# Part 5: planted features.


# Measure, feature and objective -> seeds in rows, checkpoints in columns.
Found = dict[tuple[str, str, str], Float[np.ndarray, "S C"]]


def planted_study(
    sets: Sequence[ImageSet],
    config: "Plant",
    training: "TrainingConfig",
    checkpoints: Sequence[int],
    seeds: int,
    seed: int,
) -> Found:
    """Trains both objectives on the first set with each seed, and reads their tokens of the second.

    Every second seed has the textures exchanged: which is which must not matter.
    """
    keys = [(m, f, o) for m in MEASURES for f in ("signal", "nuisance") for o in NAMES]
    found = {key: np.zeros((seeds, len(checkpoints))) for key in keys}
    for repeat in range(seeds):
        own = dataclasses.replace(config, swapped=bool(repeat % 2))
        planted = [plant(s.images, own, generator(seed + repeat, "plant", s.split)) for s in sets]
        for objective in NAMES:
            encoders = train(objective, planted[0].images, training, checkpoints, seed + repeat)
            for column, step in enumerate(checkpoints):
                for feature, measures in decodability(encoders[step], planted[1]).items():
                    for measure, value in measures.items():
                        found[measure, feature, objective][repeat, column] = value
    return found


def balance_factors(found: Found) -> dict[str, Interval]:
    """By how much training moves the log of the signal's over the nuisance's share.

    Of each objective, and `difference`, JEPA's over MAE's; intervals over seeds.
    """
    gain = {}
    for objective in NAMES:
        ratio = np.log(found["share", "signal", objective] / found["share", "nuisance", objective])
        gain[objective] = ratio[:, -1] - ratio[:, 0]
    gain["difference"] = gain["jepa"] - gain["mae"]
    return {name: seed_interval(values) for name, values in gain.items()}


def planted_figure(found: Found, steps: Sequence[int]) -> Figure:
    """A row a measure, a column a feature; thin lines are seeds, thick ones their mean."""
    panels = {}
    for (measure, feature, objective), values in found.items():
        color = method_color(objective)
        panels.setdefault(f"{feature}: {MEASURES[measure]}", []).extend(
            [
                *(Line(steps, row, color, width=0.6) for row in values),
                Line(steps, values.mean(0), color, NAMES[objective], ".-", 2),
            ]
        )
    return line_panels(
        panels, "training steps (0: untrained)", "", columns=2, size=(3.6, 2.3), share="row",
        xscale=SymmetricalLogScale(None, linthresh=max(1, sorted(steps)[1])),
    )  # fmt: skip


@dataclass(frozen=True)
class Plant:
    """How strong and how predictable the planted features are."""

    covariance: float = 4.0  # lambda of both, in variances of a standardised pixel
    signal_share: float = 0.9  # kappa = rho of the signal
    nuisance_share: float = 0.1  # kappa = rho of the nuisance
    swapped: bool = False  # exchanges the two textures: a control


@dataclass(frozen=True)
class PlantedImages:
    """Standardised images with both textures, and the coefficients in them."""

    images: Float[Tensor, "N 3 H W"]  # channels of mean 0 and variance 1 before planting
    coefficients: dict[str, Float[Tensor, "N P"]]  # signal, nuisance: c_ip, of variance 1


@dataclass(frozen=True)
class TrainingConfig:
    """A run small enough for a figure."""

    steps: int = 300  # of the optimiser
    batch_size: int = 64  # images a step
    width: int = 64  # channels of an encoder token
    depth: int = 3  # encoder blocks
    learning_rate: float = 1e-3  # peak, of AdamW
    first_ema: float = 0.97  # JEPA: momentum of the target at the first step; 1 at the last


def textures(swapped: bool) -> Float[Tensor, "2 3 4 4"]:
    """Signal's and nuisance's: rows or columns of alternating sign, grey, of unit norm."""
    sign = torch.tensor([1.0, -1.0]).repeat(PATCH // 2)
    rows = sign[:, None].expand(3, PATCH, PATCH)
    pair = torch.stack([rows, rows.mT]) / (3 * PATCH * PATCH) ** 0.5
    return pair.flip(0) if swapped else pair


def plant(
    images: UInt8[Tensor, "N H W 3"], config: Plant, generator: torch.Generator
) -> PlantedImages:
    """Standardises images by their own channel statistics and adds both textures."""
    count, height, width = images.shape[:3]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in channel_statistics(images))
    planted = (to_unit(images) - mean) / std
    grid = (height // PATCH, width // PATCH)
    coefficients = {}
    shares = {"signal": config.signal_share, "nuisance": config.nuisance_share}
    for (name, share), texture in zip(shares.items(), textures(config.swapped), strict=True):
        common = torch.randn(count, 1, 1, generator=generator)
        own = torch.randn(count, *grid, generator=generator)
        values = share**0.5 * common + (1 - share) ** 0.5 * own
        amplitude = (config.covariance / share) ** 0.5
        # A texture tiles the image; each patch of it is scaled by its coefficient.
        planted += amplitude * _enlarge(values)[:, None] * texture.repeat(1, *grid)
        coefficients[name] = values.flatten(1)
    return PlantedImages(planted, coefficients)


def train(
    objective: Objective,
    train_images: Float[Tensor, "N 3 H W"],
    config: TrainingConfig,
    checkpoints: Sequence[int],
    seed: int,
) -> dict[int, Encoder]:
    """Encoders after the given numbers of steps; 0 is the untrained one, the same for both.

    Both objectives have the same encoder, predictor, masks and optimiser and see the same batches.
    They differ in the target: JEPA's is the layer-normalised feature of a moving average of the
    encoder, under smooth L1; MAE's the pixels of the patch, under squared error.
    """
    grid = train_images.shape[-1] // PATCH
    shape = EncoderConfig(
        train_images.shape[-1], PATCH, config.width, config.depth, 4, (0.0,) * 3, (1.0,) * 3
    )
    encoder = Encoder(shape, generator(seed, "initial encoder"))
    predictor = _predictor(shape, objective, seed)
    target_encoder = copy.deepcopy(encoder).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        [p for m in (encoder, predictor) for p in m.parameters() if p.requires_grad],
        lr=config.learning_rate,
        weight_decay=0.05,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, config.steps, pct_start=0.1, cycle_momentum=False
    )
    mask_config = MaskConfig(grid=grid)
    kept = {0: copy.deepcopy(encoder)} if 0 in checkpoints else {}
    for step in range(1, config.steps + 1):
        draws = generator(seed, "step", step)
        rows = torch.randint(len(train_images), (config.batch_size,), generator=draws)
        images, masks = train_images[rows], sample_masks(mask_config, config.batch_size, draws)
        with torch.no_grad():
            whole = patch_pixels(images, PATCH) if objective == "mae" else target_encoder(images)
            if objective == "jepa":
                whole = F.layer_norm(whole, whole.shape[-1:])
            blocks, length = masks.targets.shape[1:]
            target = gather_tokens(whole, masks.targets.flatten(1))
            target = target.unflatten(1, (blocks, length))
        predicted = predictor(encoder(images, masks.context), masks.context, masks.targets)
        distance = F.mse_loss if objective == "mae" else F.smooth_l1_loss
        optimiser.zero_grad()
        distance(predicted, target).backward()
        optimiser.step()
        schedule.step()
        momentum = config.first_ema + (1 - config.first_ema) * step / config.steps
        with torch.no_grad():
            torch._foreach_lerp_(
                list(target_encoder.parameters()), list(encoder.parameters()), 1 - momentum
            )
        if step in checkpoints:
            kept[step] = copy.deepcopy(encoder)
    return kept


@torch.no_grad()
def decodability(encoder: Encoder, planted: PlantedImages) -> dict[str, dict[str, float]]:
    """How well, and how prominently, an encoder's tokens hold each planted coefficient.

    A token of a whole image is asked for the coefficient of its own patch. decoded: R² of a linear
    readout, fitted on the first half of the images and scored on the second; leading: the same
    from the `LEADING` principal components of the tokens alone; share: the fraction of all the
    tokens' variance that the coefficient explains linearly. In the linear theory nothing but the
    last two could change: a gain is small at first, never zero, and decodable without noise.
    """
    tokens = torch.cat([encoder(batch) for batch in planted.images.split(256)]).double()
    half = len(tokens) // 2
    fit, score = tokens[:half].flatten(0, 1), tokens[half:].flatten(0, 1)
    centred = fit - fit.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -LEADING:]
    found = {}
    for name, values in planted.coefficients.items():
        fit_y, score_y = (part.flatten() for part in values.double().tensor_split([half]))
        found[name] = {
            "decoded": readout_score(fit, fit_y, score, score_y),
            "leading": readout_score(fit @ axes, fit_y, score @ axes, score_y),
            "share": explained_share(tokens.flatten(0, 1), values.double().flatten()),
        }
    return found


def readout_score(
    train_x: Float[Tensor, "N d"],
    train_y: Float[Tensor, "N"],
    test_x: Float[Tensor, "M d"],
    test_y: Float[Tensor, "M"],
) -> float:
    """R² on the test rows of a least-squares readout with a slight ridge, in float64."""
    mean, level = train_x.mean(0), train_y.mean()
    centred = train_x - mean
    gram = centred.T @ centred
    # Tokens after a LayerNorm are linearly dependent: the ridge keeps the Gram matrix definite.
    gram += 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    moment = (centred.T @ (train_y - level))[:, None]
    weights = torch.cholesky_solve(moment, torch.linalg.cholesky(gram))[:, 0]
    left = (test_y - level - (test_x - mean) @ weights).square().sum()
    return 1 - (left / (test_y - test_y.mean()).square().sum()).item()


def explained_share(x: Float[Tensor, "N d"], y: Float[Tensor, "N"]) -> float:
    """sum_k Cov(x_k, y)² / Var(y), over sum_k Var(x_k)."""
    x, y = x - x.mean(0), y - y.mean()
    return ((y @ x).square().sum() / y.square().sum() / x.square().sum()).item()


def _predictor(shape: EncoderConfig, objective: Objective, seed: int) -> Predictor:
    width = shape.width // 2
    with torch.random.fork_rng(devices=[]):
        projection = nn.Linear(shape.width, width)
    draws = generator(seed, "initial predictor")
    initialise(projection, draws)
    outputs = shape.width if objective == "jepa" else 3 * PATCH * PATCH
    return Predictor(PredictorConfig(width, 2, 2), shape, projection, draws, outputs)


def _enlarge(values: Float[Tensor, "N h w"]) -> Float[Tensor, "N H W"]:
    return values.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
