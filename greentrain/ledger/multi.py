"""Several ledgers at once: opened by name or by pattern, and verified one after the other."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from greentrain.errors import ConfigurationError
from greentrain.ledger.exported_heads import ExportedHeads, read_heads, write_heads
from greentrain.ledger.ledger import Ledger
from greentrain.ledger.schema import RUN_CHAIN
from greentrain.ledger.verify import Verification, verify

_SHOWN = 20
_PREFIX = "sqlite:///"
_BESIDE = ("-wal", "-shm", "-journal", ".jsonl")


def open_ledgers(patterns: Iterable[str]) -> list[Ledger]:
    """Open all ledgers that are named, to be read.

    Args:
        patterns: URLs, files, and patterns of files such as ``"runs/*.db"`` (``**`` for any
            folders), each ledger once, in the order given and those of a pattern by name.

    Raises:
        ConfigurationError: If a name or a pattern names no ledger.
        LedgerError: If something that is named is no ledger.
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
    """Let go of all of them."""
    for ledger in ledgers:
        ledger.close()


def verify_all(patterns: Sequence[str], heads: Path | None = None) -> tuple[list[str], int]:
    """Verify ledgers, and compare them with the heads in a file or write that file.

    Args:
        patterns: As for :func:`open_ledgers`.
        heads: A file of exported heads, which is written if it is missing and all follows; or a
            report.json.

    Returns:
        What to show, line by line, and the exit code: 0 if everything follows; 1 if a row does
        not, the first of which is named first; 3 if a run is unclosed and no exported head covers
        it.
    """
    ledgers = open_ledgers(patterns)
    try:
        names = [ledger.store.name for ledger in ledgers]
        exported: dict[str, ExportedHeads] = {}
        if heads is not None and heads.exists():
            exported = read_heads(heads, names)
        lines: list[str] = []
        codes = {0}
        for name, ledger in zip(names, ledgers, strict=True):
            found = verify(ledger, exported.get(name))
            codes.add(found.exit_code)
            lines += _lines(name, ledger, found, exported.get(name))
        if heads is not None and not exported:
            lines.append(_export(heads, ledgers, 1 in codes))
    finally:
        close_ledgers(ledgers)
    return lines, 1 if 1 in codes else max(codes)


def _named(pattern: str) -> list[str]:
    if "://" in pattern and not pattern.startswith(_PREFIX):
        return [pattern]
    path = pattern.removeprefix(_PREFIX)
    if not glob.has_magic(path) or Path(path).exists():
        return [path]
    found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (Path takes no absolute one)
    files = [one for one in found if Path(one).is_file() and not one.endswith(_BESIDE)]
    if not files:
        raise ConfigurationError(f"no ledger matches {pattern!r}")
    return files


def _lines(
    name: str, ledger: Ledger, found: Verification, exported: ExportedHeads | None
) -> Iterator[str]:
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
    heads = ledger.heads()
    for chain, head in heads.items():
        yield f"head of {chain}: {head['count']} rows, {head['head']}"
    yield f"{found.rows} rows: everything follows"
    if found.uncovered:
        yield (
            f"{len(found.uncovered)} run(s) have no closing row, and no exported head shows that "
            f"there was none: {', '.join(found.uncovered)}"
        )
    if exported is None:
        yield (
            "No exported heads were given (--heads FILE), so rows could have been cut off at the "
            "end unnoticed: compare the heads above with a report, an MLflow tag or a log."
        )
        return
    covered = sum(head["count"] for head in exported.heads.values())
    last = exported.heads.get(RUN_CHAIN)
    shown = "" if last is None else f", of the runs {last['head']} after {last['count']} rows"
    yield (
        f"The last exported heads are of {exported.exported_utc}{shown}. They cover {covered} of "
        f"{found.rows} rows; what lies after them could be cut off unnoticed."
    )


def _export(path: Path, ledgers: Sequence[Ledger], failed: bool) -> str:
    if failed:
        return f"No heads were written to {path}: something does not follow."
    write_heads(path, {ledger.store.name: ledger.heads() for ledger in ledgers})
    return f"The heads were written to {path}: keep it where the ledger's owner cannot change it."
