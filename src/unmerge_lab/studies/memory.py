"""By how much a process's resident memory grew at its peak.

``tracemalloc`` does not see what torch and BLAS allocate, and ``ru_maxrss`` only ever grows, so that a later job hides behind an earlier
one. Linux lets a process set its peak back (``clear_refs``, proc(5)); where that is not possible the growth of ``ru_maxrss`` is taken.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_MIB = 1 << 20


class Peak:
    """Watch from its making on."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._resettable = True
        except OSError:
            self._resettable = False
        self._start = self._resident("VmRSS")

    def mib(self) -> float:
        """The growth up to now."""
        return max(self._resident("VmHWM") - self._start, 0) / _MIB

    def _resident(self, field: str) -> int:
        if self._resettable:
            lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field + ":"))
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used << 10
