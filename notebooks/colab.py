"""What every notebook does first on Colab; its first cell has fetched the repository."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def prepare(drive: str) -> None:
    """Installs what the runtime lacks, and goes to the repository's root.

    `drive`: a folder of the reader's Google Drive in which runs and checkpoints are kept, or "".
    """
    if importlib.util.find_spec("jaxtyping") is None:
        # --no-deps: Colab has torch and timm, and moving its numpy would break the session.
        install = f"pip install -q --no-deps -e {ROOT} jaxtyping wadler-lindig"
        subprocess.run([sys.executable, "-m", *install.split()], check=True)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))  # this kernel began before the installation
    if drive:
        from google.colab import drive as google_drive

        google_drive.mount(str(ROOT.parent / "drive"))
        kept = ROOT.parent / "drive" / "MyDrive" / drive
        kept.mkdir(parents=True, exist_ok=True)
        own = ROOT / "book" / "runs" / "own"
        own.unlink(missing_ok=True)
        own.symlink_to(kept)
