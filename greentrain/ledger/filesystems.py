"""Detect files on network file systems, and files that are mounted alone."""

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
    return _mount(path)[1]


def is_mount(path: Path) -> bool:
    """Return whether a file is mounted alone, without its folder, as containers can do it."""
    point = _mount(path)[0]
    return point is not None and point == path.absolute().resolve() and not path.is_dir()


def _mount(path: Path) -> tuple[Path | None, str]:
    """Return the mount point of a path and the type of its file system."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        place = path.absolute().resolve()
    except OSError:
        return None, ""
    best: Path | None = None
    found = ""
    for line in lines:
        mount, _, options = line.partition(" - ")
        point = Path(mount.split(" ")[4].replace("\\040", " "))
        # Of two mounts at one point the later one hides the first.
        if place.is_relative_to(point) and (best is None or len(point.parts) >= len(best.parts)):
            best, found = point, options.split(" ")[0]
    return best, found
