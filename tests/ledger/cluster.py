"""A throw-away PostgreSQL cluster, for the tests that need one."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

_SERVERS = Path("/usr/lib/postgresql")
# Of the thousands of files none has to be written to a disk, and deleted from it.
_MEMORY = Path("/dev/shm")
_UNPRIVILEGED = ("postgres", "nobody")
# Nothing of it outlives the tests, so nothing has to reach the disk.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "autovacuum": "off",
    "listen_addresses": "",
}


class Cluster:
    """A server of its own in a folder of its own, which it listens in on a socket.

    Args:
        programs: The folder of ``initdb`` and ``pg_ctl``.
        max_connections: Connections that the server takes.
    """

    def __init__(self, programs: Path, *, max_connections: int = 60) -> None:
        self._programs = programs
        self._numbers = itertools.count()
        memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="greentrain-postgres-", dir=memory))
        self._as = _unprivileged()
        if self._as:
            shutil.chown(self.folder, user=self._as[-1])
        self._do("initdb", "-A", "trust", "-U", "greentrain", "--no-sync", "-E", "UTF8")
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            settings = {
                **_SETTINGS,
                "max_connections": max_connections,
                "unix_socket_directories": self.folder,
            }
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.start()

    def start(self) -> None:
        self._do("pg_ctl", "-w", "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        self._do("pg_ctl", "-w", "-m", "immediate", "stop")

    def freeze(self) -> None:
        """Stop all processes of the server; the kernel still accepts connections for them."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server continue."""
        for process in self._processes():
            os.kill(process, signal.SIGCONT)

    def url(self, database: str = "postgres", schema: str | None = None) -> str:
        options = "" if schema is None else f"&options=-csearch_path%3D{schema}"
        return f"postgresql+psycopg://greentrain@/{database}?host={self.folder}{options}"

    def new(self) -> str:
        """Return the URL of an empty schema, which costs less than a database."""
        schema = f"ledger_{next(self._numbers)}"
        self.run(f"CREATE SCHEMA {schema}")
        return self.url(schema=schema)

    def copy(self, template: str) -> str:
        """Return the URL of a copy of a database that nobody is connected to."""
        database = f"copy_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {database} TEMPLATE {template}")
        return self.url(database)

    def run(self, *statements: str, database: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(
            host=str(self.folder), user="greentrain", dbname=database, autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _processes(self) -> list[int]:
        postmaster = (self.folder / "data" / "postmaster.pid").read_text().split()[0]
        children = subprocess.run(
            ["pgrep", "-P", postmaster], capture_output=True, text=True, check=True
        )
        return [int(postmaster), *map(int, children.stdout.split())]

    def _do(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [
                *self._as,
                str(self._programs / program),
                "-D",
                str(self.folder / "data"),
                *arguments,
            ],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if program == "initdb" else subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if done.returncode:
            log = self.folder / "log"
            said = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{program} failed: {done.stdout or ''}{said}")


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL server that is installed; ``None`` without one."""
    found = [path.parent for path in _SERVERS.glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.append(Path(on_path).parent)
    return max(found, key=str, default=None)


def _unprivileged() -> list[str]:
    """Return what a command is begun with so that it does not run as root, which servers refuse."""
    if os.geteuid() != 0:
        return []
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    for user in _UNPRIVILEGED:
        if user in names and shutil.which("setpriv"):
            return ["setpriv", "--clear-groups", "--reuid", user]
    raise RuntimeError("PostgreSQL does not run as root, and there is no user to run it as")
