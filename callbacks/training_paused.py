"""End the process of a paused training, and start it again later."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from greentrain.callbacks.run_record import STOPPED
from greentrain.texts import get_logger, one_line

EXIT_PAUSED = 75
"""Exit code of a paused training: ``EX_TEMPFAIL`` of ``sysexits.h``, "try again later"."""

_log = get_logger(__name__)


class TrainingPaused(SystemExit):
    """End of a process whose training is paused; its exit code is 75 if it is not caught.

    Args:
        checkpoint: The checkpoint to continue from.
        until: When to continue, in UTC.

    Attributes:
        checkpoint: As above.
        until: As above.
    """

    def __init__(self, checkpoint: Path, until: datetime) -> None:
        super().__init__(EXIT_PAUSED)
        self.checkpoint = checkpoint
        self.until = until


def ended_as(arguments: Iterable[object]) -> dict[str, Any]:
    """Return how a run ends after an exception: its status, and whether in this process alone.

    Args:
        arguments: Arguments of ``on_exception`` after the Trainer.
    """
    paused = any(isinstance(each, TrainingPaused) for each in arguments)  # in every process
    return {"status": STOPPED if paused else "failed", "alone": not paused}


def requeue(
    until: datetime,
    *,
    environment: Mapping[str, str] = os.environ,
    run: Callable[..., object] = subprocess.run,
) -> bool:
    """Put a SLURM job back into the queue, with a begin time.

    Args:
        until: The begin time, aware.
        environment: Has ``SLURM_JOB_ID`` within a job.
        run: Runs a command.

    Returns:
        Whether this is a job of SLURM that was put back.
    """
    job = environment.get("SLURM_JOB_ID", "")
    array, task = (environment.get(f"SLURM_ARRAY_{name}", "") for name in ("JOB_ID", "TASK_ID"))
    if array and task:
        job = f"{array}_{task}"
    if not job.replace("_", "").isdigit():
        return False
    begins = until.astimezone().strftime("%Y-%m-%dT%H:%M:%S")  # SLURM reads local time
    # Both in one process: SLURM ends this job soon after the first command.
    commands = f"scontrol requeue {job} && scontrol update JobId={job} StartTime={begins}"
    try:
        run(["/bin/sh", "-c", commands], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = one_line(str(getattr(error, "stderr", "") or error))
        _log.warning("SLURM did not put job %s back into its queue: %s", job, detail)
        return False
    return True


def resume_lines(checkpoint: Path, until: datetime, arguments: Sequence[str]) -> str:
    """Return what to do to continue: a time, and a command for a shell.

    Args:
        checkpoint: The checkpoint.
        until: When to continue.
        arguments: Arguments of the interpreter, ``sys.orig_argv[1:]``.

    Example:
        >>> from datetime import UTC
        >>> night = datetime(2026, 12, 1, 1, tzinfo=UTC)
        >>> print(resume_lines(Path("paused.ckpt"), night, ["train.py"]).splitlines()[0])
        Training is paused in paused.ckpt. Continue at 2026-12-01 01:00 UTC with:
    """
    when = f"{until:%Y-%m-%d %H:%M %Z}"
    command = shlex.join([sys.executable, *arguments])
    return f"Training is paused in {checkpoint}. Continue at {when} with:\n  {command}"
