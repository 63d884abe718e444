"""Whether a file lies on this machine, or on another one across a network."""

from __future__ import annotations

from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
# What several machines may have mounted, or a host and its guests; matched by how the name begins.
_NETWORK = (
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "davfs",
    "fuse.",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "ocfs2",
    "orangefs",
    "prl_fs",
    "pvfs2",
    "smb",
    "vboxsf",
    "virtiofs",
)


def is_network(path: Path) -> bool:
    """Return whether a file lies on a file system that other machines may have mounted, too.

    Where the system does not say so, it counts as local, and the probe decides.
    """
    return kind(path).startswith(_NETWORK)


def kind(path: Path) -> str:
    """Return the kind of file system that a path is on, such as ``"ext4"``; empty if unknown."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        place = path.absolute().resolve()
    except OSError:
        return ""
    best, found = -1, ""
    for line in lines:
        mount, _, options = line.partition(" - ")
        point = Path(mount.split(" ")[4].replace("\\040", " "))
        # Of two mounts at one point the later one lies on top.
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, found = len(point.parts), options.split(" ")[0]
    return found
