"""Reads how many cores the CPU quota of this process's control group allows.

This module reads files of the operating system, and needs no torch.
"""

from collections.abc import Iterator
from functools import cache
from math import ceil, inf
from pathlib import Path, PurePosixPath

__all__ = ["cpu_quota"]


@cache
def cpu_quota(root: Path = Path("/")) -> float:
    """Return the smallest quota that applies to this process, rounded up to whole cores, or infinity without a quota.

    A quota of 1.5 cores counts as 2 cores, because one thread cannot use the whole quota, but two threads can. The
    quota is read only once, because reading it takes a tenth of the time of a short query.

    Args:
        root: The folder that contains proc/ and sys/.

    Source:
        Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and Documentation/scheduler/sched-bwc.rst
        (cpu.cfs_quota_us).

    Example:
        >>> cpu_quota() >= 1
        True
    """
    return min(map(ceil, _quotas(root)), default=inf)


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas of this process's control group and of the groups above it, in cores."""
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
        # In a container, the path may be the group's path on the host. This path may not exist inside the container,
        # which sees only the topmost group. So all groups on the path are tried.
        groups = [group.relative_to("/") for group in (PurePosixPath(path), *PurePosixPath(path).parents)]
        for folder in {mount / group for mount in mounts for group in groups}:
            try:
                quota = read(folder)
            except (OSError, ValueError, ZeroDivisionError):  # no such group, or the file has another format
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
