"""What is recorded of where a run took place."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, environment, verify
from greentrain.ledger.environment import git_commit, nvidia_driver
from greentrain.ledger.placement import placement
from greentrain.naming import LONGEST_TAG
from greentrain.report import build, render_html


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    command = ["git", *identity, *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "--quiet")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "first")
    return folder


def test_the_commit_is_that_of_git_from_a_folder_below_too(repository: Path) -> None:
    (repository / "below").mkdir()
    assert git_commit(repository / "below") == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize("how", ["packed", "detached", "worktree"])
def test_the_commit_is_found_however_git_keeps_it(repository: Path, how: str) -> None:
    folder = repository
    if how == "packed":
        git(repository, "pack-refs", "--all")
    elif how == "detached":
        git(repository, "checkout", "--quiet", "--detach")
    else:
        folder = repository.parent / "other"
        git(repository, "worktree", "add", "--quiet", "-b", "other", str(folder))
    assert git_commit(folder) == git(repository, "rev-parse", "HEAD")


def test_without_a_commit_it_is_unknown(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert git_commit(tmp_path) is None
    (tmp_path / ".git" / "HEAD").unlink()
    assert git_commit(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19", "535.104.05"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build",
            "550.54.14",
        ),
        ("nothing of the kind", None),
    ],
)
def test_the_driver_is_read_from_the_kernel(tmp_path: Path, text: str, told: str | None) -> None:
    path = tmp_path / "version"
    path.write_text(text)
    assert nvidia_driver(path) == told
    assert nvidia_driver(tmp_path / "missing") is None


def test_both_are_recorded() -> None:
    assert {"nvidia_driver", "git_commit", "host", "versions"} <= set(environment())


def test_a_run_names_its_job_of_slurm(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_ACCOUNT", " vision\n")
    ledger.open_run("fit", "within", team="vision", project="digits").close()
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setenv("SLURM_JOB_ACCOUNT", "")
    ledger.open_run("fit", "outside").close()
    columns = ("slurm_job_id", "slurm_account", "team", "project")
    assert [tuple(row[name] for name in columns) for row in ledger.rows("run")] == [
        ("4711", "vision", "vision", "digits"),
        (None, None, None, None),
    ]
    assert [tuple(run[name] for name in columns) for run in build(ledger)["runs"]] == [
        ("4711", "vision", "vision", "digits"),
        (None, None, None, None),
    ]
    assert "<dt>SLURM job</dt><dd><bdi>4711</bdi>" in render_html(build(ledger))
    assert verify(ledger).ok


def test_a_broken_variable_ends_no_run(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "\udcff" + "9" * 500)
    ledger.open_run("fit", "model").close()
    (row,) = ledger.rows("run")
    assert row["slurm_job_id"] == r"\udcff" + "9" * (LONGEST_TAG - 1)


@pytest.mark.parametrize("tag", ["", " ", 7, "a" * 101, "a\0b", "postgresql://me:secret@host/db"])
def test_a_tag_that_cannot_be_stored_is_refused(ledger: Ledger, tag: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^team ") as refused:
        ledger.open_run("fit", "model", team=tag)  # type: ignore[arg-type]
    assert "secret" not in str(refused.value)
    assert ledger.rows("run") == []


SECRET = "a private key"
COMMIT = "0123456789" * 4


class Trap:
    """A `.git` that another user has put into a parent of the current folder."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self.git = parent / ".git"
        self.secret = parent / "id_rsa"
        self.secret.write_text(SECRET)
        self.token = parent / "token"
        self.token.write_text(COMMIT)

    def folder(self, head: str = "ref: refs/heads/main", **files: str) -> None:
        (self.git / "refs" / "heads").mkdir(parents=True)
        (self.git / "objects").mkdir()
        (self.git / "HEAD").write_text(head)
        for name, text in files.items():
            (self.git / name.replace("_", "-")).write_text(text)


def link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


TRAPS: dict[str, Callable[[Trap], object]] = {
    "a ref above": lambda trap: trap.folder("ref: ../../id_rsa"),
    "a ref above that has the form of a commit": lambda trap: trap.folder("ref: refs/../../token"),
    "an absolute ref": lambda trap: trap.folder(f"ref: {trap.token}"),
    "HEAD is the secret": lambda trap: trap.folder(SECRET),
    "HEAD is a link": lambda trap: (trap.folder(), link(trap.git / "HEAD", trap.token)),
    "HEAD is a pipe": lambda trap: (
        trap.folder(),
        (trap.git / "HEAD").unlink(),
        os.mkfifo(trap.git / "HEAD"),
    ),
    "HEAD is endless": lambda trap: (trap.folder(), link(trap.git / "HEAD", Path("/dev/zero"))),
    "HEAD is no text": lambda trap: (
        trap.folder(),
        (trap.git / "HEAD").write_bytes(b"\xff\x00"),
    ),
    "HEAD is a folder": lambda trap: (
        trap.folder(),
        (trap.git / "HEAD").unlink(),
        (trap.git / "HEAD").mkdir(),
    ),
    "HEAD is long": lambda trap: trap.folder(COMMIT + " " * 10**6),
    "NUL in HEAD": lambda trap: trap.folder("ref: refs/a\0b"),
    "NUL in commondir": lambda trap: trap.folder(commondir="a\0b"),
    "commondir elsewhere": lambda trap: trap.folder(commondir=str(trap.parent)),
    "the ref holds the secret": lambda trap: (
        trap.folder(),
        (trap.git / "refs/heads/main").write_text(SECRET),
    ),
    "the ref is a link": lambda trap: (
        trap.folder(),
        link(trap.git / "refs/heads/main", trap.token),
    ),
    "the ref is a pipe": lambda trap: (
        trap.folder(),
        os.mkfifo(trap.git / "refs/heads/main"),
    ),
    "refs is a link": lambda trap: (
        trap.folder(),
        (trap.git / "refs/heads").rmdir(),
        (trap.parent / "heads").mkdir(),
        (trap.parent / "heads/main").write_text(COMMIT),
        link(trap.git / "refs/heads", trap.parent / "heads"),
    ),
    "a packed secret": lambda trap: trap.folder(packed_refs=f"{SECRET} refs/heads/main\n"),
    "an empty packed ref": lambda trap: trap.folder(packed_refs=" refs/heads/main\n"),
    "packed refs are a pipe": lambda trap: (trap.folder(), os.mkfifo(trap.git / "packed-refs")),
    "NUL in a pointer": lambda trap: trap.git.write_text("gitdir: a\0b"),
    "a pointer to the secret": lambda trap: trap.git.write_text("gitdir: id_rsa"),
    "a pointer to its folder": lambda trap: (
        (trap.parent / "HEAD").write_text(COMMIT),
        trap.git.write_text("gitdir: ."),
    ),
    "a pipe": lambda trap: os.mkfifo(trap.git),
    "a link to itself": lambda trap: link(trap.git, trap.git),
    "the secret itself": lambda trap: link(trap.git, trap.secret),
}


@pytest.mark.parametrize("set_up", TRAPS.values(), ids=TRAPS.keys())
def test_a_git_folder_of_another_user_neither_leaks_nor_blocks(
    tmp_path: Path, set_up: Callable[[Trap], object]
) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    set_up(Trap(tmp_path))
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(git_commit(below)), daemon=True)
    reader.start()
    reader.join(timeout=30)
    assert found == [None]


def test_a_run_opens_in_a_folder_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    described = environment()
    assert described["git_commit"] is None
    ledger.open_run("fit", "model", environment=described).close()


def test_a_folder_that_never_responds_delays_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("greentrain.ledger.environment")
    asked, responds = threading.Event(), threading.Event()

    def never(folder: Path) -> str | None:
        asked.set()
        responds.wait(timeout=60)
        return None

    monkeypatch.setattr(module, "git_commit", never)
    monkeypatch.setattr(module, "_WAIT_S", 0.01)
    assert environment()["git_commit"] is None
    assert asked.wait(timeout=60)
    responds.set()


def test_a_place_in_a_cluster_is_recorded_and_chosen_by(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ledger.open_run("fit", "elsewhere").close()
    for task, node in (("0", "node4"), ("1", "node5")):
        monkeypatch.setenv("SLURM_JOB_ID", "123")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        monkeypatch.setenv("SLURMD_NODENAME", node)
        ledger.open_run("fit", f"task {task}", environment=environment()).close()
    assert [run["name"] for run in build(ledger, where="slurm_job_id=123")["runs"]] == [
        "task 0",
        "task 1",
    ]
    chosen = build(ledger, where="slurm_job_id=123,hostname=node[5-9]")
    assert [run["name"] for run in chosen["runs"]] == ["task 1"]
    assert chosen["scope"]["where"] == "slurm_job_id=123,hostname=node[5-9]"
    assert "<dt>SLURM array task</dt><dd><bdi>1</bdi>" in render_html(chosen)
    here = build(ledger, where=f"hostname={socket.gethostname()}")  # by the hash of its name
    assert here["runs"][0]["name"] == "elsewhere"
    with pytest.raises(ConfigurationError, match="no run has slurm_job_id=9; the last ones have"):
        build(ledger, where="slurm_job_id=9")
    with pytest.raises(ConfigurationError, match="'node=4' chooses no run; give KEY=VALUE"):
        build(ledger, where="node=4")


def test_a_pod_of_kubernetes_is_a_place(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("vision\n")
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "train-0"}
    assert placement(pod, namespace=tmp_path / "namespace") == {
        "kubernetes_pod": "train-0",
        "kubernetes_namespace": "vision",
    }
    assert placement({"HOSTNAME": "laptop"}) == {}
