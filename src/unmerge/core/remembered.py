"""What was computed from files before, kept in the folder that ``core.settings`` names; nothing is kept where it names none.

Hashes of files are remembered by path, size, inode, and the times of the last change of content (mtime) and of anything (ctime), all to
the nanosecond. Whoever writes to a file, or puts another in its place, changes the ctime, and no call sets that back. A file that changed
within the last seconds is hashed again: it may change once more at what the file system takes for the same time. Everything else is kept
by the hash of what it was made of, so it cannot be stale. Files are written beside their place and renamed.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from unmerge.core.errors import BadOutput
from unmerge.core.records import fingerprint, sha256, write_bytes, write_json
from unmerge.core.settings import cache_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: seconds for which a file must have been left alone before its hash is remembered
_SETTLED = 2.0


def remembered_hash(file: Path) -> str:
    """SHA-256 of a file: as it was found before, where the file is still the same."""
    place = cache_folder()
    if place is None:
        return sha256(file)
    before = _signature(file)
    entry = place / "hashes" / f"{fingerprint(str(file.resolve()))[:32]}.json"
    with suppress(OSError, ValueError, AttributeError):
        known = json.loads(entry.read_text(encoding="utf-8"))
        if known.get("signature") == before:
            return str(known["sha256"])
    found = sha256(file)
    if _signature(file) == before and time.time_ns() - max(before["mtime"], before["ctime"]) > _SETTLED * 1e9:
        with suppress(BadOutput):  # a cache that cannot be written is no reason to stop
            write_json(entry, {"file": str(file.resolve()), "signature": before, "sha256": found})
    return found


def _signature(file: Path) -> dict[str, int]:
    told = file.stat()
    return {"size": told.st_size, "mtime": told.st_mtime_ns, "ctime": told.st_ctime_ns, "inode": told.st_ino, "device": told.st_dev}


def recall(kind: str, key: str) -> dict[str, NDArray[np.float64]] | None:
    """Arrays kept under the hash of what they were made of; None where there are none, or not whole ones."""
    import numpy as np

    place = cache_folder()
    if place is None:
        return None
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(place / kind / f"{key}.npz", allow_pickle=False) as held:
        return {name: held[name] for name in held.files}
    return None


def keep(kind: str, key: str, arrays: Mapping[str, NDArray[np.float64]]) -> None:
    """Keep arrays under the hash of what they were made of."""
    import numpy as np

    place = cache_folder()
    if place is None:
        return
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    with suppress(BadOutput):
        write_bytes(place / kind / f"{key}.npz", content.getvalue())
