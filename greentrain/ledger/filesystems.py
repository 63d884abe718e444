"""Detect files on network file systems."""

from __future__ import annotations

from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
# Prefixes of file systems that several machines, or a host and its guests, may have mounted.
_NETWORK = (
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.", "gfs2",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "ocfs2", "orangefs", "prl_fs",
    "pvfs2", "smb", "vboxsf", "virtiofs",
)  # fmt: skip


def is_network(path: Path) -> bool:
    """Return whether a file is on a file system that other machines may also have mounted.

    An unknown file system counts as local.
    """
    return kind(path).startswith(_NETWORK)


def kind(path: Path) -> str:
    """Return the type of a path's file system, such as ``"ext4"``; empty if unknown."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        place = path.absolute().resolve()
    except OSError:
        return ""
    best, found = -1, ""
    for line in lines:
        mount, _, options = line.partition(" - ")
        point = Path(mount.split(" ")[4].replace("\\040", " "))
        # Of two mounts at one point the later one hides the first.
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, found = len(point.parts), options.split(" ")[0]
    return found
