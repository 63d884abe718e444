"""What is recorded of where a run took place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from greentrain.ledger import environment
from greentrain.ledger.environment import git_commit, nvidia_driver


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
