"""A checkout in a few files: one notebook that needs no torch, one preset, the real companion."""

import shutil
import subprocess
from pathlib import Path

import nbformat
import yaml

from tests.repository import ROOT

PARAMETERS = """run_folder: str = ""
seed: int = 0  # the seed of everything
rate: float = 0.5
method: str = "jepa"
crash: bool = False
run_names: str = ""  # of the runs to read"""

START = """import sys
import time
from pathlib import Path

from sparsejepa.companion.manifest import open_run
from sparsejepa.toy import answer

run = open_run("toy", run_folder, globals())
print("working in", Path.cwd(), "of", Path.home(), "into", run.folder)
for step in range(3):
    print(f"\\rstep {step}", end="", file=sys.stderr)"""

# A file "wait" in the checkout makes the notebook wait to be killed.
TRAIN = """if Path("wait").exists():
    Path("waiting").touch()
    time.sleep(600)
if crash:
    raise ValueError(f"the loss is nan\\nin {Path.cwd()}")"""

FINISH = """run.save_results({"answer": answer(), "seconds": time.monotonic()})
data = {"name": "toy", "split": "train", "origin": "drawn", "pixel_sha256": "0" * 64}
run.finish(seed=seed, precision="fp32", data=data)"""

TOY = '''"""A module that the notebook uses."""


def answer() -> int:
    """The answer."""
    return 42
'''

SEEDS = {"jepa-seed0": {"seed": 0}, "jepa-seed1": {"seed": 1}}
PRESET = {"toy": {"parameters": {"rate": 0.25}, "needs": [], "runs": SEEDS}}


def toy_notebook(parameters: str = PARAMETERS) -> nbformat.NotebookNode:
    """The clean notebook."""
    cells = [
        nbformat.v4.new_markdown_cell("# A toy"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *(nbformat.v4.new_code_cell(source) for source in (START, TRAIN, FINISH)),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def make_repository(root: Path) -> Path:
    """Writes the checkout into the folder `root` and returns it."""
    (root / "notebooks" / "presets").mkdir(parents=True)
    nbformat.write(toy_notebook(), root / "notebooks" / "toy.ipynb")
    write_preset(root, PRESET)
    library, source = root / "src" / "sparsejepa", ROOT / "src" / "sparsejepa"
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "companion", library / "companion", ignore=leave_out)
    (library / "training").mkdir()
    for part in ("__init__", "atomic_files", "cli", "training/__init__", "training/code"):
        shutil.copy(source / f"{part}.py", library / f"{part}.py")
    (library / "toy.py").write_text(TOY)
    shutil.copy(ROOT / "Snakefile", root)
    return root


def write_preset(root: Path, preset: dict, name: str = "demo") -> None:
    text = yaml.safe_dump(preset, sort_keys=False)
    (root / "notebooks" / "presets" / f"{name}.yml").write_text(text)


def git(root: Path, *arguments: str) -> None:
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", root, *name, *arguments], check=True, capture_output=True)
