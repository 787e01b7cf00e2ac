"""Files are whole, have the mode that the umask asks for, and locks work on every file system."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsejepa.atomic_files import locked, write_atomically, write_with

HOLD = """
import sys, time
from pathlib import Path
from sparsejepa.atomic_files import locked
{patch}
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
REFUSED = "import fcntl\ndef refused(*_): raise OSError({}, 'refused')\nfcntl.flock = refused"


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read(tmp_path: Path, monkeypatch, mask: int, mode: int) -> None:
    """Also on mounts that refuse chmod."""
    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, refuse(errno.EPERM))
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()
    assert file.name == "a" and file.stat().st_mode & 0o777 == mode


def refuse(code: int) -> Callable[..., None]:
    def refused(*_: object, **__: object) -> None:
        raise OSError(code, "refused")

    return refused


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / ("x" * 240 + ".png")
    write_atomically(file, b"whole")
    with pytest.raises(OSError, match="what was saved before is intact"):
        write_with(file, fail)
    assert file.read_bytes() == b"whole"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.skipif(sys.platform == "win32", reason="flock is refused here")
@pytest.mark.parametrize("code", [None, errno.ENOSYS, errno.ENOLCK])
def test_one_process_holds_a_lock_until_it_dies(
    tmp_path: Path, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without `flock`: refused while held, free after a kill and after a release."""
    patch = "" if code is None else REFUSED.format(code)
    file = tmp_path / "folder" / ".lock"
    command = [sys.executable, "-c", HOLD.format(patch=patch), file]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    if code is not None:
        monkeypatch.setattr("fcntl.flock", refuse(code))
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=str(file)), locked(file):
            pass
    finally:
        holder.kill()
        holder.communicate()
    for _ in range(2):
        with locked(file), pytest.raises(ValueError, match="Another process"), locked(file):
            pass
