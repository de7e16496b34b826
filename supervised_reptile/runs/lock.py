"""A lock that lets only one process at a time train in a directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

from supervised_reptile.errors import RunError
from supervised_reptile.runs.files import reason_of

if sys.platform != "win32":  # Windows has no such locks
    import fcntl


def lock_directory(path: Path) -> IO | None:
    """Lock a directory for this process.

    Returns:
        An open file. The lock lasts until it is closed; ``None`` on Windows, which has no locks.

    Raises:
        RunError: Another process holds the lock, or the directory cannot be written.
    """
    if sys.platform == "win32":
        return None
    try:
        file = (path / ".lock").open("w")
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have moved the directory aside between these two lines.
        if not os.path.samestat(os.fstat(file.fileno()), (path / ".lock").stat()):
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError) as error:
        raise RunError(f"--checkpoint: another process is training in {path}") from error
    except OSError as error:
        reason = reason_of(error)
        raise RunError(f"--checkpoint: cannot write {path}: {reason}") from error
    return file
