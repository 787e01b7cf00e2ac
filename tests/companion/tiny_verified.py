"""A preset of small runs with real weights and data, as its notebooks would have left them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from sparsejepa.companion.files import plain, write_json
from sparsejepa.companion.information_findings import as_results
from sparsejepa.companion.information_of_encoders import measure, representations
from sparsejepa.companion.pretrained import Pretrained, untrained
from sparsejepa.companion.run_files import seal
from sparsejepa.data.image_set import ImageSet, load_image_set
from sparsejepa.data.scenes import draw_scenes
from sparsejepa.intervals import bootstrap_interval, paired_difference
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.probing.evaluation import evaluate
from sparsejepa.probing.features import pooled_features
from sparsejepa.randomness import generator
from sparsejepa.theory.linear_dynamics import (
    critical_time,
    limit_slopes,
    linear_dynamics,
    series_terms,
)
from sparsejepa.training.checkpoint import load_encoder, round_to_half, save_encoder
from tests.companion import tiny_verified_features as features
from tests.data.tiny_parquet import table

ENCODER = EncoderConfig(image_size=32, patch_size=8, width=8, depth=2, heads=2)
IMAGES = {"train": 120, "test": 60}
# Two trainings would have made these encoders; here they are drawn.
METHODS = ("jepa", "sparsejepa")


def make_data(folder: Path) -> None:
    """A set `toy` of drawn scenes under `folder`, labelled by the distance of the nearest one."""
    (folder / "toy").mkdir(parents=True)
    for split, count in IMAGES.items():
        drawn = draw_scenes(count, 0, split)
        labels = pa.array(drawn.labels["distance"].tolist(), pa.int64())
        pq.write_table(
            table(drawn.images.numpy(), label=labels),
            folder / "toy" / f"{split}-00000-of-00001.parquet",
        )


def make_runs(root: Path) -> None:
    """Two runs of 01, and what 02 to 05 and 07 say of them, in `book/runs/tiny`; needs the set."""
    runs = root / "book" / "runs" / "tiny"
    sets = {split: load_image_set("toy", split) for split in IMAGES}
    found = [pretraining(runs / "01_pretrain" / f"{method}-seed0", sets) for method in METHODS]
    test = sets["test"].images
    measured = [measure(one, 3, 2, 2, 0) for one in representations(found, test)]
    parameters = {"images": 0}
    information = {"encoders": {"toy": as_results(measured)}}
    shapes, scored = features.probes(found, sets), features.scores(found, sets, 0)
    write_run(runs / "02_probes" / "all", features.PROBES, shapes, sets)
    write_run(runs / "04_jepa_score" / "all", features.SCORES, scored, sets)
    write_run(runs / "03_multiinformation" / "all", parameters, information, sets)
    write_run(runs / "05_linear_dynamics" / "all", {}, theory(), sets)
    write_run(runs / "07_scorecard" / "all", {}, scorecard(runs, found), sets)


def pretraining(folder: Path, sets: dict[str, ImageSet]) -> Pretrained:
    """A run of 01 with a random encoder; a third of its map's columns are zero."""
    method, seed = folder.name.partition("-")[0], 0
    folder.mkdir(parents=True)
    encoder = Encoder(ENCODER, generator(seed, method)).eval().requires_grad_(False)
    round_to_half(encoder)
    save_encoder(folder / "encoder.safetensors", encoder)
    norms = torch.rand(3, ENCODER.width, generator=generator(seed, "norms"))
    norms[1] = 0
    groups = {"norms": norms, "strongest_group": torch.arange(ENCODER.width) % 2}
    save_file(groups, folder / "groups.safetensors")
    accuracy, correct, chosen = {}, {}, {}
    for name, network in ((method, encoder), ("untrained encoder", untrained(encoder, seed))):
        known, asked = (pooled_features(network, s.images, last=2) for s in sets.values())
        labels = [s.labels["label"] for s in sets.values()]
        for part, width in (("last block", ENCODER.width), ("last 2 blocks", 2 * ENCODER.width)):
            score = evaluate(known[:, -width:], asked[:, -width:], *labels, seed=seed)
            key = f"{name}, {part}"
            chosen[key] = score.chosen
            correct |= {f"{key}/{probe}": right.byte() for probe, right in score.correct.items()}
            accuracy[key] = {
                probe: features.stored(bootstrap_interval(right.numpy(), seed))
                for probe, right in score.correct.items()
            }
    save_file(correct, folder / "correct.safetensors")
    results = {
        "method": method,
        "dataset": "toy",
        "accuracy": accuracy,
        "chosen": chosen,
        "zero_columns": (norms == 0).float().mean().item(),
        "parameters": {"encoder": sum(p.numel() for p in encoder.parameters())},
    }
    given = {"dataset": "toy", "train_images": 0, "test_images": 0}
    write_run(folder, given, results, sets)
    weights = load_encoder(folder / "encoder.safetensors").requires_grad_(False)
    return Pretrained(folder.name, method, seed, weights, results, folder)


def theory() -> dict[str, Any]:
    """Two rows of each table of 05 that names its cases."""
    series = []
    for depth, rho, epsilon in ((2, 1.0, 0.01), (5, 0.5, 1e-7)):
        dynamics = linear_dynamics("jepa", depth, 1.0, rho, epsilon)
        exact, approximate = critical_time(dynamics, 0.5)[0], series_terms(dynamics).sum()
        row = {"L": depth, "ρ": rho, "ε": epsilon, "exact": exact, "series": approximate}
        series.append(row)
    slopes = [
        {"objective": name, "L": 3, "variable": "λ", "limit": limit_slopes(name, 3)["covariance"]}
        for name in ("jepa", "mae")
    ]
    return {"series": series, "slopes": slopes}


def scorecard(runs: Path, found: list[Pretrained]) -> dict[str, Any]:
    """The difference between the two runs."""
    from safetensors.torch import load_file

    jepa, sparse = (load_file(one.folder / "correct.safetensors") for one in found)
    probes = {
        probe: features.stored(
            paired_difference(
                sparse[f"sparsejepa, last block/{probe}"].numpy(),
                jepa[f"jepa, last block/{probe}"].numpy(),
                0,
            )
        )
        for probe in ("linear probe", "kNN")
    }
    return {"differences": {"sparsejepa-seed0 - jepa-seed0": probes}}


def write_run(
    folder: Path, parameters: dict[str, Any], results: dict[str, Any], sets: dict[str, ImageSet]
) -> None:
    """Results and a sealed manifest, as far as `verify` reads it."""
    write_json(folder / "results.json", plain(results, "results"))
    data = [
        {"name": s.name, "split": s.split, "pixel_sha256": s.pixel_sha256} for s in sets.values()
    ]
    manifest = {"seed": 0, "parameters": parameters, "data": data}
    write_json(folder / "manifest.json", manifest)
    seal(folder)
