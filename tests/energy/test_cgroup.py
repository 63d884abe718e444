from __future__ import annotations

import os
from pathlib import Path

import pytest

from greentrain.energy.cgroup import CpuShare

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Host:
    """A tree of /proc and /sys of a host, with one process in one cgroup.

    Args:
        root: Where the tree begins.
        membership: The process's lines of /proc/self/cgroup.
        mounts: Lines of /proc/self/mountinfo.
        folder: Where the process's cgroup has its files.
    """

    def __init__(self, root: Path, membership: str, mounts: str, folder: str) -> None:
        self.root = root
        self.folder = root / folder
        self.folder.mkdir(parents=True)
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(membership)
        (root / "proc/self/mountinfo").write_text(mounts)

    def use(self, busy_s: float, cgroup_s: float, *, steal_s: float = 0.0) -> None:
        """Let the host and the cgroup have used so many CPU seconds since the boot."""
        # user nice system idle iowait irq softirq steal guest guest_nice, in ticks of 10 ms.
        fifth = round(busy_s * TICKS_PER_S / 5)
        stolen = round(steal_s * TICKS_PER_S)
        (self.root / "proc/stat").write_text(
            f"cpu  {fifth} {fifth} {fifth} 99999 888 {fifth} {fifth} {stolen} {fifth} 0\n"
            "cpu0 1 2 3 4 5 6 7 8 9 0\nintr 12345\n"
        )
        if (self.folder / "cgroup.events").exists():
            (self.folder / "cpu.stat").write_text(
                f"usage_usec {cgroup_s * 1e6:.0f}\nuser_usec 1\nsystem_usec 2\n"
            )
        else:
            (self.folder / "cpuacct.usage").write_text(f"{cgroup_s * 1e9:.0f}\n")


V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


def session(root: Path) -> Host:
    """Version 2, in a unit of systemd."""
    host = Host(
        root,
        "0::/user.slice/user-1000.slice/session-3.scope\n",
        V2_MOUNT,
        "sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope",
    )
    (host.folder / "cgroup.events").touch()
    return host


def container_2(root: Path) -> Host:
    """Version 2, in a container that sees its own cgroup as the root."""
    host = Host(root, "0::/\n", V2_MOUNT, "sys/fs/cgroup")
    (host.folder / "cgroup.events").touch()
    return host


def container_1(root: Path) -> Host:
    """Version 1, in a container that has only its own part of the tree mounted."""
    return Host(
        root,
        "12:memory:/docker/4f2a\n4:cpu,cpuacct:/docker/4f2a\n1:name=systemd:/docker/4f2a\n",
        "35 30 0:30 /docker/4f2a /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n",
        "sys/fs/cgroup/cpu,cpuacct",
    )


def job_1(root: Path) -> Host:
    """Version 1 and version 2, whose tree is not used, as on an older cluster."""
    host = Host(
        root,
        "4:cpuacct,cpu:/slurm/uid_7/job_42\n0::/\n",
        "31 23 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "35 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
        "sys/fs/cgroup/cpu,cpuacct/slurm/uid_7/job_42",
    )
    (root / "sys/fs/cgroup/unified").mkdir()
    (root / "sys/fs/cgroup/cpu,cpuacct/release_agent").touch()
    return host


@pytest.mark.parametrize("make", [session, container_2, container_1, job_1])
def test_the_share_is_that_of_the_busy_time_since_it_was_made(tmp_path: Path, make) -> None:
    host = make(tmp_path)
    host.use(busy_s=1000.0, cgroup_s=700.0)
    use = CpuShare(tmp_path)
    assert use.shared
    host.use(busy_s=1040.0, cgroup_s=710.0, steal_s=500.0)
    # 10 of 40 CPU seconds; time stolen by the hypervisor is not busy time.
    assert use.share() == pytest.approx(0.25, rel=1e-3)


def test_a_moment_is_too_short_to_tell(tmp_path: Path) -> None:
    host = session(tmp_path)
    host.use(busy_s=1000.0, cgroup_s=700.0)
    use = CpuShare(tmp_path)
    host.use(busy_s=1000.05, cgroup_s=700.02)
    assert use.share() is None


def test_it_is_never_more_than_all(tmp_path: Path) -> None:
    host = session(tmp_path)
    host.use(busy_s=1000.0, cgroup_s=700.0)
    use = CpuShare(tmp_path)
    host.use(busy_s=1001.0, cgroup_s=701.02)  # the host is counted in coarser steps
    assert use.share() == 1.0


def test_what_cannot_be_read_any_more_is_unknown(tmp_path: Path) -> None:
    host = session(tmp_path)
    host.use(busy_s=1000.0, cgroup_s=700.0)
    use = CpuShare(tmp_path)
    (host.folder / "cpu.stat").write_text("nr_periods 0\n")
    assert use.share() is None
    (host.folder / "cpu.stat").unlink()
    assert use.share() is None


def root_2(root: Path) -> Host:
    host = Host(root, "0::/\n", V2_MOUNT, "sys/fs/cgroup")
    (host.folder / "cpu.stat").write_text("usage_usec 5\n")  # the root has one too
    return host


def root_1(root: Path) -> Host:
    host = Host(
        root,
        "2:cpuacct:/\n0::/\n",
        "33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n",
        "sys/fs/cgroup/cpuacct",
    )
    (host.folder / "release_agent").touch()
    return host


def elsewhere(root: Path) -> Host:
    """In a cgroup that this process's part of the tree does not show."""
    return Host(root, "0::/../other\n", V2_MOUNT, "sys/fs/cgroup")


@pytest.mark.parametrize("make", [root_2, root_1, elsewhere])
def test_in_the_root_cgroup_nothing_is_shared(tmp_path: Path, make) -> None:
    make(tmp_path).use(busy_s=1000.0, cgroup_s=700.0)
    use = CpuShare(tmp_path)
    assert not use.shared
    assert use.share() is None


def test_without_proc_nothing_is_shared(tmp_path: Path) -> None:
    assert not CpuShare(tmp_path).shared
    assert CpuShare(tmp_path).share() is None


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="no Linux")
def test_this_machine_can_be_asked() -> None:
    share = CpuShare().share()
    assert share is None or 0.0 <= share <= 1.0
