"""What a run's manifest says, and when a run counts as stale."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

from sparsejepa.companion import manifest
from sparsejepa.companion.files import plain
from sparsejepa.companion.manifest import open_run, source_hash, staleness
from sparsejepa.companion.run_files import seal
from tests.companion.tiny_repository import TOY, make_repository, toy_notebook
from tests.repository import ROOT

DATA = {"name": "toy", "split": "train", "origin": "drawn", "pixel_sha256": "0" * 64}
PARAMETERS = {"seed": 3, "rate": 0.5, "method": "jepa", "crash": False}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_repository(tmp_path / "checkout"))
    return Path.cwd()


@pytest.fixture
def finished(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run made as in plain Jupyter, by a kernel that has imported the toy module."""
    toy = ModuleType("sparsejepa.toy")
    toy.__file__ = str(root / "src" / "sparsejepa" / "toy.py")
    monkeypatch.setattr(manifest, "sys", SimpleNamespace(modules={"sparsejepa.toy": toy}))
    run = open_run("toy", "", PARAMETERS)
    run.save_results({"answer": 42})
    run.finish(seed=3, precision="fp32", data=DATA)
    return run.folder


def reasons(root: Path, folder: Path, **parameters: object) -> list[str]:
    source = root / "notebooks" / "toy.ipynb"
    return staleness(folder, source, root / "src", parameters or None)


def test_a_manifest_says_where_a_run_came_from(finished: Path, root: Path):
    """All fields are there, with the values of the run."""
    written = json.loads((finished / "manifest.json").read_text())
    assert finished == root / "book" / "runs" / "own" / "toy" / "interactive"
    assert written["notebook"] == "toy"
    assert written["parameters"] == PARAMETERS
    assert (written["seed"], written["precision"], written["data"]) == (3, "fp32", DATA)
    assert written["command"].startswith("sparsejepa run notebooks/toy.ipynb -p seed=3 -p rate=")
    assert written["source_sha256"] == source_hash(root / "notebooks" / "toy.ipynb")
    assert list(written["library_sha256"]) == ["sparsejepa.toy"]
    assert written["commit"] == "unknown"
    assert written["versions"]["python"].count(".") == 2
    assert written["hardware"]["cores"] >= 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", written["started_utc"])
    assert written["wall_seconds"] >= 0 and written["resumed"] is False
    assert str(root) not in json.dumps(written)


def test_figures_are_kept_with_their_alt_texts(root: Path):
    """A PNG at 150 dpi, its alt text in the manifest; none without one."""
    run = open_run("toy", "", PARAMETERS)
    figure = Figure(figsize=(2, 1))
    run.save_figure(figure, "loss", "The loss\n  falls.")
    run.finish(seed=0, precision="fp32", data=DATA)
    written = json.loads((run.folder / "manifest.json").read_text())
    assert written["figures"] == [{"file": "figures/loss.png", "alt": "The loss falls."}]
    header = (run.folder / "figures" / "loss.png").read_bytes()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (300, 150)
    with pytest.raises(ValueError, match="alt text"):
        run.save_figure(figure, "loss", " ")
    with pytest.raises(ValueError, match="only a-z"):
        run.save_figure(figure, "../loss", "The loss falls.")


def test_results_are_plain_numbers():
    """NumPy scalars and arrays become numbers and lists."""
    results = {"top1": np.float32(0.5), "counts": np.arange(2), "n": (np.int64(3), None, True)}
    written = plain(results, "results")
    assert written == {"top1": 0.5, "counts": [0, 1], "n": [3, None, True]}
    assert type(written["top1"]) is float and type(written["n"][0]) is int


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float64("nan"), np.array([0, np.nan])])
def test_nan_is_no_result(root: Path, value: object):
    """The place is named, and the earlier results stay."""
    run = open_run("toy", "", PARAMETERS)
    run.save_results({"top1": 0.5})
    with pytest.raises(ValueError, match=r"results\['knn'\]\['top1'\].* is (nan|inf)"):
        run.save_results({"knn": {"top1": value}})
    assert json.loads((run.folder / "results.json").read_text()) == {"top1": 0.5}


def test_a_fresh_run_is_fresh(finished: Path, root: Path):
    """Nothing changed, no reasons; the run's preset gives the same parameters in other words."""
    assert reasons(root, finished) == []
    assert reasons(root, finished, seed=3, rate=0.5) == []


def test_a_missing_or_damaged_manifest_is_stale(finished: Path, root: Path):
    """A manifest means a finished run."""
    (finished / "manifest.json").write_text("{")
    assert "damaged" in reasons(root, finished)[0]
    (finished / "manifest.json").unlink()
    assert "not been run" in reasons(root, finished)[0]


@pytest.mark.parametrize(
    ("name", "edited"),
    [
        ("results.json", b'{"answer": 43}\n'),
        ("weights/encoder.safetensors", b"\0\2"),
    ],
)
def test_an_edited_or_removed_file_is_stale(finished: Path, root: Path, name: str, edited: bytes):
    """Each file of the run, in folders too; files of others do not count."""
    weights = finished / "weights" / "encoder.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"\0\1")
    (finished / ".DS_Store").touch()
    (finished / "checkpoints").mkdir()
    (finished / "checkpoints" / "step.bin").touch()
    seal(finished)
    listed = json.loads((finished / "manifest.json").read_text())["files"]
    assert list(listed) == ["results.json", "weights/encoder.safetensors"]
    (finished / "notes.txt").touch()
    (finished / ".DS_Store").unlink()
    assert reasons(root, finished) == []
    (finished / name).write_bytes(edited)
    assert reasons(root, finished) == [f"{name} is not what the run wrote"]
    (finished / name).unlink()
    assert reasons(root, finished) == [f"{name} is no longer there"]


@pytest.mark.parametrize("key", ["seed", "wall_seconds", "hardware", "files"])
def test_an_edited_manifest_is_stale(finished: Path, root: Path, key: str):
    """Whatever it says: the card of the page prints it."""
    manifest = json.loads((finished / "manifest.json").read_text())
    (finished / "manifest.json").write_text(json.dumps(manifest))
    assert reasons(root, finished) == [], "layout is no content"
    (finished / "manifest.json").write_text(json.dumps(manifest | {key: {}}))
    assert reasons(root, finished) == ["manifest.json is not what the run wrote"]
    del manifest["files"]
    (finished / "manifest.json").write_text(json.dumps(manifest))
    assert "as those of older versions: run it again" in reasons(root, finished)[0]


def test_line_ends_of_text_may_change(finished: Path, root: Path):
    """As git does to them on some systems; a picture's bytes may not."""
    results, figure = finished / "results.json", finished / "figures" / "loss.png"
    figure.parent.mkdir()
    figure.write_bytes(b"\x89PNG\r\n")
    seal(finished)
    results.write_bytes(results.read_bytes().replace(b"\n", b"\r\n"))
    assert reasons(root, finished) == []
    figure.write_bytes(b"\x89PNG\n")
    assert reasons(root, finished) == ["figures/loss.png is not what the run wrote"]


def test_staleness_names_the_library_file(finished: Path, root: Path):
    """A remark changes nothing; code does; so does taking the file away."""
    toy = root / "src" / "sparsejepa" / "toy.py"
    toy.write_text("# A remark.\n" + TOY.replace("The answer.", "The reply."))
    assert reasons(root, finished) == []
    toy.write_text(TOY.replace("42", "43"))
    assert reasons(root, finished) == ["src/sparsejepa/toy.py has changed since the run"]
    toy.unlink()
    assert reasons(root, finished)[0].startswith("src/sparsejepa/toy.py, which the run used,")


def test_staleness_names_the_notebook_and_the_parameter(finished: Path, root: Path):
    """A changed preset, or a default that the preset does not override."""
    assert reasons(root, finished, seed=4) == ["the parameter seed was 3 and is 4 now"]
    assert reasons(root, finished, rate=0.5) == ["the parameter seed was 3 and is 0 now"]
    notebook = toy_notebook()
    notebook.cells[-1].source += "\n1 + 1"
    nbformat.write(notebook, root / "notebooks" / "toy.ipynb")
    assert reasons(root, finished) == ["notebooks/toy.ipynb has changed since the run"]


def test_starting_again_ends_the_earlier_manifest(finished: Path):
    """A run that is under way is not a finished one."""
    open_run("toy", "", PARAMETERS)
    assert not (finished / "manifest.json").exists()


def test_checkpoints_of_other_parameters_are_not_resumed(
    root: Path, capsys: pytest.CaptureFixture[str]
):
    """They stay for the same inputs, the notebook's own code apart, and go for others."""
    checkpoint = open_run("toy", "", PARAMETERS).folder / "checkpoints" / "step.txt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    notebook = toy_notebook()
    notebook.cells[-1].source += "\n1 + 1"
    nbformat.write(notebook, root / "notebooks" / "toy.ipynb")
    open_run("toy", "", PARAMETERS)
    assert checkpoint.exists() and "Going on" in capsys.readouterr().out
    open_run("toy", "", PARAMETERS | {"seed": 4})
    assert not checkpoint.exists()
    assert "the parameter seed was 3 and is 4 now" in capsys.readouterr().out


def test_the_manifest_module_needs_no_torch():
    """The book reads manifests with the [book] extra alone."""
    code = "import sys, sparsejepa.companion.manifest; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src"
    ).stdout.split()
    absent = {"torch", "papermill", "timm", "numpy", "matplotlib", "nbformat"}
    assert not absent & set(imported)
