"""A hash of the source that trains; without torch, so that the book and a dry run may ask."""

import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# What trains. What watches a training belongs to its history only, which `certify` compares.
TRAINING_CODE = ("config.py", "randomness.py", "data", "model", "training")


def code_sha256(package: Path = PACKAGE) -> str:
    """SHA-256 of the source files that train, in the folder of the library `package`."""
    digest = hashlib.sha256()
    for path in (package / room for room in TRAINING_CODE):
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(f"{file.relative_to(package).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()
