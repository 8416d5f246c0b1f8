"""The quota of cores is the smallest quota of all control groups that contain this process."""

from math import inf

import pytest

from splade_integrations.engine.cpu_quota import cpu_quota


def v1(quota, folder="sys/fs/cgroup/cpu"):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, inf),
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "max 100000\n"}, inf),
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "20000000 100000\n"}, 200),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/not/visible\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "?\n"}, inf),
        ({"proc/self/cgroup": "3:cpu,cpuacct:/b\n", **v1(250000, "sys/fs/cgroup/cpu,cpuacct/b")}, 3),
        ({"proc/self/cgroup": "4:memory:/x\n1:cpu:/\n0::/\n", **v1(300000)}, 3),
        ({"proc/self/cgroup": "1:cpu:/\n", **v1(-1)}, inf),
    ],
)
def test_quotas(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu_quota(tmp_path) == expected
