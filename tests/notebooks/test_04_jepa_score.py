"""The JEPA-SCORE notebook measures every encoder of a preset, with its controls, in all parts."""

import json
import shutil
from pathlib import Path

import pytest

from sparsejepa.companion.runs import run_notebook
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.randomness import generator
from sparsejepa.training.checkpoint import save_encoder
from tests.repository import ROOT

ENCODER = EncoderConfig(image_size=32, patch_size=8, width=12, depth=1, heads=2)
TINY = {
    "preset": "tiny",
    "methods": "jepa, sparsejepa",
    "data_images": 14,
    "images_per_set": 4,
    "fit_images": 300,
    "per_class": 4,
    "curation_images": 40,
    "curation_encoders": 2,
    "probe_label": "distance",
    "random_draws": 2,
    "toy_steps": 10,
    "toy_embeddings": "2,3",
    "toy_points": 30,
    "outliers": "not_here",
    "backbones": "test_vit",
    "backbone_images": 2,
    "pretrained": False,
}
DRAWN = {"noise", "plain colours", "shuffled patches", "inverted", "blurred", "low contrast"}
pytestmark = pytest.mark.slow

FIGURES = "picture exact plane toys-2-d toys-8-d extremes properties outliers flattery curation"


def pretrained(folder: Path, method: str) -> None:
    """What the notebook reads of a pretraining run: the encoder is a random one."""
    folder.mkdir(parents=True)
    save_encoder(folder / "encoder.safetensors", Encoder(ENCODER, generator(0, method)))
    (folder / "results.json").write_text(json.dumps({"method": method}))
    (folder / "manifest.json").write_text(json.dumps({"seed": 0}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder, in a copy of what it needs."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "notebooks" / "presets").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "04_jepa_score.ipynb", root / "notebooks")
    shutil.copy(ROOT / "notebooks" / "presets" / "demo.yml", root / "notebooks" / "presets")
    shutil.copytree(ROOT / "src" / "sparsejepa", root / "src" / "sparsejepa")
    for method in ("jepa", "sparsejepa", "mae"):
        folder = root / "book" / "runs" / "tiny" / "01_pretrain" / f"{method}-seed0"
        pretrained(folder, method)
    return run_notebook(Path("notebooks/04_jepa_score.ipynb"), "demo", overrides=TINY, root=root)


@pytest.fixture(scope="module")
def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def cells(tree: dict) -> list[dict]:
    """Every number with an interval."""
    if "interval" in tree:
        return [tree]
    return [cell for value in tree.values() if isinstance(value, dict) for cell in cells(value)]


def test_the_methods_asked_for_and_the_control(results: dict):
    """In every part that measures encoders; LayerNorm's one null direction was found in each."""
    names = {"jepa-seed0", "sparsejepa-seed0", "untrained encoder"}
    for part in ("outliers", "properties", "explained_by_properties", "null_directions"):
        assert set(results[part]) == names
    assert set(results["null_directions"].values()) == {1}


def test_every_number_has_an_interval(results: dict):
    """Correlations, separations and gains."""
    found = cells(results)
    assert len(found) > 100
    for cell in found:
        low, high = cell["interval"]
        assert low <= high


def test_exact_maps_are_exact(results: dict):
    assert results["exact_error"] < 1e-9


def test_drawn_outliers_need_no_data_and_missing_sets_are_left_out(run: Path, results: dict):
    """The page says which set is not here, and what to do."""
    for by_score in results["outliers"].values():
        assert {"JEPA-SCORE", "kNN similarity", "Mahalanobis per class"} <= set(by_score)
        assert all(set(by_set) == DRAWN for by_set in by_score.values())
    assert "Left out: not_here train is not here" in (run / "executed.ipynb").read_text()


def test_every_training_and_width_of_the_toys(results: dict):
    for panels in results["toys"].values():
        assert set(panels) == {"VICReg", "SIGReg", "none", "untrained"}
        assert all(set(found["JEPA-SCORE"]) == {"2", "3"} for found in panels.values())


def test_curation_and_backbones(results: dict):
    """Two shares, two rules, two encoders; a timm model goes through the same code."""
    gains = results["curation"]["gain_over_random"]
    assert (
        set(gains) == set(results["curation"]["everything"]) == {"jepa-seed0", "sparsejepa-seed0"}
    )
    for by_rule in gains.values():
        assert {rule: set(found) for rule, found in by_rule.items()} == {
            "JEPA-SCORE": {"0.1", "0.2"},
            "kNN similarity": {"0.1", "0.2"},
        }
    assert set(results["backbones"]["test_vit"]["JEPA-SCORE"]) == DRAWN
    assert len(results["conclusions"]) > 20


def test_every_figure_has_a_text(run: Path):
    manifest = json.loads((run / "manifest.json").read_text())
    assert {Path(figure["file"]).stem for figure in manifest["figures"]} == set(FIGURES.split())
    assert all(figure["alt"] for figure in manifest["figures"])
