"""Looks at this machine and says what is missing, and what to do about it."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from sparsejepa.companion.provenance import cores, cpu_model, installed

# Without these no notebook runs.
NEEDED = ("torch", "timm", "accelerate", "papermill", "ipykernel", "seaborn", "scikit-learn")

# Checkpoints, executed notebooks and the decoded CIFAR-100 together stay below this.
FREE_DISK_GB = 2

# "ok"; "note": works, but worth knowing; "fail": notebooks cannot run. What is the case, and what
# to do.
Finding = tuple[str, str]


def examine(root: Path) -> Iterator[Finding]:
    """Everything worth knowing before a run in the checkout `root`, line by line."""
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield "ok", f"Python {version}"
    else:
        state = "fail" if sys.version_info < (3, 11) else "note"
        yield state, f"Python {version} is untested: make an environment with 3.11 to 3.13"
    yield from _packages(root)
    yield "ok", f"{cores()} cores of {cpu_model()}"
    if installed("torch"):
        yield "ok", _device()
    yield "ok", "data set scenes: drawn on the spot, needs nothing"
    yield _cifar100(root)
    free = shutil.disk_usage(root).free / 1e9
    if not os.access(root, os.W_OK):
        yield "fail", "the checkout cannot be written: clone it where you may write"
    elif free < FREE_DISK_GB:
        yield "note", f"{free:.1f} GB of disk free: make room for {FREE_DISK_GB} GB"
    else:
        yield "ok", f"{free:.0f} GB of disk free"


def _packages(root: Path) -> Iterator[Finding]:
    missing = [name for name in NEEDED if not installed(name)]
    if missing:
        yield "fail", f"not installed: {', '.join(missing)}: run pip install -e '.[train,book]'"
    if not installed("snakemake"):
        yield "note", "no snakemake, for clusters: run pip install -e '.[study]'"
    constraints = root / "constraints.txt"
    if not constraints.is_file():
        yield "note", "no constraints.txt here: versions were not compared"
        return
    text = constraints.read_text(encoding="utf-8")
    other = [
        f"{name} {installed(name)} (tested {version})"
        for name, version in re.findall(r"^([\w.-]+)==([^\s;#]+)", text, re.MULTILINE)
        # A build mark such as +cpu or +cu128 is not another version.
        if installed(name).partition("+")[0] not in ("", version.partition("+")[0])
    ]
    if other:
        yield (
            "note",
            f"other versions than tested, numbers may differ slightly: {', '.join(other)}; "
            "for the tested ones: pip install -c constraints.txt -e '.[train,book]'",
        )
    elif not missing:
        yield "ok", "packages are of the tested versions"


def _device() -> str:
    # Takes seconds, and only this line needs it.
    import torch

    from sparsejepa.training.precision import choose_device, choose_precision

    device = choose_device()
    precision = f"precision {choose_precision(device).name}, PyTorch {torch.__version__}"
    if device.type == "cuda":
        return f"device cuda: {torch.cuda.get_device_name(0)}, {precision}"
    return f"device cpu, {precision}: made for it are the presets demo and reference"


def _cifar100(root: Path) -> Finding:
    variable = os.environ.get("SPARSEJEPA_DATA")
    if not variable:
        return (
            "note",
            "data set cifar100: would be downloaded from the Hugging Face Hub (about 150 MB); "
            "without a network, set SPARSEJEPA_DATA to a folder with cifar100/train-*.parquet",
        )
    # Notebooks run in the checkout's folder: a relative path starts there.
    folder = root / Path(variable).expanduser() / "cifar100"
    missing = [split for split in ("train", "test") if not list(folder.glob(f"{split}*.parquet"))]
    if not missing:
        return "ok", "data set cifar100: local Parquet under $SPARSEJEPA_DATA"
    return (
        "note",
        f"data set cifar100: $SPARSEJEPA_DATA/cifar100 has no {' and no '.join(missing)} Parquet "
        "file, so it would come from the Hugging Face Hub: put the files there, or unset it",
    )
