"""What `verify` computes again of each notebook's runs: one function a check, and its tolerances.

Tolerances say how far honest computations lie apart. On the machine of the run these numbers come
out the same to the last bit; another processor adds float32 numbers in another order, which moves
features by some 1e-6 of themselves. A tolerance is what that does to the number (found by moving
the features of a run at random by 1e-6 and 1e-5), with room to spare.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sparsejepa.companion.information_findings import as_results
from sparsejepa.companion.information_of_encoders import Representation, measure, read_groups
from sparsejepa.companion.pretrained import untrained
from sparsejepa.companion.stored_runs import (
    Comparison,
    StoredRun,
    Tolerance,
    Workbench,
)
from sparsejepa.density import study
from sparsejepa.density.closed_forms import closed_forms
from sparsejepa.density.image_statistics import image_statistics
from sparsejepa.density.jacobian import pooled
from sparsejepa.density.jepa_score import jepa_score
from sparsejepa.density.outlier_sets import drawn_outliers
from sparsejepa.density.outliers import detectors
from sparsejepa.density.rank_correlation import explained_share, rank_correlation
from sparsejepa.intervals import Interval, bootstrap_interval, paired_difference
from sparsejepa.model.vit import Encoder
from sparsejepa.probing.collapse import feature_spread, rankme, spectrum
from sparsejepa.probing.features import pooled_features
from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import knn_predict
from sparsejepa.probing.structure import alpha_req, channel_spread, dead_channels
from sparsejepa.theory.linear_dynamics import (
    critical_time,
    limit_slopes,
    linear_dynamics,
    series_terms,
)

KEPT = Tolerance(1e-6, "recorded answers: the same sums, of which some are kept as float32")
FORMULA = Tolerance(1e-9, "float64 formulas, whose last digits depend on the processor")
COUNT = Tolerance(0.0, "counts are exact")
SHAPE = Tolerance(1e-3, "a smooth function of features that are right to 1e-6")
# Moved by 1e-6: 0.00003 of 110 nats. (By 1e-5 the final norm's null direction drowns: 2 nats.)
NATS = Tolerance(0.02, "log-determinants of correlations, in which small eigenvalues weigh most")
RANKS = Tolerance(0.005, "ranks of scores: near-ties change places; half of the last digit shown")
IMAGES_TIMED = 256


def recorded_answers(run: StoredRun, bench: Workbench) -> Iterator[Comparison]:
    """01: accuracies and intervals from which images each probe got right, zeros of the maps."""
    seed = run.manifest["seed"]
    for key, correct in run.tensors("correct.safetensors").items():
        name, _, probe = key.rpartition("/")
        found = bootstrap_interval(correct.numpy(), seed)
        yield from _with_interval(run, ("accuracy", name, probe), found)
    norms = run.tensors("groups.safetensors")["norms"]
    yield run.compare(("zero_columns",), (norms == 0).float().mean().item(), KEPT)
    weights = run.pretrained().encoder.parameters()
    yield run.compare(("parameters", "encoder"), sum(p.numel() for p in weights), COUNT)


def paired_differences(run: StoredRun, bench: Workbench) -> Iterator[Comparison]:
    """07: differences between runs on the same test images."""
    for pair, probes in run.results["differences"].items():
        ours, base = (bench.run("01_pretrain", name) for name in pair.split(" - "))
        for probe in probes:
            answers = [
                one.tensors("correct.safetensors")[f"{one.results['method']}, last block/{probe}"]
                for one in (ours, base)
            ]
            found = paired_difference(*(a.numpy() for a in answers), run.manifest["seed"])
            yield from _with_interval(run, ("differences", pair, probe), found)


def critical_times(run: StoredRun, bench: Workbench) -> Iterator[Comparison]:
    """05: the table of the series, and the limits of the slopes, from the cases that they name."""
    for i, row in enumerate(run.results["series"]):
        dynamics = linear_dynamics("jepa", row["L"], 1.0, row["ρ"], row["ε"])
        for name, time in (
            ("exact", critical_time(dynamics, 0.5)[0]),
            ("series", series_terms(dynamics).sum()),
        ):
            relative = Tolerance(FORMULA.size * float(abs(time)), FORMULA.why)
            yield run.compare(("series", i, name), time, relative)
    for i, row in enumerate(run.results["slopes"]):
        limits = dict(zip("ελρ", limit_slopes(row["objective"], row["L"]).values(), strict=True))
        yield run.compare(("slopes", i, "limit"), limits[row["variable"]], FORMULA)


def structure_of_features(run: StoredRun, bench: Workbench) -> Iterator[Comparison]:
    """02: the table of the shape of features, without LiDAR."""
    given = run.parameters
    test = bench.images(run, "test", given["test_images"])
    for name, found in bench.with_weights(run.results["structure"]).items():
        z = _features(found.encoder, test.images[: given["structure_images"]], bench)
        measures = [rankme, feature_spread, channel_spread, dead_channels]
        for measured in measures:
            yield run.compare(("structure", name, measured.__name__), measured(z), SHAPE)
        if "alpha" in run.results["structure"][name]:
            yield run.compare(("structure", name, "alpha"), alpha_req(z), SHAPE)
        yield run.compare(("spectrum", name, 0), spectrum(z)[0].item(), SHAPE)


def total_correlations(run: StoredRun, bench: Workbench) -> Iterator[Comparison]:
    """03: information in pooled features, on the data set of the encoders."""
    own = next(iter(run.results["encoders"]))
    test = bench.images(run, "test", run.parameters["images"], own)
    for name, found in bench.with_weights(run.results["encoders"][own]).items():
        features = _features(found.encoder, test.images, bench)
        groups = read_groups(found)
        given = Representation(name, found.method, found.seed, features, *groups, 0.0)
        # Random partitions and shuffles change nothing of what is compared: as few as it takes.
        measured = measure(given, 1, 1, 2, run.manifest["seed"])
        cell, keys = as_results([measured])[name], ("encoders", own, name)
        for key in ("total", "gaussian"):
            yield run.compare((*keys, key, "value"), cell[key]["value"], NATS)
        for key in ("between", "within"):
            yield run.compare((*keys, key), cell[key], NATS)
        for key in ("n", "d", "read_latents", "shared_latents"):
            yield run.compare((*keys, key), cell[key], COUNT)
        for key in ("rankme", "spread"):
            yield run.compare((*keys, key), cell[key], SHAPE)


def outlier_detectors(run: StoredRun, bench: Workbench) -> Iterator[Comparison]:
    """04: AUROC of the detectors that read features, on drawn outliers."""
    given, seed = run.parameters, run.manifest["seed"]
    train, test = (bench.images(run, split, 0) for split in ("train", "test"))
    count = given["data_images"]
    label = given["probe_label"] or next(iter(test.labels))
    known_images = train.images[: given["fit_images"]]
    fits = detectors(train.labels[label][: len(known_images)])
    others = test.images[count : count + given["images_per_set"]]
    for name, found in bench.with_weights(run.results["outliers"]).items():
        sets = drawn_outliers(others, found.encoder.config.patch_size, seed)
        known, data = (
            _features(found.encoder, images, bench)
            for images in (known_images, test.images[:count])
        )
        embedded = {kind: _features(found.encoder, x, bench) for kind, x in sets.items()}
        for fit_name, fit in fits.items():
            cells = study.detector_separations(fit, known, data, embedded, seed)
            for kind, cell in cells.items():
                keys = ("outliers", name, fit_name, kind, "auroc", "value")
                yield run.compare(keys, cell.auroc.value, RANKS)


def scores(run: StoredRun, bench: Workbench) -> Iterator[Comparison]:
    """04: JEPA-SCORE where the truth is known, and its relation to properties of images."""
    given, seed = run.parameters, run.manifest["seed"]
    errors = [
        (case.log_density - jepa_score(case.map, case.points).log_density).abs().max().item()
        for case in closed_forms(60, seed).values()
    ]
    yield run.compare(("exact_error",), max(errors), FORMULA)
    data = bench.images(run, "test", 0).images[: given["data_images"]]
    properties = {name: values.numpy() for name, values in image_statistics(data).items()}
    for name, found in bench.with_weights(run.results["properties"]).items():
        bench.spend(run.results["seconds_per_image"] * len(data))
        score = study.score_images(pooled(found.encoder), data)
        yield run.compare(("null_directions", name), score.null_directions, COUNT)
        for key, values in properties.items():
            rho = rank_correlation(score.score.numpy(), values, seed, draws=2).value
            yield run.compare(("properties", name, key, "value"), rho, RANKS)
        share = explained_share(score.score.numpy(), properties, seed, draws=2).value
        yield run.compare(("explained_with_saturation", name, "value"), share, RANKS)


def trained_probes(run: StoredRun, bench: Workbench) -> Iterator[Comparison]:
    """01: what the probes, at their recorded settings, read from the trained encoder."""
    found = run.pretrained()
    yield from _probes(run, bench, found.method, found.encoder)


def untrained_probes(run: StoredRun, bench: Workbench) -> Iterator[Comparison]:
    """01: the same of the encoder before training, which its seed makes again."""
    found = run.pretrained()
    yield from _probes(run, bench, "untrained encoder", untrained(found.encoder, found.seed))


def _probes(run: StoredRun, bench: Workbench, name: str, encoder: Encoder) -> Iterator[Comparison]:
    given, seed, config = run.parameters, run.manifest["seed"], encoder.config
    train, test = (bench.images(run, s, given[f"{s}_images"]) for s in ("train", "test"))
    label = next(iter(train.labels))
    y, answers = train.labels[label], test.labels[label]
    blocks = min(4, config.depth)
    known, asked = (_features(encoder, s.images, bench, blocks) for s in (train, test))
    for columns, part in ((1, "last block"), (blocks, f"last {blocks} blocks")):
        x, q = (features[:, -columns * config.width :] for features in (known, asked))
        chosen, keys = run.results["chosen"][f"{name}, {part}"], ("accuracy", f"{name}, {part}")
        nearest = knn_predict(x, y, q, int(chosen["k"]), chosen["temperature"])
        knn = (nearest == answers).double().mean().item()
        yield run.compare((*keys, "kNN", "value"), knn, _near_ties(len(q)))
        rates, decays = (chosen["learning_rate"],), (chosen["weight_decay"],)
        linear = linear_probe(
            x, y, q, answers, seed=seed, learning_rates=rates, weight_decays=decays
        )
        yield run.compare((*keys, "linear probe", "value"), linear.top1, _near_ties(len(q)))


def _near_ties(count: int) -> Tolerance:
    """Of an accuracy over `count` images."""
    # With features moved by 1e-6 of themselves none of 10,000 images changed, by 1e-5 one did.
    changed = max(2, round(0.001 * count))
    why = f"images between two classes change sides: at most {changed} of {count}"
    return Tolerance((changed + 0.01) / count, why)


def _with_interval(run: StoredRun, keys: tuple[str, ...], found: Interval) -> Iterator[Comparison]:
    yield run.compare((*keys, "value"), found.value, KEPT)
    yield run.compare((*keys, "interval", 0), found.low, KEPT)
    yield run.compare((*keys, "interval", 1), found.high, KEPT)


def _features(
    encoder: Encoder, images: UInt8[Tensor, "N H W 3"], bench: Workbench, last: int = 1
) -> Float[Tensor, "N D"]:
    """`pooled_features`, if the time suffices for them: the first images tell.

    Raises:
        NotChecked: it does not.
    """
    some, rest = images[:IMAGES_TIMED], images[IMAGES_TIMED:]
    # The first pass through a network of a new size takes longer.
    pooled_features(encoder, some[:8], last=last)
    begun = bench.now()
    first = pooled_features(encoder, some, last=last)
    bench.spend((bench.now() - begun) * len(rest) / len(some))
    return torch.cat([first, pooled_features(encoder, rest, last=last)]) if len(rest) else first
