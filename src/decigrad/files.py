"""Files that are replaced as a whole."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end, on the disk.

    At every moment `path` is the old file or the new one in full. Where the block raises, the old one stays.
    A link is followed, so that it stays a link; parent folders are created.

    Raises:
        OSError: `path` is a folder or cannot be written.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # the new name is on the disk once its folder is
        folder = os.open(target.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomically(path: str | Path, text: str, *, what: str = "the file") -> None:
    """Write UTF-8 text to a temporary file beside `path`, flush it to disk, and rename it into place.

    Raises:
        OSError: of the original kind, naming the path and what to do about it.
    """
    try:
        with replacing(path) as beside:
            beside.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        advice = {
            errno.EACCES: "choose a folder you may write to",
            errno.EPERM: "choose a folder you may write to",
            errno.EROFS: "choose a folder on a disk that is not read-only",
            errno.ENOSPC: f"free {len(text) / 1e6:.1f} MB or choose another disk",
            errno.EDQUOT: f"free {len(text) / 1e6:.1f} MB of your quota or choose another disk",
            errno.EISDIR: "name a file in it",
            errno.ENOTDIR: "a parent of the path is a file, not a folder",
            errno.EEXIST: "a parent of the path is a file, not a folder",
            errno.ENAMETOOLONG: "choose a shorter name",
        }.get(error.errno or 0, "choose another path")
        message = f"cannot write {what}: {reason}; {advice}"
        raise OSError(error.errno or errno.EIO, message, str(path)) from error
