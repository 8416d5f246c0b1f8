"""Peak resident memory of this process, as Linux counts it."""

import contextlib
import ctypes
import gc
from pathlib import Path

__all__ = ["PeakMemory"]


class PeakMemory:
    """The peak from here on. What was freed before is given back first, so that it does not hide growth.

    Raises:
        OSError: Not Linux, or /proc does not let a process reset its peak.
    """

    def __init__(self) -> None:
        gc.collect()
        # Another C library than glibc has no such call: what it keeps counts as resident before.
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError as err:
            raise OSError(f"Peak memory must be reset in /proc/self/clear_refs, and {err}. Use Linux.") from err
        self.start = _status("VmRSS")

    def grown(self) -> int:
        """Bytes by which the peak since then exceeds the resident memory of then."""
        return _status("VmHWM") - self.start


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status must have {name}, and has not. Use Linux.")
