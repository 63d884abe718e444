"""Find out where a run runs: its job of SLURM, its Kubernetes pod, and the node of a cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from greentrain.naming import LONGEST_TAG

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SLURM = {"slurm_job_id": "SLURM_JOB_ID", "slurm_account": "SLURM_JOB_ACCOUNT"}
PLACES = (
    "slurm_array_job_id",
    "slurm_array_task_id",
    "kubernetes_pod",
    "kubernetes_namespace",
    "hostname",
)
"""Keys of the places in the environment of a run."""


def slurm_job() -> dict[str, str | None]:
    """Return the job of SLURM that this process belongs to, and its account.

    Returns:
        ``slurm_job_id`` and ``slurm_account``, the columns of a run; ``None`` outside of a job.
    """
    return {column: _value(os.environ, name) for column, name in _SLURM.items()}


def placement(
    environ: Mapping[str, str] | None = None, *, namespace: Path = _NAMESPACE
) -> dict[str, str]:
    """Return where this process runs in a cluster; nothing outside of SLURM and Kubernetes.

    The name of a host is recorded in a cluster only, whose nodes are no person's computers.
    Elsewhere a run has a hash of the name.

    Args:
        environ: Environment variables; those of this process by default.
        namespace: File in which Kubernetes names the namespace of a pod.

    Returns:
        Those of :data:`PLACES` that are known.

    Example:
        >>> job = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURMD_NODENAME": "node4"}
        >>> placement(job)
        {'slurm_array_task_id': '3', 'hostname': 'node4'}
    """
    environ = os.environ if environ is None else environ
    found: dict[str, str | None] = {}
    if "SLURM_JOB_ID" in environ:
        found["slurm_array_job_id"] = _value(environ, "SLURM_ARRAY_JOB_ID")
        found["slurm_array_task_id"] = _value(environ, "SLURM_ARRAY_TASK_ID")
        found["hostname"] = _value(environ, "SLURMD_NODENAME") or _cut(socket.gethostname())
    if "KUBERNETES_SERVICE_HOST" in environ:
        pod = _value(environ, "POD_NAME") or _value(environ, "HOSTNAME")
        found["kubernetes_pod"] = pod or _cut(socket.gethostname())
        found["kubernetes_namespace"] = _value(environ, "POD_NAMESPACE") or _text(namespace)
        found["hostname"] = _value(environ, "NODE_NAME") or found.get("hostname")
    return {name: value for name, value in found.items() if value}


def _value(environ: Mapping[str, str], name: str) -> str | None:
    return _cut(environ.get(name, ""))


def _cut(text: str) -> str | None:
    return text.strip()[:LONGEST_TAG] or None


def _text(path: Path) -> str | None:
    try:
        return _cut(path.read_text())
    except (OSError, UnicodeDecodeError):  # not in a pod, or its account is not mounted
        return None
