"""Python processes with torch, Lightning and MLflow loaded: forks of a server that loads them once.

Loading them takes longer than most tests in a process of their own. Where a test is about imports
or their order, it needs a new interpreter instead.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import multiprocessing
import os
import runpy
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TextIO

# Only what the environment of the process itself does not change as it is loaded.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch", "pytorch_lightning", "mlflow", "sqlalchemy", "greentrain.training", "greentrain.auto"]
)
CLI = ("-c", "from greentrain.cli.app import main; main()")
"""The command ``greentrain``, whose arguments follow."""


def python(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 1800.0,
) -> CompletedProcess[str]:
    """Run Python like ``subprocess.run([sys.executable, *arguments], ...)``, and capture as text.

    Args:
        arguments: A script, or ``-c`` and code, and what follows in ``sys.argv``.
        cwd: Its folder.
        env: Its environment; this one's unless given.
        timeout: Seconds after which it is killed, and the call fails.
    """
    given = [*map(str, arguments)]
    with tempfile.TemporaryDirectory(prefix="greentrain-python-") as folder:
        out, err = (Path(folder, name) for name in ("out", "err"))
        process = _begun(given, cwd, env, out, err)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"{given} took longer than {timeout:g} s: {err.read_text()}")
        code = process.exitcode or 0
        process.close()
        return CompletedProcess(given, code, *(path.read_text("utf-8") for path in (out, err)))


@contextlib.contextmanager
def running(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[tuple[BaseProcess, TextIO]]:
    """Yield such a process and what it prints, line by line; kill it at the end."""
    with tempfile.TemporaryDirectory(prefix="greentrain-python-") as folder:
        out = Path(folder, "out")
        os.mkfifo(out)
        process = _begun([*map(str, arguments)], cwd, env, out, Path(os.devnull))
        try:
            with out.open(encoding="utf-8") as printed:
                yield process, printed
        finally:
            process.kill()
            process.join()
            process.close()


def _begun(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str] | None, out: Path, err: Path
) -> Any:
    environment = dict(os.environ if env is None else env)
    process = CONTEXT.Process(target=_run, args=(arguments, str(cwd), environment, out, err))
    process.start()
    return process


def _run(
    arguments: Sequence[str], cwd: str, environment: Mapping[str, str], out: Path, err: Path
) -> None:
    """Become what a new interpreter with these arguments would be."""
    sys.stdout, sys.stderr = _redirected(out, 1), _redirected(err, 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    warnings.resetwarnings()
    script, *rest = arguments
    try:
        if script == "-c":
            code, *rest = rest
            sys.argv, sys.path[:0] = ["-c", *rest], [""]
            exec(compile(code, "<string>", "exec"), _new_main())
        else:
            sys.argv, sys.path[:0] = [script, *rest], [str(Path(script).parent)]
            runpy.run_path(script, run_name="__main__")
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        # As the interpreter does at its end, and multiprocessing does not.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def _new_main() -> dict[str, Any]:
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    return vars(main)


def _redirected(path: Path, descriptor: int) -> TextIO:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)
    file = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(file), "utf-8", line_buffering=descriptor == 2)
