"""What a run's manifest says, and when a run counts as stale."""

import json
import math
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

from sparsejepa.companion import manifest, provenance
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.manifest import open_run, seal_run, staleness, without_times
from sparsejepa.training.code import code_sha256
from tests.companion.tiny_repository import TOY, make_repository, toy_notebook

DATA = {"name": "toy", "split": "train", "origin": "drawn", "pixel_sha256": "0" * 64}
PARAMETERS = {"seed": 3, "rate": 0.5, "method": "jepa", "crash": False, "run_names": ""}
RUN = "own/toy/interactive-seed=3"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_repository(tmp_path / "checkout"))
    return Path.cwd()


def finish(**results: object) -> Path:
    """A run made as in plain Jupyter."""
    run = open_run("toy", "", PARAMETERS)
    run.save_results({"answer": 42, **results})
    run.finish(seed=3, precision="fp32", data=DATA)
    return run.folder


@pytest.fixture
def finished(root: Path) -> Path:
    return finish()


def reasons(root: Path, **parameters: object) -> list[str]:
    return staleness(root, RUN, parameters or None)


def certify(root: Path, *parts: str) -> None:
    """A certificate for the code as it is on disk."""
    valid = {"commit": "unknown", **provenance.code_of(root, "toy")}
    valid["training_sha256"] = code_sha256(root / "src" / "sparsejepa")
    made = read_json(root / "book" / "runs" / RUN / "manifest.json")
    of = {"run_sha256": made["sha256"], "trainings": sorted(made["trainings"])}
    manifest.write_certificates(root, {RUN: {"parts": list(parts), "valid_for": valid, **of}})


def test_a_manifest_says_where_a_run_came_from(finished: Path, root: Path):
    """All fields are there, with the values of the run; times lie beside it."""
    written = read_json(finished / "manifest.json")
    assert finished == root / "book" / "runs" / RUN
    assert (written["notebook"], written["parameters"]) == ("toy", PARAMETERS)
    assert (written["seed"], written["precision"], written["data"]) == (3, "fp32", [DATA])
    assert written["command"].startswith("sparsejepa run notebooks/toy.ipynb -p seed=3 -p rate=")
    assert provenance.code_of(root, "toy").items() <= written.items()
    assert written["commit"] == "unknown"
    assert written["versions"]["python"].count(".") == 2 and written["hardware"]["cores"] >= 1
    assert str(root) not in json.dumps(written)
    assert read_json(finished / "timing.json")["notebook_seconds"] >= 0
    assert reasons(root) == reasons(root, seed=3, rate=0.5) == []


def test_equal_runs_have_equal_files(root: Path, finished: Path):
    """Times are the only difference; a critical time of the theory is none."""
    before = (finished / "results.json").read_bytes()
    finish(seconds=1.5, rows=[{"training_minutes": 2.0, "n": 1}])
    assert read_json(finished / "results.json") == {"answer": 42, "rows": [{"n": 1}]}
    times = read_json(finished / "timing.json")["results"]
    assert times == {"seconds": 1.5, "rows": [{"training_minutes": 2.0}]}
    assert (finish() / "results.json").read_bytes() == before
    results = {"time": 1.0, "largest_error_of_a_time": 2.0, "critical_times": {"a": 3.0}}
    measured = {"seconds_per_image": 1, "images_per_second": 1}
    assert without_times(results | measured) == (results, measured)


def test_figures_are_kept_with_their_alt_texts(root: Path):
    """A PNG at 150 dpi, its alt text in the manifest; none without one. Running on keeps them."""
    run, figure = open_run("toy", "", PARAMETERS), Figure(figsize=(2, 1))
    run.save_figure(figure, "loss", "The loss\n  falls.")
    run.finish(seed=0, precision="fp32", data=DATA)
    written = read_json(run.folder / "manifest.json")
    assert written["figures"] == [{"file": "figures/loss.png", "alt": "The loss falls."}]
    header = (run.folder / "figures" / "loss.png").read_bytes()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (300, 150)
    with pytest.raises(ValueError, match="alt text"):
        run.save_figure(figure, "loss", " ")
    # The first cell again: earlier figures stay until new ones replace them.
    open_run("toy", "", PARAMETERS)
    assert (run.folder / "figures" / "loss.png").exists()


def test_results_are_plain_numbers(root: Path):
    """Scalars and arrays of NumPy become numbers and lists; NaN is none, and its place is named."""
    run = open_run("toy", "", PARAMETERS)
    run.save_results({"a": np.float32(0.5), "b": np.arange(2), "c": (np.int64(3), None, True)})
    written = (run.folder / "results.json").read_bytes()
    assert json.loads(written) == {"a": 0.5, "b": [0, 1], "c": [3, None, True]}
    for value in (math.inf, np.float64("nan"), np.array([0, np.nan])):
        with pytest.raises(ValueError, match=r"results\['knn'\]\['top1'\].* is (nan|inf)"):
            run.save_results({"knn": {"top1": value}})
    assert (run.folder / "results.json").read_bytes() == written


def test_an_edited_or_removed_file_is_stale(finished: Path, root: Path):
    """Each file of the run, in folders too; files of others do not count."""
    weights = finished / "weights" / "correct.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"\0\1")
    (finished / ".DS_Store").touch()
    seal_run(finished, read_json(finished / "manifest.json"))
    (finished / "notes.txt").touch()
    (finished / ".DS_Store").unlink()
    # As git changes line ends of text on some systems.
    results = finished / "results.json"
    results.write_bytes(results.read_bytes().replace(b"\n", b"\r\n"))
    assert reasons(root) == []
    results.write_text('{"answer": 43}\n')
    weights.unlink()
    changed = ["results.json is not what the run wrote"]
    assert reasons(root) == [*changed, "weights/correct.safetensors is no longer there"]


def test_an_edited_manifest_is_stale(finished: Path, root: Path):
    """Whatever it says: the card of the page prints it. A damaged one is none."""
    path = finished / "manifest.json"
    written = read_json(path)
    path.write_text(json.dumps(written))
    assert reasons(root) == [], "layout is no content"
    for key in ("seed", "hardware", "files", "library_tree"):
        path.write_text(json.dumps(written | {key: {}}))
        assert reasons(root) == ["manifest.json is not what the run wrote"]
    path.write_text("{")
    assert "damaged" in reasons(root)[0]


def test_changed_code_needs_a_certificate(finished: Path, root: Path):
    """Which names the tree on disk; another change ends it, and an edit by hand is refused."""
    toy, path = root / "src" / "sparsejepa" / "toy.py", root / "book/runs/certificates.json"
    toy.write_text("# A remark.\n" + TOY)
    uncovered = "src/sparsejepa changed since it was made, and no certificate covers that"
    assert reasons(root) == [uncovered]
    certify(root, "training")
    assert reasons(root) == [uncovered], "a certificate of the training is none of its report"
    certify(root, "report", "training")
    assert reasons(root) == []
    old = provenance.code_of(root, "toy")["library_tree"]
    toy.write_text(TOY.replace("42", "43"))
    assert reasons(root) == [uncovered]
    now = provenance.code_of(root, "toy")["library_tree"]
    path.write_text(path.read_text().replace(old, now))
    assert "is not what `sparsejepa certify` wrote" in reasons(root)[0]


def test_a_certificate_covers_kept_trainings(finished: Path, root: Path):
    """Those that the certified run read, as long as the code that trains is the certificate's."""
    written = read_json(finished / "manifest.json")
    seal_run(finished, written | {"trainings": {"demo/trainings/a": {}, "demo/trainings/gone": {}}})
    training = root / "book/runs/demo/trainings/a"
    write_json(training / "training.json", {"code_sha256": "of other code"})
    assert manifest.valid_trainings(root) == set()
    certify(root, "training")
    assert manifest.valid_trainings(root) == {training}
    (root / "src" / "sparsejepa" / "toy.py").write_text(TOY.replace("42", "43"))
    assert manifest.valid_trainings(root), "a report's code trains nothing"
    (root / "src" / "sparsejepa" / "config.py").write_text("# Other code.\n")
    assert manifest.valid_trainings(root) == set()


def test_staleness_names_the_notebook_and_the_parameter(finished: Path, root: Path):
    """A changed preset, a default that it does not override, code; prose is none.

    A run tells its preset without the parameter, which notebooks had not always.
    """
    assert reasons(root, seed=4) == ["the parameter seed was 3 and is 4 now"]
    assert reasons(root, rate=0.5) == ["the parameter seed was 3 and is 0 now"]
    notebook = toy_notebook()
    notebook.cells[0].source += "\nMore words."
    nbformat.write(notebook, root / "notebooks" / "toy.ipynb")
    assert reasons(root) == []
    notebook.cells[1].source += '\npreset: str = ""'
    nbformat.write(notebook, root / "notebooks" / "toy.ipynb")
    assert reasons(root)[0].startswith("notebooks/toy.ipynb changed since it was made")
    certify(root, "report")
    assert reasons(root, seed=3, preset="own") == []
    (other,) = reasons(root, seed=3, preset="demo")
    assert other == "the parameter preset was 'own' and is 'demo' now"


def test_two_kernels_do_not_share_an_interactive_run(root: Path):
    """The second one says so; the first one may open it again."""
    for _ in range(2):
        open_run("toy", "", PARAMETERS)
    code = f"from sparsejepa.companion.manifest import open_run; open_run('toy', '', {PARAMETERS})"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ValueError: Another process holds" in second.stderr


def test_the_manifest_module_needs_no_torch():
    """The book reads manifests with the [book] extra alone."""
    code = "import sys, sparsejepa.companion.manifest; print(*sys.modules)"
    imported = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"torch", "papermill", "timm", "numpy", "matplotlib", "nbformat"} & set(imported)
