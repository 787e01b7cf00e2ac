"""Looks at this machine and says what is missing, and what to do about it."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sparsejepa.companion.provenance import hardware, installed

# Without these no notebook runs.
NEEDED = ("torch", "timm", "accelerate", "papermill", "ipykernel", "seaborn", "scikit-learn")


def examine(root: Path) -> Iterator[tuple[str, str]]:
    """What is worth knowing before a run in the checkout `root`, and what to do.

    Each begins with "ok", "note" (works, but worth knowing) or "fail" (notebooks cannot run).
    """
    untested = " is untested: make an environment with 3.11 to 3.13"
    new = sys.version_info >= (3, 14)
    yield "note" if new else "ok", f"Python {platform.python_version()}{untested * new}"
    if missing := [name for name in NEEDED if not installed(name)]:
        yield "fail", f"not installed: {', '.join(missing)}: run pip install -e '.[train,book]'"
    file = root / "constraints.txt"
    pins = file.read_text(encoding="utf-8") if file.is_file() else ""
    # A build mark such as +cpu or +cu128 is not another version.
    other = [
        f"{name} {installed(name)} (tested {version})"
        for name, version in re.findall(r"^([\w.-]+)==([^\s;#]+)", pins, re.MULTILINE)
        if installed(name).partition("+")[0] not in ("", version.partition("+")[0])
    ]
    if other:
        what = f"other versions than tested, numbers may differ slightly: {', '.join(other)}"
        how = "for the tested ones: pip install -c constraints.txt -e '.[train,book]'"
        yield "note", f"{what}; {how}"
    yield "ok", "{cores} cores of {cpu}".format(**hardware())
    if installed("torch"):
        # Takes seconds, and only this line needs it.
        import torch

        from sparsejepa.training.precision import choose_device, choose_precision

        device = choose_device()
        name = torch.cuda.get_device_name(0) if device.type == "cuda" else platform.machine()
        what = f"device {device.type}: {name}, precision {choose_precision(device).name}"
        yield "ok", f"{what}, PyTorch {torch.__version__}"
    # Notebooks run in the checkout's folder: a relative path starts there.
    folder = root / Path(os.environ.get("SPARSEJEPA_DATA", "")).expanduser() / "cifar100"
    if lacks := [s for s in ("train", "test") if not list(folder.glob(f"{s}*.parquet"))]:
        what = f"$SPARSEJEPA_DATA/cifar100 has no {' and no '.join(lacks)} Parquet file"
        then = "it would come from the Hugging Face Hub (150 MB); objects needs nothing"
        yield "note", f"data set cifar100: {what}, so {then}"
    else:
        yield "ok", "data set cifar100: local Parquet under $SPARSEJEPA_DATA"
    if not os.access(root, os.W_OK):
        yield "fail", "the checkout cannot be written: clone it where you may write"
