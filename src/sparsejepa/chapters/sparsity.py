"""The sparsity study: what is measured of every variant in the same way, and comparisons."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from matplotlib.figure import Figure
from matplotlib.scale import SymmetricalLogScale
from torch import Tensor

from sparsejepa.chapters import stored
from sparsejepa.data.batches import resized, to_unit
from sparsejepa.data.image_set import ImageSet
from sparsejepa.information.multiinformation import total_correlation
from sparsejepa.intervals import (
    SEEDS_NEEDED,
    Estimate,
    Interval,
    bootstrap_interval,
    paired_difference,
    seed_interval,
)
from sparsejepa.model import penalties
from sparsejepa.model.jepa import Jepa
from sparsejepa.model.vit import Encoder
from sparsejepa.plots import Line, line_panels, method_color
from sparsejepa.probing.evaluate import KNN, LINEAR, evaluate_labels, low_level_labels, online_watch
from sparsejepa.probing.features import pixel_features, pooled_features
from sparsejepa.probing.spectrum import rankme
from sparsejepa.training.artefacts import Trainings, training_key
from sparsejepa.training.precision import choose_device, choose_precision
from sparsejepa.training.pretrain import PretrainConfig

# Training and test images, bytes, to the features of both.
Represent = Callable[[Tensor, Tensor], Sequence[Float[Tensor, "_ d"]]]
Features, Weight = Float[Tensor, "M d"], Float[Tensor, "p d"]
Answers = dict[str, Bool[Tensor, "_"]]  # probe -> the test images that it got right

TASKS = ("count", "distance")
PROBES = (LINEAR, KNN, *TASKS)
# A smaller sweep than the chapters', as every variant has it four times; not of wider features.
_WEIGHT_DECAYS, _WIDE = (1e-6, 1e-4, 1e-3, 1e-2), 1024


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was found of one variant or control."""

    correct: Answers
    measures: dict[str, float]  # effective rank and sparsity, see `Study.structure`
    history: list[dict[str, Any]] = field(default_factory=list)  # an entry an epoch of training
    steps: int = 0  # optimiser steps
    seconds: float = 0.0  # spent in them

    def accuracy(self, probe: str) -> float:
        """Share of test images that the probe got right, 0 to 1."""
        return self.correct[probe].double().mean().item()

    def estimate(self, key: str, seed: int) -> Interval:
        """A probe's accuracy over the test images, or a measure, with its interval if any."""
        if key in self.correct:
            return bootstrap_interval(self.correct[key].numpy(), seed)
        value = self.measures[key]
        ends = (self.measures.get(f"{key}_{end}", value) for end in ("low", "high"))
        return Interval(value, *ends, 0.95)


Runs, Path = Sequence[Measurement], Mapping[float, Measurement]  # Path: by strength
Measures = Mapping[str, tuple[str, int | float]]  # key of a measurement -> label and factor


def shared_information(features: Features, seed: int) -> dict[str, float]:
    """Total correlation of the features by the Gaussian copula, a lower bound, over d - 1, in nats.

    With its 95 % interval. Nothing for fewer than 50 rows a column, or of collapsed features.
    """
    if len(features) < 50 * features.shape[1]:  # fewer make intervals that do not hold
        return {}
    try:
        found = total_correlation(features, drop=True, seed=seed)
    except ValueError:  # Despite `drop`: all are constants, or one is a function of another.
        return {}
    values = (value / max(found.d - 1, 1) for value in (found.value, *found.interval()))
    names = (f"total_correlation{end}" for end in ("", "_low", "_high"))
    return dict(zip(names, values, strict=True))


def class_labels(images: ImageSet) -> Int64[Tensor, "N"]:
    """The first label of a set, which the linear probe and kNN tell."""
    return next(iter(images.labels.values()))


@dataclass(eq=False)
class Study:
    """Variants and controls, all measured in the same way."""

    train: ImageSet  # trains encoders, and probes of its first label
    test: ImageSet  # scored by these probes
    scenes_train: ImageSet  # trains probes of count and distance; may be `train` itself
    scenes_test: ImageSet  # scored by these probes
    trainings: Trainings
    groups: int  # of channels, in which sparsity is measured where a method has no groups
    seed: int  # of the probes
    probe_steps: int  # of a linear probe
    measured: dict[str, Measurement] = field(default_factory=dict)

    def variant(self, config: PretrainConfig) -> Measurement:
        """Trains and measures a variant, once."""
        images, sha256 = data = self.train.images, self.train.pixel_sha256
        key = training_key(config, sha256)
        if key not in self.measured:
            autocast = choose_precision(choose_device(), config.precision).autocast
            queries = min(2000, len(images) // 5)
            watch = online_watch(images, class_labels(self.train), queries, autocast=autocast)
            # In half precision, since there are dozens of them.
            name = f"short-seed{config.seed}"
            trained = self.trainings.get(config, *data, watch, name, half=True)
            found = self._measure(trained.encoder, trained.projection, config)
            told = {part: getattr(trained, part) for part in ("history", "steps", "seconds")}
            self.measured[key] = dataclasses.replace(found, **told)
        return self.measured[key]

    def untrained(self, config: PretrainConfig) -> Measurement:
        """The control: the same network, as it is before training with that seed."""
        jepa = Jepa(config.model, config.seed)
        return self._measure(jepa.target_encoder, jepa.predictor.projection.weight, config)

    def pixels(self, side: int) -> Measurement:
        """The control: raw pixels of the images, squeezed to `side` pixels a side."""
        squeeze = functools.partial(resized, size=side)
        return Measurement(self.probe(lambda *sets: pixel_features(*map(squeeze, sets)))[0], {})

    def majority(self) -> Measurement:
        """The control: always the most frequent class of the training images."""
        pairs = (self.train, self.scenes_train), (self.test, self.scenes_test)
        known, asked = (
            dict.fromkeys((LINEAR, KNN), class_labels(images)) | low_level_labels(scenes)
            for images, scenes in pairs
        )
        return Measurement({p: asked[p] == y.bincount().argmax() for p, y in known.items()}, {})

    def _measure(self, encoder: Encoder, projection: Weight, config: PretrainConfig) -> Measurement:
        """Of the target encoder, as in I-JEPA; in float32, as in the pretraining chapter."""
        pool = functools.partial(pooled_features, encoder)
        correct, pooled = self.probe(lambda *sets: tuple(map(pool, sets)))
        return Measurement(correct, self.structure(encoder, projection, config, pooled))

    def probe(self, represent: Represent) -> tuple[Answers, Features]:
        """Which test images each of `PROBES` gets right, and the test images' features.

        Every choice is made on held-out training images; the test images are scored once.
        """
        sets, scenes = (self.train, self.test), (self.scenes_train, self.scenes_test)
        features = train_x, test_x = represent(self.train.images, self.test.images)
        options = {"seed": self.seed, "steps": self.probe_steps}
        options |= {} if train_x.shape[1] > _WIDE else {"weight_decays": _WEIGHT_DECAYS}
        classes = ({"": class_labels(images)} for images in sets)
        correct = evaluate_labels(*features, *classes, **options)[""].correct
        if scenes != sets:
            features = represent(*(images.images for images in scenes))
        found = evaluate_labels(*features, *map(low_level_labels, scenes), **options)
        return correct | {task: found[task].correct[LINEAR] for task in TASKS}, test_x

    @torch.no_grad()
    def structure(
        self, encoder: Encoder, projection: Weight, config: PretrainConfig, pooled: Features
    ) -> dict[str, float]:
        """Effective rank and sparsity of any method, measured in one way.

        Of the pooled test features: rankme and `shared_information`. Of the weight W of the
        predictor's input projection, in groups of its rows: `column_sparsity`, and zero_weights,
        the share of single zeros. Of the encoder's tokens of 256 test images, in groups of its
        channels: `group_sparsity`, `activation_sparsity`, and groups_in_use, the effective number
        of groups of the norms' means over all tokens: as small as effective_groups if all tokens
        keep the same groups. latent_scale: the tokens' root mean square; group_norms: the mean over
        tokens of sum_g ||z_{S_g}||.
        """
        model, sparsity = config.model, config.model.sparsity
        if sparsity.reading == "none":
            sparsity = dataclasses.replace(sparsity, groups=self.groups)
        weight = projection.detach().float().cpu()
        rows = penalties.projection_groups(sparsity, model.predictor, config.seed)
        channels = penalties.projection_groups(sparsity, model.encoder, config.seed)
        device = next(encoder.parameters()).device
        images = to_unit(self.test.images[:256]).to(device)
        tokens = encoder(images).float().cpu().flatten(0, 1)
        columns = penalties.column_sparsity(penalties.group_column_norms(weight, rows))
        groups = penalties.group_sparsity(tokens, channels)
        norms = tokens.double()[:, channels].norm(dim=-1).mean(0)
        return {
            "rankme": rankme(pooled),
            **shared_information(pooled, self.seed),
            "zero_weights": (weight == 0).float().mean().item(),
            "column_hoyer": columns.pop("hoyer"),
            **columns,
            "token_hoyer": groups.pop("hoyer"),
            **groups,
            **penalties.activation_sparsity(tokens),
            "groups_in_use": (norms.sum().square() / norms.square().sum()).item(),
            "latent_scale": tokens.square().mean().sqrt().item(),
            "group_norms": norms.sum().item(),
        }


def compare(first: Runs, second: Runs, probe: str, seed: int, level: float = 0.95) -> Estimate:
    """Accuracy of `first` minus that of `second`, run by run; the i-th runs of both share a seed.

    With three seeds or more the interval is Student's over the seeds; with fewer it is the paired
    bootstrap over the test images of the first seed alone.
    """
    pairs = list(zip(first, second, strict=True))
    if len(pairs) < SEEDS_NEEDED:
        pairs = pairs[:1]
        found = paired_difference(*(one.correct[probe] for one in pairs[0]), seed, level)
    else:
        found = seed_interval([a.accuracy(probe) - b.accuracy(probe) for a, b in pairs], level)
    return Estimate(**vars(found), seeds=len(pairs))


def along_path(path: Path, seed: int) -> list[dict[str, Any]]:
    """Every strength of a path against its own control, strength 0, by every probe.

    All intervals together raise a false alarm at most once in twenty times (Bonferroni).
    """
    asked = [(probe, strength) for probe in PROBES for strength in path if strength > 0]
    level = 1 - 0.05 / len(asked)
    return [
        {"probe": probe, "strength": strength}
        | stored(compare([path[strength]], [path[0.0]], probe, seed, level))
        for probe, strength in asked
    ]


def fall_of_norms(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """The fall of the sum of group norms as a factor of scale times a factor of spread."""
    whole, scale = (after[key] / before[key] for key in ("group_norms", "latent_scale"))
    counts = ("effective_groups", "groups_in_use")
    ends = (("before", before), ("after", after))
    return {"sum of norms ×": whole, "scale ×": scale, "spread ×": whole / scale} | {
        f"{key.replace('_', ' ')}, {when}": found[key] for key in counts for when, found in ends
    }


def path_figure(
    path: Path, method: str, measures: Measures, jepa: Runs, untrained: Measurement, seed: int
) -> Figure:
    """A panel a probe and a measure, over strengths of one penalty; thin lines: JEPA's seeds."""
    panels = {}
    for key in (*PROBES, *measures):
        label, factor = measures.get(key, (f"{key}, %", 100))
        found = [run.estimate(key, seed) for run in path.values()]
        value, *ends = factor * np.array([(e.value, e.low, e.high) for e in found]).T
        panels[label] = [Line([*path], value, method_color(method), method, "o-", ends=ends)]
        control = [untrained] if key in (*PROBES, "rankme") else []
        shown = [("jepa", run, "-") for run in jepa]
        for name, run, style in shown + [("untrained encoder", run, "--") for run in control]:
            level = [factor * run.estimate(key, seed).value] * 2
            panels[label].append(Line([0, max(path)], level, method_color(name), name, style, 0.8))
    # Zero has its place, and equal steps are equal ratios from the smallest strength on.
    scale = SymmetricalLogScale(None, linthresh=sorted(path)[1])
    return line_panels(panels, "strength λ", "", below=True, xscale=scale)
