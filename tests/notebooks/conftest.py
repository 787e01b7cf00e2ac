"""One study of all notebooks, as small as they go, which every test of a chapter reads."""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from sparsejepa.companion.files import read_json
from sparsejepa.companion.parameters import load_study
from sparsejepa.companion.provenance import runs_root
from sparsejepa.companion.runs import reproduce
from tests.repository import ROOT

PRETRAIN = {
    **{"dataset": "scenes", "train_images": 400, "test_images": 150, "epochs": 2},
    **{"batch_size": 64, "width": 16, "depth": 2, "heads": 2, "pixel_control": False},
    **{"predictor_width": 16, "predictor_depth": 1, "groups": 4, "sparse_average": 2},
}
STUDY = {
    "01_pretrain": {
        "parameters": PRETRAIN,
        "runs": {
            "jepa-seed0": {"pixel_control": True},
            "sparsejepa-seed0": {"method": "sparsejepa", "strength": 0.005},
            "sparsejepa-off-seed0": {"method": "sparsejepa", "strength": 0},
        },
    },
    "02_probes": {
        **{"dataset": "scenes", "train_images": 400, "test_images": 150, "probe_steps": 15},
        **{"scene_train_images": 400, "scene_test_images": 100, "others": "shapes"},
        **{"pixel_size": 8, "structure_images": 60, "view_images": 12, "views": 3},
    },
    "03_multiinformation": {
        **{"images": 400, "partitions": 20, "null_draws": 2, "subsets": 2},
        **{"calibration_draws": 1, "calibration_width": 5, "calibration_rows": 300},
    },
    "04_jepa_score": {
        **{"dataset": "scenes", "data_images": 14, "images_per_set": 4, "fit_images": 300},
        **{"per_class": 4, "curation_images": 40, "probe_label": "distance", "random_draws": 2},
        **{"toy_seeds": 2, "toy_steps": 10, "toy_embeddings": "2,3", "toy_points": 30, "views": 2},
    },
    "05_linear_dynamics": {
        **{"train_images": 64, "probe_images": 32, "steps": 8, "batch_size": 16},
        **{"width": 16, "depth": 1, "seeds": 2},
    },
    "06_sparsity": {
        **{"seed": 5, "seeds": 2, "train_images": 256, "test_images": 100, "scenes_train": 400},
        **{"scenes_test": 100, "width": 16, "strengths": "0.003, 0", "strengths_r2": "0.01"},
        **{"raw_epochs": 1, "bars_steps": 100, "probe_steps": 20, "peers": "sigreg=0.1"},
    },
    "07_scorecard": {},
    "appendix_tuning": {"dataset": "scenes", "train_images": 600, "width": 32, "depth": 1}
    | {"variants": 2, "lengths": "2:0.99:1", "test_images": 100, "online_seeds": 1},
}
ALONE = ("01_pretrain", "05_linear_dynamics", "06_sparsity", "appendix_tuning")


def checkout(root: Path, notebooks: Collection[str]) -> None:
    """With the preset `tiny`: the pretraining runs, and one run of every other notebook."""
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "src" / "sparsejepa", root / "src" / "sparsejepa")
    preset = {"01_pretrain": STUDY["01_pretrain"]}
    for name in [name for name in notebooks if name != "01_pretrain"]:
        needs = [] if name in ALONE else ["01_pretrain"]
        preset[name] = {"parameters": STUDY[name], "needs": needs, "runs": {"all": {}}}
    (root / "notebooks" / "presets" / "tiny.yml").write_text(yaml.safe_dump(preset))


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which every notebook has been run once."""
    root = tmp_path_factory.mktemp("study")
    checkout(root, STUDY)
    reproduce(root, load_study(root, "tiny"), jobs=2, threads=1)
    return root


@pytest.fixture(scope="session")
def finished(study: Path) -> Callable[..., SimpleNamespace]:
    """Folder, results and manifest of a run of the study."""

    def read(notebook: str, name: str = "all") -> SimpleNamespace:
        folder = runs_root(study) / "tiny" / notebook / name
        assert (folder / "manifest.json").is_file(), f"{notebook} failed: see its output above"
        results, manifest = (read_json(folder / f"{n}.json") for n in ("results", "manifest"))
        return SimpleNamespace(folder=folder, results=results, manifest=manifest)

    return read
