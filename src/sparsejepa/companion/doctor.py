"""Looks at this machine and says what is missing, and what to do about it."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sparsejepa.companion.provenance import cores, cpu_model, installed

# Without these no notebook runs.
NEEDED = ("torch", "timm", "accelerate", "papermill", "ipykernel", "seaborn", "scikit-learn")


def examine(root: Path) -> Iterator[tuple[str, str]]:
    """What is worth knowing before a run in the checkout `root`, line by line, and what to do.

    Each begins with "ok", "note" (works, but worth knowing) or "fail" (notebooks cannot run).
    """
    tested = (3, 11) <= sys.version_info[:2] <= (3, 13)
    untested = "" if tested else " is untested: make an environment with 3.11 to 3.13"
    state = "ok" if tested else "fail" if sys.version_info < (3, 11) else "note"
    yield state, f"Python {platform.python_version()}{untested}"
    if missing := [name for name in NEEDED if not installed(name)]:
        yield "fail", f"not installed: {', '.join(missing)}: run pip install -e '.[train,book]'"
    if other := list(_other_versions(root / "constraints.txt")):
        yield (
            "note",
            f"other versions than tested, numbers may differ slightly: {', '.join(other)}; "
            "for the tested ones: pip install -c constraints.txt -e '.[train,book]'",
        )
    yield "ok", f"{cores()} cores of {cpu_model()}"
    if installed("torch"):
        yield "ok", _device()
    yield _cifar100(root)
    if not os.access(root, os.W_OK):
        yield "fail", "the checkout cannot be written: clone it where you may write"


def _other_versions(constraints: Path) -> Iterator[str]:
    text = constraints.read_text(encoding="utf-8") if constraints.is_file() else ""
    for name, version in re.findall(r"^([\w.-]+)==([^\s;#]+)", text, re.MULTILINE):
        # A build mark such as +cpu or +cu128 is not another version.
        if installed(name).partition("+")[0] not in ("", version.partition("+")[0]):
            yield f"{name} {installed(name)} (tested {version})"


def _device() -> str:
    # Takes seconds, and only this line needs it.
    import torch

    from sparsejepa.training.precision import choose_device, choose_precision

    device = choose_device()
    name = torch.cuda.get_device_name(0) if device.type == "cuda" else platform.machine()
    precision = choose_precision(device).name
    return f"device {device.type}: {name}, precision {precision}, PyTorch {torch.__version__}"


def _cifar100(root: Path) -> tuple[str, str]:
    # Notebooks run in the checkout's folder: a relative path starts there.
    folder = root / Path(os.environ.get("SPARSEJEPA_DATA", "")).expanduser() / "cifar100"
    missing = [split for split in ("train", "test") if not list(folder.glob(f"{split}*.parquet"))]
    if not missing:
        return "ok", "data set cifar100: local Parquet under $SPARSEJEPA_DATA"
    return (
        "note",
        f"data set cifar100: $SPARSEJEPA_DATA/cifar100 has no {' and no '.join(missing)} Parquet "
        "file, so it would come from the Hugging Face Hub (about 150 MB); the data set scenes is "
        "drawn on the spot and needs nothing",
    )
