"""Find the processes that a process has started, and measure the memory that all of them use, as Linux counts it."""

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "PeakOfAll", "descendants", "title", "used_together"]


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes that a process has started, directly or through other processes."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                # The name of the program is in parentheses, and may contain spaces.
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found, pending = [], [pid]
    while pending:
        for child in children.get(pending.pop(), ()):
            found.append(child)
            pending.append(child)
    return found


def title(pid: int) -> str:
    """Return a process's command line, or "" if it has ended. Ray's workers say in theirs what they are doing."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


@dataclass(frozen=True)
class Memory:
    """Memory in bytes.

    Args:
        private: The sum of the proportional set sizes of all processes, without shared memory.
        shared: The size of the files in /dev/shm. Ray keeps its object store there.
    """

    private: int = 0
    shared: int = 0

    @property
    def total(self) -> int:
        """The sum of private and shared memory."""
        return self.private + self.shared


def used_together(pid: int) -> Memory:
    """Return the memory of a process and of all processes that it has started."""
    private = 0
    for one in (pid, *descendants(pid)):
        with suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
            private += sizes["Pss"] - sizes.get("Pss_Shmem", 0)
    disk = os.statvfs("/dev/shm")
    return Memory(private, (disk.f_blocks - disk.f_bfree) * disk.f_frsize)


class PeakOfAll:
    """Measures the peak memory of this process and of all processes that it starts, until the `with` block ends.

    Attributes:
        peak: The memory at its peak so far.
    """

    def __init__(self, every: float = 0.5) -> None:
        self.peak = Memory()
        self._every, self._ends = every, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "PeakOfAll":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ends.wait(self._every):
            found = used_together(os.getpid())
            if found.total > self.peak.total:
                self.peak = found
