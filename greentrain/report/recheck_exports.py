"""Check a file that was rendered from a report: render it again, and list what differs."""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from greentrain._about import VERSION
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, close_ledgers, open_ledgers
from greentrain.regular_files import read_regular
from greentrain.report.exports import model_card
from greentrain.report.exports.claim import all_carried, carried, claim
from greentrain.report.exports.tables import CsvFiles
from greentrain.report.formats import shown
from greentrain.report.model import build
from greentrain.report.overview import NOT_CHECKED, OVERVIEW_MARK
from greentrain.report.recheck import build_again, check, differences, exact, load, read_text
from greentrain.report.write import FORMATS, render_json

_SHOWN = 50
_MOST_BYTES = 2**30
_MOST_SHOWN = 1000
_ENDS = {end: render for one in FORMATS.values() for end, render in one.files.items()}
_STREAMED = {"windows.csv": "windows", "experiences.csv": "experiences"}
_MOST_OF_STREAMS = 2**26
_STREAM = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)
_PRODUCER = re.compile(r"/Producer \(([^)]{1,80})\)")
_DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, OSError, RuntimeError)


def is_report(name: str) -> bool:
    """Return whether a name is that of the ``report.json`` itself, or of a file of heads.

    Example:
        >>> is_report("report.json"), is_report("q3.sci.json"), is_report("report.html")
        (True, False, False)
    """
    return _end(Path(name)) == "json"


def check_rendered(
    path: Path,
    patterns: Sequence[str] = (),
    report: Path | None = None,
    factors: Path | None = None,
) -> tuple[list[str], int]:
    """Render a file again from its report, and compare the contents.

    Args:
        path: The file, in any format of :data:`greentrain.report.write.FORMATS`, or a model card.
        patterns: The report's ledgers, as for :func:`greentrain.ledger.open_ledgers`; the report is
            compared with them, or built from them if there is no report.json.
        report: The ``report.json``; by default that of the file's folder.
        factors: The file of factors of a restated report.

    Returns:
        Lines of text, and the exit code: 0 if nothing differs, otherwise 1.

    Raises:
        ConfigurationError: If a file cannot be read, there is neither a report.json nor a ledger,
            or the report is of another version of greentrain.
        LedgerError: If a ledger cannot be read.
    """
    opened = open_ledgers(patterns)
    try:
        content = _content(path)
        if f'<meta name="{OVERVIEW_MARK}"'.encode() in content:
            raise ConfigurationError(NOT_CHECKED)
        source = report or path.with_name("report.json")
        of_file = report is not None or source.is_file()
        text = read_text(source) if of_file else _built(opened, path, content)
        lines, failed = [f"file {path}"], []
        if of_file and opened:
            result = check(text, opened, factors)
            failed += [f"the ledger: {one}" for one in result.failures]
            failed += [f"{source.name}{one}" for one in result.differences]
        failed += islice(_differences(path, content, text, opened, factors), _MOST_SHOWN)
    finally:
        close_ledgers(opened)
    lines += [f"FAILED: {one}" for one in failed[:_SHOWN]]
    more = f"{'at least ' if len(failed) >= _MOST_SHOWN else ''}{len(failed) - _SHOWN} more"
    lines += [f"FAILED: {more}"] if len(failed) > _SHOWN else []
    of_what = source.name if of_file else "its ledger"
    if failed:
        return [*lines, f"the file is not correct: it differs from {of_what}"], 1
    if _is_card(path, content) and not _is_new_card(content, text):
        lines.append(f"the entry {model_card.KEY} is correct: it shows what {of_what} gives")
        lines.append("the rest of the card was not checked: it is its owner's")
    else:
        lines.append(f"the file is correct: it shows what {of_what} gives")
    if not opened:
        lines.append(f"{source.name} itself was not checked: add --ledger LEDGER")
    return lines, 0


def _built(opened: Sequence[Ledger], path: Path, content: bytes) -> str:
    """Return the report of all that ledgers hold, if it is the one that a file carries."""
    if not opened:
        raise ConfigurationError(
            f"there is no report.json next to {str(path)!r}; give it with --report, or the ledger "
            "with --ledger"
        )
    document = build(opened)
    found, wanted = mark(path, content), str(claim(document))
    if found not in (None, wanted):
        raise ConfigurationError(
            f"{str(path)!r} carries the report {found}, and the ledger gives {wanted}: rows were "
            "appended since, the report has a scope, disclosures or other factors, or a line was "
            "changed. Give "
            "its report.json with --report"
        )
    return render_json(document)


def _differences(
    path: Path, content: bytes, text: str, opened: Sequence[Ledger], factors: Path | None
) -> Iterator[str]:
    numbers, document = load(text), json.loads(text)
    version = (document.get("generator") or {}).get("version")
    if version != VERSION:
        raise ConfigurationError(
            f"the report was written by greentrain {version}, and this is {VERSION}, which renders "
            "otherwise; use the version that wrote it"
        )
    found, wanted = mark(path, content), str(claim(document))
    if found != wanted:
        yield f"the file carries the report {found or 'nothing'}, and report.json is {wanted}"
    end = _end(path)
    if _is_card(path, content):
        yield from _card_differences(content, document)
        return
    left_out = (document.get("left_out") or {}).get(_STREAMED.get(end, ""))
    if left_out:
        expected: str | bytes = _streamed(end, numbers, opened, factors, wanted_by=path)
    else:
        expected = _ENDS[end](document)
    # Layout, line ends and compression are all that a file may add to what the report gives.
    if len(content) > 16 * len(expected) + 2**20:
        yield f"the file has {len(content)} bytes, and the report gives {len(expected)}"
        return
    yield from _COMPARISONS.get(path.suffix.lower(), _text_differences)(content, expected)


def _is_card(path: Path, content: bytes) -> bool:
    return _end(path) == "md" and model_card.entry_in(_decoded(content)) is not None


def _is_new_card(content: bytes, report: str) -> bool:
    """Return whether a card is as greentrain wrote it, so that all of it is checked."""
    return _decoded(content).splitlines() == model_card.new_card(json.loads(report)).splitlines()


def _streamed(
    end: str, report: Any, opened: Sequence[Ledger], factors: Path | None, *, wanted_by: Path
) -> bytes:
    """Write a CSV file that lists more than the report does, from its ledgers."""
    if not opened:
        raise ConfigurationError(
            f"{str(wanted_by)!r} lists more than report.json does; add --ledger LEDGER"
        )
    with tempfile.TemporaryDirectory() as folder, CsvFiles(Path(folder)) as files:
        document = build_again(report, opened, factors, files)
        files.keep(_STREAMED[end], Path(folder) / end, claim(document))
        return (Path(folder) / end).read_bytes()


def _end(path: Path) -> str:
    """Return the end of a file's name that names its format."""
    name = f".{path.name.lower()}"
    for end in sorted(_ENDS, key=len, reverse=True):
        if name.endswith(f".{end}"):
            return end
    raise ConfigurationError(
        f"the name of {str(path)!r} names no format of a report; keep the end that it was written "
        f"with: {', '.join(sorted(_ENDS))}"
    )


def _content(path: Path) -> bytes:
    try:
        content = read_regular(path, _MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"{str(path)!r} has over 1 GiB; no file of a report is as large")
    return content


def mark(path: Path, content: bytes) -> str | None:
    """Return the identity that a file carries."""
    unpack = {"xlsx": _workbook_text, "pdf": _pdf_text}.get(_end(path), _decoded)
    return carried(unpack(content))


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def _workbook_text(content: bytes) -> str:
    try:
        return "".join(_decoded(part) for _, part in _parts(content))
    except _DAMAGED:
        return ""


def _pdf_text(content: bytes) -> str:
    """Return the contents of the streams of a PDF, of which one holds its metadata."""
    texts, left = [], _MOST_OF_STREAMS
    for one in _STREAM.finditer(content):
        with suppress(zlib.error):
            text = zlib.decompressobj().decompress(one[1], left)
            texts.append(_decoded(text))
            left -= len(text)
        if left <= 0:  # 0 would mean no limit
            break
    return "\n".join(texts)


def _text_differences(content: bytes, expected: str | bytes) -> Iterator[str]:
    """Compare line by line; only the way in which lines end does not matter."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        yield "the file is not UTF-8"
        return
    wanted = expected if isinstance(expected, str) else expected.decode("utf-8")
    here, there = (one.replace("\r\n", "\n").split("\n") for one in (text, wanted))
    for number, (one, other) in enumerate(zip_longest(here, there), start=1):
        if one != other:
            yield f"line {number}: the file has {_part(one, other)}, and the report gives " + _part(
                other, one
            )


def _part(line: str | None, other: str | None) -> str:
    """Quote a line around the first character in which it differs from another."""
    if line is None:
        return "nothing"
    pairs = enumerate(zip(line, other or "", strict=False))
    at = next((at for at, (one, two) in pairs if one != two), min(len(line), len(other or "")))
    begin = max(0, at - 30)
    return f"{'…' if begin else ''}{shown(line[begin : at + 60], 100)!r}"


def _json_differences(content: bytes, expected: str | bytes) -> Iterator[str]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        yield "the file is not UTF-8"
        return
    yield from map(str, differences(exact(text), exact(str(expected))))


def _workbook_differences(content: bytes, expected: str | bytes) -> Iterator[str]:
    """Compare the parts of two workbooks, and name the cells that differ."""
    wanted = expected if isinstance(expected, bytes) else expected.encode()
    there = _parts(wanted)
    most = 4 * sum(len(part) for _, part in there) + 2**20
    try:
        here = _parts(content, most)
    except _DAMAGED as error:
        yield f"the file is no whole workbook: {shown(str(error), 80)}"
        return
    outside = _outside(content) - _outside(wanted)
    if outside:
        yield f"the file has {outside} bytes outside of the parts of the workbook"
    if here == there:
        return
    cells = list(_cell_differences(content, wanted))
    yield from cells
    if not cells:
        names = {name for name, _ in set(here) ^ set(there)}
        yield (
            f"the parts {shown(', '.join(sorted(names)), 200)} differ and no cell does: the "
            "formatting was changed, or another version of openpyxl wrote the file"
        )


def _parts(content: bytes, most_bytes: int = 2**28) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(one.file_size for one in archive.infolist())
        if size > most_bytes:
            raise ValueError(f"its parts would be {size} bytes")
        return sorted((one.filename, archive.read(one)) for one in archive.infolist())


def _outside(content: bytes) -> int:
    """Return the bytes of an archive that are no packed part: its own tables, and anything else."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return len(content) - sum(one.compress_size for one in archive.infolist())


def _cell_differences(content: bytes, expected: bytes) -> Iterator[str]:
    from openpyxl import load_workbook

    try:
        books = [load_workbook(io.BytesIO(one)) for one in (content, expected)]
    except Exception as error:  # openpyxl raises many kinds for a file that is damaged
        yield f"the workbook cannot be read: {shown(str(error), 80)}"
        return
    here, there = (
        {
            (sheet.title, cell.coordinate): cell.value
            for sheet in book.worksheets
            for row in sheet.iter_rows()
            for cell in row
        }
        for book in books
    )
    for place in sorted({*here, *there}):
        one, other = here.get(place), there.get(place)
        if one != other:
            yield (
                f"cell {place[1]} of {shown(place[0], 40)}: the file has {shown(repr(one), 80)}, "
                f"and the report gives {shown(repr(other), 80)}"
            )


def _pdf_differences(content: bytes, expected: str | bytes) -> Iterator[str]:
    """Compare byte by byte: the same report, WeasyPrint and fonts print the same file."""
    if content == expected:
        return
    wanted = expected if isinstance(expected, bytes) else expected.encode()
    here, there = (
        found[1] if (found := _PRODUCER.search(_pdf_text(one))) else "unknown software"
        for one in (content, wanted)
    )
    at = next(
        (at for at, (one, two) in enumerate(zip(content, wanted, strict=False)) if one != two),
        min(len(content), len(wanted)),
    )
    yield (
        f"the PDF is not the one that is printed here from the report; it differs from byte {at}. "
        f"It says that {shown(here, 80)} wrote it, and this is {there}. Other fonts or another "
        "version print another file: then check report.json, or the file's signature"
    )


def _card_differences(content: bytes, document: Any) -> Iterator[str]:
    """Compare the one entry of a card that is greentrain's."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        yield "the file is not UTF-8"
        return
    if len(all_carried(text)) > 1:  # such as a report.md with a header put before it
        yield (
            "the card carries a report outside of its entry, and figures there cannot be checked; "
            "check report.md as a file, or remove that line from the card"
        )
    found = model_card.entry_in(text)
    wanted = model_card.wanted_entry(document)
    yield from (f"{model_card.KEY}{one}" for one in differences(found, wanted))


_COMPARISONS: dict[str, Callable[[bytes, str | bytes], Iterator[str]]] = {
    ".json": _json_differences,
    ".xlsx": _workbook_differences,
    ".pdf": _pdf_differences,
}
