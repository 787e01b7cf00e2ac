"""Files written whole or not at all, and a lock that one process holds at a time."""

import contextlib
import errno
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What file systems without `flock` answer: Lustre, some NFS, FUSE.
NO_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


def write_with(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a temporary file beside `path`, then puts it in place in one step.

    The file gets the mode that the umask asks for, without `chmod`, which some mounts refuse.

    Raises:
        OSError: the folder can't be written or the disk is full; an earlier file is untouched.
    """
    # The suffix tells figure writers the format.
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.open("xb").close()
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"Could not save {path} ({error.strerror or error}); what was saved before is intact. "
            f"Free some disk space or choose a writable folder, then run again to resume",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content` in one step; raises OSError as `write_with`."""
    write_with(path, lambda temporary: temporary.write_bytes(content))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, which stays behind empty; a dead holder's lock is no lock.

    Where the file system has no `flock`, a marker file beside it holds the process id and host of
    the holder: a marker that a killed process of another host left has to be removed by hand.

    Raises:
        ValueError: another process holds it.
        OSError: the folder cannot be written.
    """
    # Slow to import, and not needed to read a run.
    from filelock import FileLock, SoftFileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    with warnings.catch_warnings(action="ignore"):  # filelock itself falls back for ENOSYS
        try:
            try:
                lock.acquire(blocking=False)
            except (OSError, NotImplementedError) as error:
                if getattr(error, "errno", errno.ENOSYS) not in NO_FLOCK:
                    raise
                lock = SoftFileLock(path.with_name(f"{path.name}.held"))
                lock.acquire(blocking=False)
        except Timeout as error:
            raise ValueError(
                f"Another process holds {lock.lock_file}: wait for it or stop it. If there is "
                "none, on no machine that uses this folder, remove that file."
            ) from error
    try:
        yield
    finally:
        lock.release()
