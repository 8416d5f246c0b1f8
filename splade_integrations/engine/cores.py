"""How many cores this process may use: by its affinity, and by the quota of its container. Knows the system only."""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path, PurePosixPath

__all__ = ["usable_cores"]


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use, at least 1.

    A quota of 1.5 cores counts as 2: threads that compute apart use all of it then, though the system halts them now
    and then.

    Args:
        root: Where /proc and /sys are.
    Source:
        Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (cpu.cfs_quota_us).

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *map(ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota, in cores, of each control group that this process is in, from its own up to the topmost."""
    try:
        memberships = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if not controllers:
            mounts, read = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"], _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read = [root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup" / controllers], _quota_v1
        else:
            continue
        # In a container the path may be the host's, and only the topmost group is to be seen.
        groups = [group.relative_to("/") for group in (PurePosixPath(path), *PurePosixPath(path).parents)]
        for folder in {mount / group for mount in mounts for group in groups}:
            try:
                quota = read(folder)
            except (OSError, ValueError, ZeroDivisionError):  # no such group here, or a file of another form
                continue
            if quota is not None and quota > 0:
                yield quota


def _quota_v2(group: Path) -> float | None:
    quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    quota, period = (
        int((group / name).read_text(encoding="ascii")) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    )
    return None if quota < 0 else quota / period
