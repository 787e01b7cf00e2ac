"""Presets become lists of runs, and what is stale is decided by content."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sparsejepa.cli import app
from sparsejepa.companion import manifest, runs
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.manifest import seal_run, stale_runs
from sparsejepa.companion.parameters import load_study, own_folder
from sparsejepa.companion.provenance import runs_root
from sparsejepa.companion.runs import run_notebook
from sparsejepa.training.code import code_sha256
from tests.companion.tiny_repository import PRESET, TOY, make_repository, write_preset
from tests.repository import ROOT

VALUES = st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False), st.text())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    # A folder's name may hold what YAML, shells and format strings take for their own.
    return make_repository(tmp_path / "a {b} #c: d")


def write(root: Path, text: bytes) -> None:
    (root / "notebooks" / "presets" / "demo.yml").write_bytes(text)


def two_notebooks(root: Path) -> None:
    """`report` needs `toy`."""
    notebooks = root / "notebooks"
    text = (notebooks / "toy.ipynb").read_text()
    (notebooks / "report.ipynb").write_text(text.replace('open_run(\\"toy', 'open_run(\\"report'))
    write_preset(root, {**PRESET, "report": {"needs": ["toy"], "runs": {"all": {}}}})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"runs": {"a": {"sed": 1}}}, "presets/demo.yml, run a: notebooks/toy.ipynb has no param"),
        ({"parameters": {"seed": "x"}}, "presets/demo.yml: notebooks/toy.ipynb: seed must be int"),
        ({"rns": {}}, "presets/demo.yml, toy.rns: Extra inputs are not permitted"),
        ({"needs": ["toy"]}, "presets/demo.yml, toy: needs 'toy', which is not above it."),
        ({"runs": None}, "toy.runs: Input should be a valid dictionary, not 'null'."),
        *(({"runs": {name: {}}}, "String should match") for name in ("a/b", "..", "a\n", "é")),
    ],
)
def test_a_wrong_preset_is_one_sentence(root: Path, section: Any, message: str):
    """Which names the file and the place in it."""
    write_preset(root, {"toy": section})
    with pytest.raises(ValueError) as error:
        load_study(root, "demo")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_yaml_is_one_sentence(root: Path):
    """With what YAML says of it."""
    for text in (b"toy:\n  runs: {a: {seed: 1}\n", b"toy: \x00", b"toy: \xff"):
        write(root, text)
        with pytest.raises(ValueError, match="presets/demo.yml is not YAML: [^\n]*$"):
            load_study(root, "demo")


def test_yaml_reads_names_and_numbers_as_people_do(root: Path):
    """1e-3, which YAML takes for a word, and 1 are floats; 010 is ten, not an octal eight."""
    write(root, b"toy: {runs: {.a: {rate: 1e-3, seed: 010}, lambda_0.1+2: {rate: 1}, 2: {}}}")
    first, second, third = load_study(root, "demo")
    assert (first.parameters, second.parameters["rate"]) == ({"rate": 0.001, "seed": 10}, 1.0)
    assert (first.name, second.name, third.name) == (".a", "lambda_0.1+2", "2")
    write(root, b"toy: {runs: {a: {rate: 1:30}}}")
    with pytest.raises(ValueError, match="rate must be a finite float, not '1:30'"):
        load_study(root, "demo")


def test_runs_come_after_what_they_need(root: Path):
    """As in the preset, of the runs that they name; own parameters lie over the preset's."""
    two_notebooks(root)
    runs = load_study(root, "demo")
    assert " ".join(r.id for r in runs) == "demo/toy/jepa-seed0 demo/toy/jepa-seed1 demo/report/all"
    assert runs[1].parameters == {"rate": 0.25, "seed": 1}
    some = {"needs": ["toy"], "runs": {"all": {"run_names": "other-*, *-seed[1-3]"}}}
    write_preset(root, {**PRESET, "report": some})
    assert [need.name for need in load_study(root, "demo")[-1].needs] == ["jepa-seed1"]


def test_own_runs_have_readable_folders():
    """Which say what was changed, and never are a named run's."""
    overrides = {"seed": 1, "minutes": 3.0, "method": "sparsejepa"}
    expected = Path("own/01_pretrain/reference-method=sparsejepa-minutes=3.0-seed=1")
    assert own_folder("01_pretrain", "reference", overrides) == expected


@given(
    *[st.dictionaries(st.sampled_from(["seed", "rate", "weight_decay"]), VALUES, max_size=3)] * 2
)
def test_other_overrides_have_another_folder(one: dict, other: dict):
    """No run overwrites a run with other parameters, or a named run, however odd their values."""
    same = {k: str(v) for k, v in one.items()} == {k: str(v) for k, v in other.items()}
    folders = own_folder("toy", "demo", one), own_folder("toy", "demo", other)
    assert re.fullmatch(r"own/toy/demo[\w.+=-]{0,106}", str(folders[0]))
    assert same or folders[0] != folders[1]


def test_what_needs_a_failed_run_is_not_started(root: Path):
    """All else is made, never more than `jobs` at a time."""
    two_notebooks(root)
    source = root / "notebooks" / "toy.ipynb"
    source.write_text(source.read_text().replace("if crash:", "if seed == 0:"))
    runs.reproduce(root, load_study(root, "demo"), jobs=2, threads=1)
    made = {path.parent.name for path in runs_root(root).glob("demo/*/*/manifest.json")}
    assert made == {"jepa-seed1"}


def test_a_study_makes_what_is_stale_and_only_that(root: Path, monkeypatch: pytest.MonkeyPatch):
    """In the order of needs; what is fresh stays, whatever the times of its files."""
    two_notebooks(root)
    monkeypatch.chdir(root)
    demo = runs_root(root) / "demo"
    seed0, seed1, report = (demo / n for n in ("toy/jepa-seed0", "toy/jepa-seed1", "report/all"))
    run_notebook(root, Path("toy"), "demo", "jepa-seed0")
    before = (seed0 / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match="report needs demo/toy/jepa-seed1, but it has not been"):
        run_notebook(root, Path("report"), "demo", "all")
    # The checkout's own folder has a colon in its name, which ends an entry of PYTHONPATH.
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    made = CliRunner().invoke(app, ["reproduce"])
    assert made.exit_code == 0, made.output
    assert "2 of 2 runs were made" in made.stdout
    assert (seed0 / "manifest.json").read_bytes() == before
    order = [read_json(f / "timing.json")["started_utc"] for f in (seed1, report)]
    assert order == sorted(order)
    # As after a git clone: times of files mean nothing.
    for index, path in enumerate(root.rglob("*")):
        os.utime(path, (1e9 - index, 1e9 - index))
    fresh = CliRunner().invoke(app, ["reproduce"])
    assert (fresh.exit_code, fresh.stdout) == (0, "Every run of demo is fresh.\n")
    toy = root / "src" / "sparsejepa" / "toy.py"
    toy.write_text(TOY.replace("42", "43"))
    stale = {run.name: reasons for run, reasons in stale_runs(root, "demo")}
    assert stale["jepa-seed0"][0].startswith("src/sparsejepa changed since it was made")
    assert "its input demo/toy/jepa-seed0 has to be run" in stale["all"]
    toy.write_text(TOY)
    # Made again with equal results, nothing after it is stale; with others, what read them is.
    run_notebook(root, Path("toy"), "demo", "jepa-seed1")
    assert stale_runs(root, "demo") == []
    write_json(seed1 / "results.json", {"answer": 43})
    seal_run(seed1, read_json(seed1 / "manifest.json"))
    ((run, reasons),) = stale_runs(root, "demo")
    assert run.notebook == "report"
    assert reasons == ["its input demo/toy/jepa-seed1 has changed since"]


def test_a_report_of_kept_trainings_trains_nothing(root: Path):
    """Where its code is that of here; a run that keeps none and reads no others trains."""
    two_notebooks(root)
    toy, other, report = load_study(root, "demo")
    assert manifest.trains(root, toy, set()) and not manifest.trains(root, report, set())
    folder, training = runs_root(root) / toy.id, runs_root(root) / "demo" / "trainings" / "a"
    made = {"preset": "demo", "parameters": toy.parameters, "trainings": {"demo/trainings/a": {}}}
    write_json(folder / "manifest.json", made)
    assert manifest.trains(root, toy, manifest.valid_trainings(root)), "the training is gone"
    write_json(training / "training.json", {"code_sha256": code_sha256(root / "src/sparsejepa")})
    assert manifest.valid_trainings(root) == {training}
    assert not manifest.trains(root, toy, {training})
    write_json(folder / "manifest.json", made | {"parameters": other.parameters})
    assert manifest.trains(root, toy, {training}), "another seed"
