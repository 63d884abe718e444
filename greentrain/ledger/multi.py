"""Open and verify several ledgers, given by name or by pattern."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from greentrain.errors import ConfigurationError
from greentrain.ledger.heads import ExportedHeads, read_heads, write_heads
from greentrain.ledger.ledger import Ledger
from greentrain.ledger.schema import RUN_CHAIN
from greentrain.ledger.signatures import Checker, Signer
from greentrain.ledger.signed_heads import head_faults
from greentrain.ledger.store import UnreadableError
from greentrain.ledger.verify import Verification, unreadable, verify
from greentrain.naming import check_place
from greentrain.texts import masked

LOG_FOLDER = "greentrain_logs"
"""Folder of the ledgers that an ``EnergyMonitor`` makes by itself."""
_SHOWN = 20
_PREFIX = "sqlite:///"
_NOT_LEDGERS = ("-wal", "-shm", "-journal", ".jsonl", ".heads", ".sig")


def default_ledgers(folder: Path) -> str:
    """Return the ledger of a folder: ``greentrain.db``, or else the pattern of its logs.

    Raises:
        ConfigurationError: If the folder has neither.
    """
    own, logs = folder / "greentrain.db", folder / LOG_FOLDER
    if own.is_file():
        return str(own)
    if not any(logs.glob("*.db")):
        raise ConfigurationError(
            f"the folder {str(folder.absolute())!r} has no greentrain.db, and no ledger in "
            f"{LOG_FOLDER}/; give --ledger with the path that EnergyMonitor prints after a run"
        )
    return str(logs / "*.db")


def newest_ledger(folder: Path) -> str:
    """Return the one ledger of a folder that was written last: see :func:`default_ledgers`.

    Raises:
        ConfigurationError: If the folder has none.
    """
    return max(_named(default_ledgers(folder)), key=lambda path: Path(path).stat().st_mtime)


def open_ledgers(patterns: Iterable[str]) -> list[Ledger]:
    """Open ledgers for reading, each once.

    Args:
        patterns: URLs, files, and patterns of files such as ``"runs/*.db"`` (``**`` for any
            folders). The files of a pattern are sorted by name.

    Raises:
        ConfigurationError: If a file does not exist, or a pattern matches none.
        LedgerError: If a file is not a ledger.
    """
    opened: list[Ledger] = []
    try:
        for name in dict.fromkeys(one for pattern in patterns for one in _named(pattern)):
            opened.append(Ledger(name, create=False))
    except BaseException:
        close_ledgers(opened)
        raise
    return opened


def close_ledgers(ledgers: Iterable[Ledger]) -> None:
    """Close ledgers."""
    for ledger in ledgers:
        ledger.close()


def verify_all(
    patterns: Sequence[str],
    heads: Path | None = None,
    *,
    new_only: bool = False,
    public_key: Path | None = None,
) -> tuple[list[str], int]:
    """Verify ledgers, and compare them with the heads in a file or write that file.

    Args:
        patterns: See :func:`open_ledgers`.
        heads: A file of exported heads, or a report.json. A missing file is written if everything
            follows.
        new_only: ``True`` to recompute only the rows after these heads.
        public_key: The file of a public key. The signatures of the heads next to each ledger, and
            of an existing file of heads, are checked with it.

    Returns:
        Lines to print, and the exit code. It is 0 if everything follows, and 1 if a row does not
        follow; the first such row is printed first. It is 3 if a run has no closing row and no
        exported head covers it, and 4 if a file is no readable ledger.

    Raises:
        ConfigurationError: If ``new_only`` is set without a file of heads, or a pattern names no
            ledger.
        LedgerError: If a ledger cannot be read.
    """
    found: list[tuple[str, Ledger | UnreadableError]] = []
    try:
        for name in dict.fromkeys(one for pattern in patterns for one in _named(pattern)):
            try:
                ledger = Ledger(name, create=False)
                found.append((ledger.name, ledger))
            except UnreadableError as error:
                found.append((masked(name), error))
        checker = None if public_key is None else Checker(public_key)
        return _verified(found, heads, new_only=new_only, checker=checker)
    finally:
        close_ledgers(ledger for _, ledger in found if isinstance(ledger, Ledger))


def _verified(
    found: Sequence[tuple[str, Ledger | UnreadableError]],
    heads: Path | None,
    *,
    new_only: bool,
    checker: Checker | None,
) -> tuple[list[str], int]:
    ledgers = [ledger for _, ledger in found if isinstance(ledger, Ledger)]
    exported: dict[str, ExportedHeads] = {}
    if heads is not None and heads.exists():
        exported = read_heads(heads, [ledger.name for ledger in ledgers])
    lines: list[str] = []
    codes = {0}
    fault = checker.file_fault(heads) if checker and heads and heads.exists() else None
    if fault is not None:
        lines.append(f"FAILED: {heads}: {fault}")
        codes.add(1)
    for name, ledger in found:
        if isinstance(ledger, UnreadableError):
            result = unreadable(ledger)
        else:
            result = verify(ledger, exported.get(name), new_only=new_only)
        codes.add(result.exit_code)
        if result.readable:
            lines += _lines(name, result, exported.get(name))
            if checker is not None and isinstance(ledger, Ledger):
                faults, covered = _signed(ledger, checker)
                lines += [f"FAILED: {one}" for one in faults[:_SHOWN]]
                codes |= {1} if faults else set()
                if not faults:
                    rows = result.rows + result.earlier
                    lines.append(
                        f"signed heads of the key {checker.fingerprint} cover {covered} of {rows} "
                        "rows"
                    )
        else:
            lines += [f"ledger {name}", f"UNREADABLE: {result.failures[0]}"]
    if heads is not None and not exported and ledgers:
        lines.append(_export(heads, ledgers, bool({1, 4} & codes)))
    return lines, 1 if 1 in codes else max(codes)


def _signed(ledger: Ledger, checker: Checker) -> tuple[list[str], int]:
    path = ledger.store.path
    if path is None:
        return ["a ledger on a server has no file of signed heads; check a file of --heads"], 0
    return head_faults(ledger.store, path, checker)


def _named(pattern: str) -> list[str]:
    pattern = check_place(pattern, "a ledger", "runs/*.db")
    if "://" in pattern and not pattern.startswith(_PREFIX):
        return [pattern]
    path = pattern
    if pattern.startswith(_PREFIX):
        path = unquote(pattern.removeprefix(_PREFIX))
    if not glob.has_magic(path) or Path(path).exists():
        return [path]
    found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (Path.glob refuses absolute ones)
    files = [one for one in found if Path(one).is_file() and not one.endswith(_NOT_LEDGERS)]
    if not files:
        raise ConfigurationError(f"no ledger matches {pattern!r}; check the folder and the pattern")
    return files


def _lines(name: str, found: Verification, exported: ExportedHeads | None) -> Iterator[str]:
    yield f"ledger {name}"
    for note in found.notes:
        yield f"note: {note}"
    for failure in found.failures[:_SHOWN]:
        yield f"FAILED: {failure}"
    if len(found.failures) > _SHOWN:
        yield f"FAILED: {len(found.failures) - _SHOWN} more"
    if found.failures:
        yield f"{found.rows} rows: {len(found.failures)} thing(s) do not follow"
        return
    for chain, head in found.heads.items():
        yield f"head of {chain}: {head['count']} rows, {head['head']}"
    if found.earlier:
        yield (
            f"{found.rows} new rows: everything follows from the exported heads. The "
            f"{found.earlier} rows before were not read: omit --new-only to find changes there."
        )
    else:
        yield f"{found.rows} rows: everything follows"
    if found.uncovered:
        yield (
            f"{len(found.uncovered)} run(s) have no closing row, and no exported head shows that "
            f"there was none: {', '.join(found.uncovered)}"
        )
    if exported is None:
        yield (
            "To find rows that are cut off at the end, add --heads FILE: it keeps the heads above, "
            "and the next verify compares with them. A report and MLflow tags hold them, too."
        )
        return
    last = exported.heads.get(RUN_CHAIN)
    of_runs = "" if last is None else f", of the runs {last['head']} after {last['count']} rows"
    yield (
        f"The last exported heads are of {exported.exported_utc}{of_runs}. They cover "
        f"{exported.total} of {found.earlier + found.rows} rows; later rows could be cut off "
        "unnoticed."
    )


def _export(path: Path, ledgers: Sequence[Ledger], failed: bool) -> str:
    if failed:
        return f"No heads were written to {path}, because the ledger has failures."
    signer = Signer.configured()
    write_heads(path, {ledger.name: ledger.heads() for ledger in ledgers})
    if signer is not None:
        signer.sign_file(path)
    return f"The heads were written to {path}: keep it where the ledger's owner cannot change it."
