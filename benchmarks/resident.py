"""Read the peak resident memory of this process, as Linux counts it."""

import contextlib
import ctypes
import gc
from pathlib import Path

__all__ = ["PeakMemory"]


class PeakMemory:
    """Measures the peak from now on. First, it returns freed memory to the system.

    If the process kept freed memory, it could use this memory again, and the peak would not show that.

    Raises:
        OSError: The system is not Linux, or /proc does not let a process reset its peak.
    """

    def __init__(self) -> None:
        gc.collect()
        # Only glibc has malloc_trim. With another C library, freed memory counts as resident at the start.
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError as err:
            raise OSError(
                f"/proc/self/clear_refs must be writable, got: {err}. Use Linux. Writing to this file resets the peak."
            ) from err
        self.start = _status("VmRSS")

    def grown(self) -> int:
        """Return the bytes by which the peak since the start exceeds the resident memory at the start."""
        return _status("VmHWM") - self.start


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status must have a line {name}, got none. Use Linux.")
