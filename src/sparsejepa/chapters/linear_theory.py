"""The chapter on linear theory: its networks, its figures, and planted features in transformers.

Part 5: each patch p of image i gets a_s c_ip of one fixed texture, the signal, and a_n c'_ip of
another, the nuisance, orthogonal and of unit norm. Patches share a part of their coefficients,

    c_ip = sqrt(kappa) g_i + sqrt(1 - kappa) h_ip, g and h independent standard normal,

so that two patches of an image have the theory's lambda = a² kappa and rho = kappa. The nuisance
has low kappa and a variance a² so much larger that both lambdas are equal.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Generator, Tensor

from sparsejepa.data.batches import Images, channel_statistics, to_unit
from sparsejepa.data.image_set import ImageSet
from sparsejepa.model.jepa import Jepa, ModelConfig
from sparsejepa.model.masks import MaskConfig, sample_masks
from sparsejepa.model.vit import Encoder, EncoderConfig, Predictor, PredictorConfig, initialise
from sparsejepa.plots import Line, method_color, panel_grid
from sparsejepa.randomness import generator
from sparsejepa.theory import linear_dynamics as theory
from sparsejepa.theory import linear_networks as networks
from sparsejepa.theory.linear_dynamics import LinearDynamics, Objective, PerFeature, linear_dynamics
from sparsejepa.theory.linear_networks import Data, Descent, FeatureModel, Moments, Start

# Values of epsilon^(1/L), and of rho_A / rho_B.
Layers, Shares = Float[np.ndarray, "X"], Float[np.ndarray, "Y"]
Pixels = Float[Tensor, "N 3 H W"]
Planted = Mapping[str, float]  # signal and nuisance, each with its kappa = rho
Coefficients = dict[str, Float[Tensor, "N P"]]  # of every image and patch, of variance 1
Rows, Values = Float[Tensor, "_ d"], Float[Tensor, "_"]

NAMES = {"jepa": "JEPA", "mae": "MAE"}
# Small enough that a measured time is within 2 % of the exact one.
STEP_SIZES = {"jepa": 0.1, "mae": 0.02}
PATCH = 4  # pixels along a side
_ROWS = torch.tensor([1.0, -1.0]).repeat(PATCH // 2)[:, None].expand(3, PATCH, PATCH)
# Of signal and nuisance [2, 3, 4, 4]: rows or columns of alternating sign, grey, of unit norm.
TEXTURES = torch.stack([_ROWS, _ROWS.mT]) / (3 * PATCH * PATCH) ** 0.5
LEADING = 8  # principal components of the tokens
# Of part 5: peak of AdamW, and JEPA's momentum of the target at the first step (1 at the last).
LEARNING_RATE, FIRST_EMA = 1e-3, 0.97
MEASURES = {
    "decoded": "R², all features",
    "leading": "R², 8 leading PCs",
    "share": "share of variance",
}


def descend(
    dynamics: LinearDynamics,
    horizon: float,
    seed: int,
    step_size: float | None = None,
    start: Start = "aligned",
    moments: Data | None = None,
    inputs: int | None = None,
    path: Sequence[int | str] = (),
    records: int = 2000,
) -> Descent:
    """Gradient descent on one network with all the features, up to time `horizon`.

    `moments` are of the `inputs`, if there are more than features, or of their minibatches; `path`
    is of the generator that draws the initial matrices; about `records` points in time are kept.
    """
    objective, depth, epsilon = dynamics.objective, dynamics.depth, float(dynamics.epsilon[0])
    lam, rho = map(torch.from_numpy, (dynamics.covariance, dynamics.regression))
    draws = generator(seed, *(path or ("start", objective, start)))
    network = networks.initial_network(objective, start, inputs or len(lam), depth, epsilon, draws)
    step_size = step_size or STEP_SIZES[objective]
    steps = int(horizon / depth / step_size)
    options = {"step_size": step_size, "steps": steps, "every": max(1, steps // records)}
    moments = moments or Moments((lam / rho).diag(), lam.diag())
    return networks.gradient_descent(objective, network, moments, **options)


def gains_of(descent: Descent, count: int | None = None) -> Float[np.ndarray, "T F"]:
    """Gains of the first `count` features, or of all, where each is an axis e: ||W e||."""
    return descent.encoders.norm(dim=1).numpy()[:, :count]


def measured_times(
    dynamics: LinearDynamics, seed: int, step_size: float | None = None
) -> PerFeature:
    """Half-way times by gradient descent: in one network, or one each where starts differ."""
    if np.ptp(dynamics.epsilon) > 0:
        each = zip(dynamics.covariance, dynamics.regression, dynamics.epsilon, strict=True)
        alone = (linear_dynamics(dynamics.objective, dynamics.depth, *one) for one in each)
        return np.concatenate([measured_times(one, seed, step_size) for one in alone])
    descent = descend(dynamics, 1.05 * theory.critical_time(dynamics, 0.5).max(), seed, step_size)
    return theory.crossing_times(descent.times.numpy(), gains_of(descent), 0.5 * dynamics.end)


def lead_overcome(
    objective: Objective, layers: int, layer: Layers, share: Shares, rho: float
) -> Float[np.ndarray, "Y X"]:
    """t_A / t_B at equal lambda, rho_B = `rho`; NaN where A begins beyond half its fixed point."""
    x, y = np.meshgrid(layer, share)
    begins = x < (0.5 * theory.fixed_point(objective, layers, y * rho)) ** (1 / layers)
    pairs = np.stack([y[begins] * rho, np.full(begins.sum(), rho)], axis=1).ravel()
    epsilon, values = np.repeat(x[begins], 2) ** layers, np.full(x.shape, np.nan)
    dynamics = linear_dynamics(objective, layers, 1.0, pairs, epsilon)
    values[begins] = theory.order_ratio(dynamics, 0.5)
    return values


def coupled_times(dynamics: LinearDynamics, degrees: float, seed: int) -> dict[str, PerFeature]:
    """Half-way times of two features whose E[x x^T] is turned: measured, and by two readings."""
    objective, depth = dynamics.objective, dynamics.depth
    lam, rho = map(torch.from_numpy, (dynamics.covariance, dynamics.regression))
    moments = networks.turned_moments(lam, rho, degrees)
    *pair, directions = networks.generalised_features(moments)
    readings = {"generalised pairs": pair, "diagonal": networks.diagonal_features(moments)}
    found = {}
    for name, read in readings.items():
        numbers = (*(one.numpy() for one in read), dynamics.epsilon)
        found[name] = theory.critical_time(linear_dynamics(objective, depth, *numbers), 0.5)
    horizon = 1.3 * max(times.max() for times in found.values())
    descent = descend(dynamics, horizon, seed, moments=moments, path=("coupled",))
    values = networks.learned_values(objective, descent, moments, directions).clamp(min=1e-12)
    # Half of the gain is this share of V (JEPA), or of V W (MAE).
    level = 0.5 ** ((1 if objective == "jepa" else depth + 1) / depth) * pair[1]
    measured = theory.crossing_times(descent.times.numpy(), values.numpy(), level.numpy())
    return {"measured": measured} | found


def noisy_pairs(
    covariance: Sequence[float], regression: Sequence[float], noise_inputs: int, seed: int
) -> tuple[Moments, Float[Tensor, "2 N d"]]:
    """Static-model features among inputs of pure noise: their moments, and 20,000 pairs x, y."""
    lam, rho, none = np.array(covariance), np.array(regression), np.zeros(noise_inputs)
    # Two looks at one z: its persistence is 1.
    model = FeatureModel(lam, lam * (1 / rho - 1), np.ones(len(lam)))
    pairs = model.sample(20_000, generator(seed, "samples"))
    draws, shape = generator(seed, "noise inputs"), (2, 20_000, noise_inputs)
    noise = torch.randn(shape, generator=draws, dtype=torch.float64)
    moments = (np.diag([*lam / rho, *none + 1]), np.diag([*lam, *none]))
    return Moments(*map(torch.from_numpy, moments)), torch.cat([torch.stack(pairs), noise], dim=2)


def shades(objective: Objective, count: int) -> list:
    """From light, but still to be seen, to the colour of the objective itself."""
    return sns.light_palette(method_color(objective), 2 * count)[-count:]


def learning_curves(dynamics: LinearDynamics) -> tuple[list[Line], PerFeature]:
    """Solved trajectories with their exact half-way times as points, and these times."""
    critical = theory.critical_time(dynamics, 0.5)
    times = np.geomspace(critical.min() / 8, 1.5 * theory.critical_time(dynamics, 0.99).max(), 400)
    learned, lines = theory.trajectories(dynamics, times) / dynamics.end, []
    for index, color in enumerate(shades(dynamics.objective, len(critical))):
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
    solved = theory.trajectories(dynamics, times).T
    return lines + [Line(times, gains, "black", style="--", width=0.9) for gains in solved]


def inversion_map(
    ratios: Mapping[str, Float[np.ndarray, "Y X"]], layer: Layers, share: Shares
) -> Figure:
    """The lead in lambda that is overcome, two panels a row; grey: A begins beyond its level."""
    figure, axes = panel_grid(len(ratios), (2.9, 2.2), 2, sharex=True, sharey=True)
    levels = [0.25, 0.5, 0.8, 0.95, 1, 1.05, 1.25, 2, 4]
    options = {"colors": sns.color_palette("vlag", len(levels) + 1), "extend": "both"}
    for axis, (title, values) in zip(axes, ratios.items(), strict=True):
        bands = axis.contourf(layer, share, values, levels, **options)
        axis.set(xscale="log", facecolor="0.75")
        axis.set_title(title, fontsize=9)
    figure.supxlabel(r"$\epsilon^{1/L}$")
    figure.supylabel(r"$\rho_A / \rho_B$")
    label = r"lead $\lambda_A / \lambda_B$ that is overcome"
    figure.colorbar(bands, ax=axes, ticks=levels, format="%g", shrink=0.8, label=label)
    return figure


def planted_study(
    sets: Sequence[ImageSet], planted: Planted, covariance: float, seeds: range, **training: Any
) -> dict[tuple[str, str, str], Float[np.ndarray, "S C"]]:
    """Measure, feature and objective -> `decodability` by seed and checkpoint.

    Of `sets`, the first trains encoders, the second is read. Every second seed has the textures
    exchanged: which is which must not matter.
    """
    found = {}
    for repeat, seed in enumerate(seeds):
        (known, _), asked = (
            plant(s.images, planted, covariance, generator(seed, "plant", s.split), repeat % 2 == 1)
            for s in sets
        )
        for objective in NAMES:
            for encoder in train(objective, known, seed, **training).values():
                for key, value in decodability(encoder, *asked).items():
                    found.setdefault((*key, objective), []).append(value)
    return {key: np.reshape(values, (len(seeds), -1)) for key, values in found.items()}


def plant(
    images: Images, planted: Planted, covariance: float, draws: Generator, swapped: bool = False
) -> tuple[Pixels, Coefficients]:
    """Standardised images with both textures, exchanged if `swapped`, and the coefficients in them.

    Covariance is lambda of both, in variances of a standardised pixel.
    """
    count, height, width = images.shape[:3]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in channel_statistics(images))
    pixels = (to_unit(images) - mean) / std
    grid = (height // PATCH, width // PATCH)
    textures, coefficients = TEXTURES.flip(0) if swapped else TEXTURES, {}
    for (name, share), texture in zip(planted.items(), textures, strict=True):
        common = torch.randn(count, 1, 1, generator=draws)
        own = torch.randn(count, *grid, generator=draws)
        values = share**0.5 * common + (1 - share) ** 0.5 * own
        amplitude = (covariance / share) ** 0.5
        # A texture tiles the image; each patch of it is scaled by its coefficient.
        enlarged = values.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
        pixels += amplitude * enlarged[:, None] * texture.repeat(1, *grid)
        coefficients[name] = values.flatten(1)
    return pixels, coefficients


def train(
    objective: Objective,
    data: Pixels,
    seed: int,
    steps: Sequence[int],
    batch_size: int,
    **sizes: int,
) -> dict[int, Encoder]:
    """Encoders after so many steps; 0 is the untrained one, the same for both. `sizes`: its own.

    The objectives differ in the target alone: JEPA's is the layer-normalised feature of a moving
    average of the encoder, under smooth L1; MAE's the pixels of the patch, under squared error.
    """
    side, last, unit = data.shape[-1], max(steps), {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    shape = EncoderConfig(side, PATCH, heads=4, **sizes, **unit)
    pixels = {"target": "pixels", "distance": "squared", "normalise_targets": False}
    options = pixels if objective == "mae" else {}
    jepa = Jepa(ModelConfig(shape, PredictorConfig(shape.width // 2, 2, 2), **options), seed)
    draws, projection = generator(seed, "initial predictor"), jepa.predictor.projection
    initialise(projection, draws)
    outputs = jepa.predictor.output.out_features
    jepa.predictor = Predictor(jepa.config.predictor, shape, projection, draws, outputs)
    encoder = jepa.context_encoder
    parameters = [p for m in (encoder, jepa.predictor) for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, last, pct_start=0.1, cycle_momentum=False
    )
    masks = MaskConfig(grid=side // PATCH)
    kept = {0: copy.deepcopy(encoder)} if 0 in steps else {}
    for step in range(1, last + 1):
        draws = generator(seed, "step", step)
        images = data[torch.randint(len(data), (batch_size,), generator=draws)]
        optimiser.zero_grad()
        jepa(images, sample_masks(masks, batch_size, draws), step).loss.backward()
        optimiser.step()
        schedule.step()
        jepa.update_target(FIRST_EMA + (1 - FIRST_EMA) * step / last)
        if step in steps:
            kept[step] = copy.deepcopy(encoder)
    return kept


@torch.no_grad()
def decodability(
    encoder: Encoder, images: Pixels, coefficients: Coefficients
) -> dict[tuple[str, str], float]:
    """How well, and how prominently, an encoder's tokens hold each planted coefficient.

    By measure and coefficient, of a token's own patch. decoded: R² of a linear readout, fitted on
    the first half of the images and scored on the second; leading: the same from the tokens'
    `LEADING` principal components; share: the fraction of all the tokens' variance that the
    coefficient explains linearly.
    """
    tokens = torch.cat([encoder(batch) for batch in images.split(256)]).double()
    half = len(tokens) // 2
    fit, score = tokens[:half].flatten(0, 1), tokens[half:].flatten(0, 1)
    centred = fit - fit.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -LEADING:]
    found, whole = {}, tokens.flatten(0, 1)
    for name, values in coefficients.items():
        known, asked = (part.flatten().double() for part in (values[:half], values[half:]))
        found["decoded", name] = readout_score(fit, known, score, asked)
        found["leading", name] = readout_score(fit @ axes, known, score @ axes, asked)
        found["share", name] = explained_share(whole, values.double().flatten())
    return found


def readout_score(train_x: Rows, train_y: Values, test_x: Rows, test_y: Values) -> float:
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


def explained_share(x: Rows, y: Values) -> float:
    """sum_k Cov(x_k, y)² / Var(y), over sum_k Var(x_k)."""
    x, y = x - x.mean(0), y - y.mean()
    return ((y @ x).square().sum() / y.square().sum() / x.square().sum()).item()
