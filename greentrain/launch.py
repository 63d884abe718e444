"""Read from the environment how many processes torchrun, srun or another launcher has started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from greentrain.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The processes of one launch.

    Args:
        launcher: Name of the launcher.
        rank: Number of this process, from 0.
        size: Number of processes.
        local_size: Number of processes on this host.
    """

    launcher: str
    rank: int
    size: int
    local_size: int

    @property
    def hosts(self) -> int:
        """Number of hosts, each of which has as many processes."""
        return max(1, self.size // self.local_size)


def find_launch(environ: Mapping[str, str] | None = None) -> Launch | None:
    """Return the launch that this process belongs to; ``None`` for a single process.

    Args:
        environ: Environment variables; those of this process by default.

    Raises:
        ConfigurationError: If a variable of the launcher is no number, or the hosts have unequal
            numbers of processes.

    Example:
        >>> find_launch({"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "1", "RANK": "0"})
        >>> names = {"SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_NNODES": "2"}
        >>> launch = find_launch(names)
        >>> launch.rank, launch.size, launch.local_size, launch.hosts
        (5, 8, 4, 2)
    """
    environ = os.environ if environ is None else environ
    if "WORLD_SIZE" in environ and "RANK" in environ:
        launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in environ else "the launcher"
        names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    elif "SLURM_PROCID" in environ and environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        launcher, names = "srun", ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
    else:
        return None
    rank, size = _number(environ, names[0]), _number(environ, names[1])
    hosts = _number(environ, "SLURM_NNODES", 1) if launcher == "srun" else 1
    local = _number(environ, names[2], max(1, size // hosts))
    if size % local:
        raise ConfigurationError(
            f"{launcher} has started {size} processes, {local} on this host; start as many on each "
            "host, because all of them train on equal parts"
        )
    return Launch(launcher=launcher, rank=rank, size=size, local_size=local) if size > 1 else None


def launched_options(options: Mapping[str, Any], launch: Launch | None) -> dict[str, Any]:
    """Return options of a Trainer that use all processes of a launch.

    Args:
        options: The user's options; those that are given stay.
        launch: The launch; ``None`` for a single process.

    Example:
        >>> launch = Launch(launcher="torchrun", rank=0, size=4, local_size=2)
        >>> launched_options({"max_epochs": 3}, launch)
        {'devices': 2, 'num_nodes': 2, 'max_epochs': 3}
    """
    if launch is None:
        return dict(options)
    return {"devices": launch.local_size, "num_nodes": launch.hosts, **options}


def refuse_launch(name: str) -> None:
    """Refuse a function that works in one process, if several were started.

    Args:
        name: Name of the function.

    Raises:
        ConfigurationError: If this process belongs to a launch of several.
    """
    launch = find_launch()
    if launch is not None:
        raise ConfigurationError(
            f"{name} runs in one process, and {launch.launcher} has started {launch.size}; start "
            "it without a launcher and give strategy='ddp_fork', or use StreamTrainer"
        )


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise ConfigurationError(
            f"the environment variable {name} is {text!r}; the launcher has to set it to a number"
        )
    return int(text)
