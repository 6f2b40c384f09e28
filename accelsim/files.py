"""Writing results: a file is either complete or not there, and ``-`` is standard output."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from accelsim.problems import AccelsimError, Problem

STDOUT = "-"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, moved onto it when the block ends well and deleted when it does not.

    Readers therefore see the old file or the whole new one.  A symbolic link is followed, so the link stays.  The
    temporary file keeps the suffix of `path`, because writers of pictures choose their format by it.  Raises
    AccelsimError when the folder is missing, `path` is a folder, or the system refuses.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise AccelsimError(Problem(str(path), "cannot be written: it is a folder", "a file name"))
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        yield temporary
        if target.exists():
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8; ``-`` prints it.

    The data reach the disk before the name does.  Devices and pipes (``/dev/stdout``) are written in place.  Raises
    AccelsimError when it cannot be written; a reader that closed our standard output early stays a BrokenPipeError.
    """
    if str(path) == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        try:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise _unwritable(path, error) from error
        return
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _unwritable(path: str | os.PathLike[str], error: OSError) -> AccelsimError:
    folder = Path(path).parent
    levers = (f"mkdir -p {folder}",) if not folder.is_dir() else ()
    return AccelsimError(Problem(str(path), f"cannot be written: {error.strerror or error}", "a writable file", levers))
