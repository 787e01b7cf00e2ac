"""Printed numbers are computed again from weights and data; an edited one is found."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sparsejepa.cli import app
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.run_files import seal
from sparsejepa.companion.stored_runs import Comparison, NotChecked, Workbench
from sparsejepa.companion.verify import CHECKS, NOT_COVERED, Left, verify
from tests.companion.tiny_repository import make_repository
from tests.companion.tiny_verified import make_data, make_runs
from tests.repository import ROOT

JEPA, SPARSE = "01_pretrain/jepa-seed0", "01_pretrain/sparsejepa-seed0"
SCORES = "04_jepa_score/all"
PAIR = "sparsejepa-seed0 - jepa-seed0"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout with runs, and its data set where the library looks for it."""
    root = make_repository(tmp_path_factory.mktemp("verify") / "checkout")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEJEPA_DATA", str(root / "data"))
        patch.setenv("SPARSEJEPA_CACHE", str(root / "cache"))
        make_data(root / "data")
        make_runs(root)
        yield root


@pytest.fixture
def root(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to be spoiled."""
    shutil.copytree(honest, tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    return Path.cwd()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["verify", "--preset", "tiny", *arguments])


def numbers(root: Path) -> list[Comparison]:
    """What was compared."""
    return [one for one in verify(root, "tiny", 10.0) if isinstance(one, Comparison)]


def named(found: Iterable[Comparison]) -> list[tuple[str, str]]:
    """Run and place of each; a number may be computed again in two ways."""
    return [(one.run.removeprefix("tiny/"), one.place) for one in found]


def test_honest_runs_agree(honest: Path):
    """Probes, shape, information, scores, theory, differences: all, from weights and data."""
    found = numbers(honest)
    assert named(one for one in found if not one.agrees) == []
    names = named(found)
    # Eight accuracies with intervals and two more places from records, then the probes again.
    assert sum(run == JEPA for run, _ in names) == 8 * 3 + 2 + 8
    assert names.count((JEPA, "accuracy > jepa, last 2 blocks > linear probe > value")) == 2
    # Of two encoders: five measures and an eigenvalue; then six detectors of six sets of outliers.
    assert sum(run == "02_probes/all" for run, _ in names) == 2 * 6
    assert ("02_probes/all", "structure > sparsejepa-seed0 > alpha") in names
    outliers = [place for run, place in names if run == SCORES and place.startswith("outliers > ")]
    assert len(outliers) == 2 * 6 * 6
    assert "outliers > jepa-seed0 > Mahalanobis per class > blurred > auroc > value" in outliers
    # Null directions, six properties of images and what they explain; the exact maps.
    assert sum(run == SCORES for run, _ in names) == len(outliers) + 2 * (1 + 6 + 1) + 1
    assert (SCORES, "properties > sparsejepa-seed0 > JPEG size > value") in names
    assert ("03_multiinformation/all", "encoders > toy > jepa-seed0 > total > value") in names
    assert ("05_linear_dynamics/all", "series > 1 > exact") in names
    assert ("07_scorecard/all", f"differences > {PAIR} > kNN > interval > 1") in names


def changed(path: Path, *keys: str | int, by: float) -> None:
    """A number of results.json moved, and the run sealed anew: only computing finds that."""
    content = read_json(path)
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] += by
    write_json(path, content)
    seal(path.parent)


EDITS = [
    (JEPA, ("accuracy", "jepa, last block", "kNN", "value"), 0.02),
    (JEPA, ("accuracy", "jepa, last block", "linear probe", "interval", 0), -0.02),
    (SPARSE, ("accuracy", "untrained encoder, last 2 blocks", "kNN", "value"), 0.01),
    (SPARSE, ("zero_columns",), 0.01),
    ("02_probes/all", ("structure", "jepa-seed0", "rankme"), 0.01),
    ("02_probes/all", ("spectrum", "sparsejepa-seed0", 0), 0.01),
    ("03_multiinformation/all", ("encoders", "toy", "jepa-seed0", "total", "value"), -0.1),
    ("03_multiinformation/all", ("encoders", "toy", "jepa-seed0", "read_latents"), 1),
    (SCORES, ("outliers", "jepa-seed0", "kNN distance", "inverted", "auroc", "value"), 0.02),
    (SCORES, ("exact_error",), 1e-6),
    (SCORES, ("null_directions", "jepa-seed0"), 1),
    (SCORES, ("properties", "sparsejepa-seed0", "contrast", "value"), -0.02),
    (SCORES, ("explained_with_saturation", "jepa-seed0", "value"), 0.02),
    ("05_linear_dynamics/all", ("series", 0, "exact"), 1e-3),
    ("05_linear_dynamics/all", ("slopes", 0, "limit"), 0.1),
    ("07_scorecard/all", ("differences", PAIR, "linear probe", "value"), 0.01),
]


def test_edited_numbers_are_found(root: Path):
    """Even where runs were sealed anew; each place is named, and nothing else differs."""
    for run, keys, by in EDITS:
        changed(root / "book" / "runs" / "tiny" / run / "results.json", *keys, by=by)
    wrong = named(one for one in numbers(root) if not one.agrees)
    assert set(wrong) == {(run, " > ".join(map(str, keys))) for run, keys, _ in EDITS}


def test_answers_edited_together_with_their_accuracy_are_found(root: Path):
    """Then only the weights tell: the probes read something else from them."""
    from safetensors.torch import load_file, save_file

    folder = root / "book" / "runs" / "tiny" / JEPA
    answers = load_file(folder / "correct.safetensors")
    key = "jepa, last block/kNN"
    flipped = answers[key].clone()
    wrong = (flipped == 0).nonzero()[:6, 0]
    flipped[wrong] = 1
    save_file(answers | {key: flipped}, folder / "correct.safetensors")
    place = ("accuracy", "jepa, last block", "kNN", "value")
    changed(folder / "results.json", *place, by=6 / len(flipped))
    differing = [one for one in numbers(root) if not one.agrees]
    whys = [one.tolerance.why for one in differing if one.place == " > ".join(place)]
    assert len(whys) == 1 and "between two classes" in whys[0]


def test_the_command_lists_what_differs(root: Path):
    """A line a number, then exit code 1 and the list on stderr; 0 when all agree."""
    result = call()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == len(numbers(root))
    assert lines[-1].endswith(" numbers agree; 0 lines say that something does not.")
    assert any(line.startswith("- images between two classes") for line in lines)
    results = root / "book" / "runs" / "tiny" / JEPA / "results.json"
    changed(results, "zero_columns", by=0.5)
    (results.parent / "encoder.safetensors").write_bytes(b"")
    result = call("--minutes", "0")
    assert result.exit_code == 1
    edited, differing = result.stderr.splitlines()
    assert edited == f"EDITED   tiny/{JEPA}: encoder.safetensors is not what the run wrote"
    assert differing.startswith(f"DIFFERS  tiny/{JEPA}: zero_columns: printed 0.83")


def test_a_missing_key_is_an_edit(root: Path):
    """Not a traceback."""
    path = root / "book" / "runs" / "tiny" / JEPA / "results.json"
    content = read_json(path)
    del content["chosen"], content["zero_columns"]
    content["parameters"]["encoder"] = "many"
    write_json(path, content)
    seal(path.parent)
    result = call()
    assert result.exit_code == 1
    assert "results.json lacks 'chosen'" in result.stderr
    assert "zero_columns: printed nothing" in result.stderr
    assert "parameters > encoder: printed many" in result.stderr


def test_what_is_not_checked_is_said(root: Path):
    """For want of time or of weights; that is no failure."""
    (root / "book" / "runs" / "tiny" / SPARSE / "encoder.safetensors").unlink()
    seal(root / "book" / "runs" / "tiny" / SPARSE)
    found = list(verify(root, "tiny", 0.0))
    assert all(one.agrees for one in found)
    left = {(one.run, one.what): one.why for one in found if isinstance(one, Left)}
    probes = "probes of the trained encoder"
    assert left[f"tiny/{SPARSE}", probes] == "its weights are not in the run's folder"
    assert "give --minutes" in left[f"tiny/{JEPA}", probes]
    assert call("--minutes", "0").exit_code == 0


def test_time_is_asked_for_before_it_is_spent(tmp_path: Path):
    """As much as was given, on the clock."""
    now = 0.0
    bench = Workbench(tmp_path, minutes=2.0, clock=lambda: now)
    bench.spend(119.0)
    now = 100.0
    bench.spend(19.0)
    with pytest.raises(NotChecked, match="about 2 more"):
        bench.spend(140.0)


def test_a_missing_data_set_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch):
    """And another one of the same name is not taken for the run's."""
    train = root / "data" / "toy" / "train-00000-of-00001.parquet"
    monkeypatch.setenv("SPARSEJEPA_DATA", str(root / "elsewhere"))
    result = call()
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and "holds no Parquet files" in result.stderr
    monkeypatch.setenv("SPARSEJEPA_DATA", str(root / "data"))
    shutil.copy(root / "data" / "toy" / "test-00000-of-00001.parquet", train)
    result = call()
    assert result.exit_code == 2
    assert f"toy train is not the image set of tiny/{SCORES}" in result.stderr


def test_a_preset_without_runs_is_one_sentence(root: Path):
    """With the command that makes them, or with the presets that there are."""
    for preset, message in (("demo", "reproduce --preset demo` first"), ("dmo", "no preset 'dmo'")):
        result = CliRunner().invoke(app, ["verify", "--preset", preset])
        assert result.exit_code == 2
        assert message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(
    not list(Path(os.environ.get("SPARSEJEPA_DATA", "/nowhere"), "cifar100").glob("*.parquet")),
    reason="needs cifar100 under $SPARSEJEPA_DATA",
)
def test_committed_numbers_are_those_of_their_weights_and_data():
    """As much of the reference study as fits five minutes."""
    found = list(verify(ROOT, "reference", 5.0))
    assert [one.line() for one in found if not one.agrees] == []
    assert {"01_pretrain", "07_scorecard"} <= {one.run.split("/")[1] for one in found}


def test_every_notebook_is_checked_or_said_not_to_be():
    """A notebook to come is not forgotten silently."""
    known = {check.notebook for check in CHECKS} | set(NOT_COVERED)
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == known
