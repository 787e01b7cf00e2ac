"""The notebook of probes reads every encoder of a preset beside its controls."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsejepa.companion.runs import run_notebook
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.randomness import generator
from sparsejepa.training.checkpoint import save_encoder
from tests.data.tiny_parquet import pixels, png, structs
from tests.repository import ROOT

ENCODER = EncoderConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2)
RUNS = [(method, seed) for method in ("jepa", "sparsejepa") for seed in range(3)] + [("mae", 1)]
CONTROLS = {"untrained encoder", "raw pixels"}
TINY = {
    "preset": "tiny",
    "dataset": "scenes",
    "train_images": 400,
    "test_images": 150,
    "probe_steps": 15,
    "pixel_size": 8,
    "structure_images": 60,
    "view_images": 12,
    "views": 3,
    # The demo leaves them out, so that it is the same wherever it runs.
    "clevr": "clevr",
    "shapes": "shapes",
}


def pretrained(folder: Path, method: str, seed: int) -> None:
    """What the notebook reads of a pretraining run: the encoder is a random one."""
    folder.mkdir(parents=True)
    encoder = Encoder(ENCODER, generator(seed, method))
    save_encoder(folder / "encoder.safetensors", encoder)
    results = {"method": method, "dataset": "scenes", "steps": 10}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "manifest.json").write_text(json.dumps({"seed": seed}))


def small_clevr(folder: Path) -> None:
    """Forty images in CLEVR's columns."""
    folder.mkdir(parents=True)
    rows = pa.table(
        {
            "image": structs([png(image) for image in pixels(40, size=48)]),
            "count": [3 + i % 4 for i in range(40)],
            "closest_distance": [7.5 + 0.5 * (i % 3) for i in range(40)],
            "closest_distance_label": [i % 3 for i in range(40)],
        }
    )
    pq.write_table(rows, folder / "train-00000-of-00001.parquet")


def small_shapes(folder: Path) -> None:
    """Thirty images in the columns of SHAPES: no distance."""
    folder.mkdir(parents=True)
    images = structs([png(image) for image in pixels(30, size=30)])
    rows = pa.table({"image": images, "count": [3 + i % 3 for i in range(30)]})
    pq.write_table(rows, folder / "train-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder, in a copy of what it needs."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "src" / "sparsejepa", root / "src" / "sparsejepa")
    for method, seed in RUNS:
        name = f"{method}-seed{seed}"
        pretrained(root / "book" / "runs" / "tiny" / "01_pretrain" / name, method, seed)
    small_clevr(root / "data" / "clevr")
    small_shapes(root / "data" / "shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEJEPA_DATA", str(root / "data"))
        patch.setenv("SPARSEJEPA_CACHE", str(root / "cache"))
        return run_notebook(Path("notebooks/02_probes.ipynb"), "demo", overrides=TINY, root=root)


@pytest.fixture(scope="module")
def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


@pytest.mark.slow
def test_every_figure_is_kept(run: Path):
    """With its alternative text in the manifest; nothing of this machine in the executed copy."""
    figures = json.loads((run / "manifest.json").read_text())["figures"]
    names = {"classes", "efficiency", "low_level", "spectra"}
    assert {Path(figure["file"]).stem for figure in figures} == names
    assert all((run / figure["file"]).is_file() and figure["alt"] for figure in figures)
    assert str(run.parents[4]) not in (run / "executed.ipynb").read_text()


@pytest.mark.slow
def test_every_table_has_its_controls(results: dict):
    """Classes, count, distance, small sets: methods, the untrained encoder, pixels, majority."""
    rows = {"jepa", "sparsejepa", "mae"} | CONTROLS
    assert results["accuracy"].keys() == rows
    assert results["majority_accuracy"].keys() == {"label", "count", "distance"}
    for cells in results["accuracy"].values():
        assert {key.split(", ")[0] for key in cells} == {"label", "count", "distance"}
        for cell in cells.values():
            low, high = cell["interval"]
            assert low <= cell["value"] <= high
    assert results["small_sets"].keys() == {"CLEVR, count", "CLEVR, distance", "SHAPES, count"}
    for cells in results["small_sets"].values():
        assert cells.keys() == rows | {"majority class"}
    assert results["structure"].keys() == {f"{m}-seed{s}" for m, s in RUNS} | CONTROLS


@pytest.mark.slow
def test_three_seeds_give_intervals_over_seeds(results: dict):
    """Where a method has three runs; the interval of a single run is over test images."""
    for family, seeds in (("jepa", 3), ("sparsejepa", 3), ("mae", 1)):
        cell = results["accuracy"][family]["label, last block, linear probe"]
        assert cell["seeds"] == seeds
        assert cell["basis"].startswith("over 3 seeds" if seeds == 3 else "over test images")


@pytest.mark.slow
def test_differences_are_paired_by_seed(results: dict):
    """SparseJEPA's three seeds against JEPA's, MAE's one against JEPA's of that seed."""
    assert results["differences"].keys() == {"sparsejepa", "mae"}
    for column, cell in results["differences"]["sparsejepa"].items():
        values = [
            results["accuracy"][family][f"{column}, linear probe"]["value"]
            for family in ("sparsejepa", "jepa")
        ]
        assert cell["value"] == pytest.approx(values[0] - values[1])
        assert cell["seeds"] == 3
    assert all(cell["seeds"] == 1 for cell in results["differences"]["mae"].values())


@pytest.mark.slow
def test_the_curve_ends_at_all_labels(results: dict):
    """1 %, 10 % and 100 % of the labelled images; the last point is the probe on all of them."""
    counts = results["labelled_images"]
    assert counts == sorted(counts) and counts[-1] == TINY["train_images"]
    cells = results["accuracy"]["jepa"]
    assert (
        cells["label, last block, 100 % of the labels"] == cells["label, last block, linear probe"]
    )


@pytest.mark.slow
def test_random_encoders_are_not_better(results: dict):
    """All are random: no interval on classes lies above that of the better control."""
    cells = results["accuracy"]
    rows = {f: cells[f]["label, last 2 blocks, linear probe"] for f in cells if f != "raw pixels"}
    control = rows.pop("untrained encoder")
    assert all(cell["interval"][0] <= control["interval"][1] for cell in rows.values())
    assert "points ahead of the better control" in results["conclusion"]
