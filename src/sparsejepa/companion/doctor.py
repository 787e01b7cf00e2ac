"""Looks at this machine and says what is missing, and what to do about it."""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsejepa.companion.provenance import cores, cpu_model

# Without these no notebook runs.
NEEDED = ("torch", "timm", "accelerate", "papermill", "ipykernel", "seaborn", "scikit-learn")

# Checkpoints, executed notebooks and the decoded CIFAR-100 together stay below this.
FREE_DISK_GB = 2


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    state: str  # "ok"; "note": works, but worth knowing; "fail": notebooks cannot run
    text: str  # what is the case and, unless it is ok, what to do


def examine(root: Path) -> Iterator[Finding]:
    """Everything worth knowing before a run in the checkout `root`, line by line."""
    yield _python()
    yield from _packages(root)
    yield Finding("ok", f"{cores()} cores of {cpu_model()}")
    if _installed("torch"):
        yield _device()
    yield Finding("ok", "data set scenes: drawn on the spot, needs nothing")
    yield _cifar100(root)
    yield _disk(root)


def _python() -> Finding:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("ok", f"Python {version}")
    state = "fail" if sys.version_info < (3, 11) else "note"
    return Finding(state, f"Python {version} is untested: make an environment with 3.11 to 3.13")


def _packages(root: Path) -> Iterator[Finding]:
    missing = [name for name in NEEDED if not _installed(name)]
    if missing:
        text = f"not installed: {', '.join(missing)}: run pip install -e '.[train,book]'"
        yield Finding("fail", text)
    if not _installed("snakemake"):
        yield Finding("note", "no snakemake, for clusters: run pip install -e '.[study]'")
    constraints = root / "constraints.txt"
    if not constraints.is_file():
        yield Finding("note", "no constraints.txt here: versions were not compared")
        return
    tested = dict(
        re.findall(r"^([\w.-]+)==([^\s;#]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    )
    # A build mark such as +cpu or +cu128 is not another version.
    other = [
        f"{name} {installed} (tested {version})"
        for name, version in tested.items()
        if (installed := _installed(name))
        and installed.partition("+")[0] != version.partition("+")[0]
    ]
    if other:
        text = "other versions than tested, numbers may differ slightly: "
        advice = "; for the tested ones: pip install -c constraints.txt -e '.[train,book]'"
        yield Finding("note", text + ", ".join(other) + advice)
    elif not missing:
        yield Finding("ok", "packages are of the tested versions")


def _installed(distribution: str) -> str:
    """Its version, "" where it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _device() -> Finding:
    # Takes seconds, and only this line needs it.
    import torch

    from sparsejepa.training.precision import choose_device, choose_precision

    device = choose_device()
    precision = f"precision {choose_precision(device).name}, PyTorch {torch.__version__}"
    if device.type == "cuda":
        return Finding("ok", f"device cuda: {torch.cuda.get_device_name(0)}, {precision}")
    text = f"device cpu, {precision}: made for it are the presets demo and reference"
    return Finding("ok", text)


def _cifar100(root: Path) -> Finding:
    variable = os.environ.get("SPARSEJEPA_DATA")
    if not variable:
        return Finding(
            "note",
            "data set cifar100: would be downloaded from the Hugging Face Hub (about 150 MB); "
            "without a network, set SPARSEJEPA_DATA to a folder with cifar100/train-*.parquet",
        )
    # Notebooks run in the checkout's folder: a relative path starts there.
    folder = root / Path(variable).expanduser() / "cifar100"
    missing = [split for split in ("train", "test") if not list(folder.glob(f"{split}*.parquet"))]
    if not missing:
        return Finding("ok", "data set cifar100: local Parquet under $SPARSEJEPA_DATA")
    return Finding(
        "note",
        f"data set cifar100: $SPARSEJEPA_DATA/cifar100 has no {' and no '.join(missing)} Parquet "
        "file, so it would come from the Hugging Face Hub: put the files there, or unset it",
    )


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free / 1e9
    if not os.access(root, os.W_OK):
        return Finding("fail", "the checkout cannot be written: clone it where you may write")
    if free < FREE_DISK_GB:
        return Finding("note", f"{free:.1f} GB of disk free: make room for {FREE_DISK_GB} GB")
    return Finding("ok", f"{free:.0f} GB of disk free")
