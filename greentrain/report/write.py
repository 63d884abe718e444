"""Write the report's files, each whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.ledger.signatures import Signer
from greentrain.report.document import Report
from greentrain.report.exports import (
    boamps,
    cyclonedx,
    esrs,
    gpai,
    markdown,
    model_card,
    pdf,
    sci,
    spdx,
    spreadsheet,
    tables,
)
from greentrain.report.exports.claim import claim
from greentrain.report.exports.facts import json_text, replace_file
from greentrain.report.html import render_html
from greentrain.report.model import build


def render_json(report: Report) -> str:
    """Write the document as JSON: sorted keys, floats in full, plain ASCII."""
    return json_text(report, sort_keys=True)


def _nothing(_: Report) -> list[str]:
    return []


class Format(NamedTuple):
    """The files of a format.

    Args:
        files: Functions that render the files, by the end of the file's name.
        missing: Function that lists, in sentences, what the format has room for and the report
            lacks.
    """

    files: Mapping[str, Callable[[Report], str | bytes]]
    missing: Callable[[Report], list[str]] = _nothing


def _as_json(render: Callable[[Report], dict[str, Any]]) -> Callable[[Report], str]:
    return lambda report: json_text(render(report))


FORMATS: Mapping[str, Format] = {
    "html": Format({"html": render_html}),
    "json": Format({"json": render_json}),
    "csv": Format(
        {
            "runs.csv": tables.render_runs,
            "experiences.csv": tables.render_experiences,
            "windows.csv": tables.render_windows,
            "hours.csv": tables.render_hours,
            "budgets.csv": tables.render_budgets,
        },
    ),
    "md": Format({"md": markdown.render}),
    "hf": Format({"hf.yaml": model_card.render}, model_card.missing),
    "boamps": Format({"boamps.json": _as_json(boamps.report)}, boamps.missing),
    "sci": Format({"sci.json": _as_json(sci.score)}, sci.missing),
    "xlsx": Format({"xlsx": spreadsheet.render}),
    "pdf": Format({"pdf": pdf.render}),
    "cyclonedx": Format({"cdx.json": _as_json(cyclonedx.bom)}, cyclonedx.missing),
    "spdx": Format({"spdx.json": _as_json(spdx.json_ld)}, spdx.missing),
    "esrs": Format({"esrs.json": _as_json(esrs.table)}, esrs.missing),
    "gpai": Format({"gpai.json": _as_json(gpai.form)}, gpai.missing),
}
"""The formats by name. A new export is a module of ``exports/`` and a line here."""


def build_and_write(
    ledger: Ledger | Sequence[Ledger],
    out: Path,
    formats: Sequence[str] = ("json", "html"),
    **scope: Any,
) -> tuple[Report, list[Path]]:
    """Build the report of a ledger of any size, and write its files.

    The CSV files list all windows and experiences, of which the document lists the last ones.

    Args:
        ledger: The ledger or ledgers, as for :func:`build`.
        out: The folder, created if missing.
        formats: Some of :data:`FORMATS`.
        **scope: Other arguments of :func:`build`.

    Returns:
        The document, and the files in the order of ``formats``.

    Raises:
        ConfigurationError: If :func:`build` or :func:`write` refuses an argument.
        LedgerError: If the ledger cannot be read.
    """
    _known(formats)
    if "csv" not in formats:
        report = build(ledger, **scope)
        return report, write(report, out, formats)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tables.CsvFiles(out) as files:
            report = build(ledger, **scope, sink=files)
            return report, _write(report, out, formats, files)
    except OSError as error:
        raise _not_written(out, error) from None


def write(report: Report, out: Path, formats: Sequence[str] = ("json", "html")) -> list[Path]:
    """Write the files ``report.*`` of each format, replacing existing ones.

    Each is signed in ``FILE.sig`` if ``GREENTRAIN_SIGNING_KEY`` names a private key.

    Args:
        report: The document of :func:`greentrain.report.build`.
        out: The folder, created if missing.
        formats: Some of :data:`FORMATS`.

    Returns:
        The files, in the order of ``formats``.

    Raises:
        ConfigurationError: If a format is not known, needs a package that is not installed, or
            the folder cannot be written. Also for CSV files of a report that does not list all its
            windows and experiences: :func:`build_and_write` writes these.
    """
    left_out = [name for name, count in report.get("left_out", {}).items() if count]
    if "csv" in formats and left_out:
        raise ConfigurationError(
            f"the document lists only the last {' and '.join(left_out)}, and the CSV files hold "
            "all; call greentrain.report.build_and_write(ledger, folder, formats)"
        )
    return _write(report, out, formats, None)


def _write(
    report: Report, out: Path, formats: Sequence[str], files: tables.CsvFiles | None
) -> list[Path]:
    signer = Signer.configured()
    left_out = report.get("left_out", {"windows": 0, "experiences": 0})
    streamed = {f"{name}.csv": name for name, count in left_out.items() if count and files}
    # All are rendered before the first is written, so that an error leaves the old files.
    contents = {
        f"report.{end}": "" if end in streamed else render(report)
        for one in _known(formats)
        for end, render in one.files.items()
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            if files is not None and (end := name.removeprefix("report.")) in streamed:
                files.keep(streamed[end], out / name, claim(report))
            else:
                replace_file(out / name, content)
            if signer is not None:
                signer.sign_file(out / name)
    except OSError as error:
        raise _not_written(out, error) from None
    return [out / name for name in contents]


def write_files(contents: Mapping[str, str | bytes], out: Path) -> list[Path]:
    """Write files that are no report, each whole or not at all, and signed like those of one.

    Args:
        contents: The contents by the name of the file.
        out: The folder, created if missing.

    Raises:
        ConfigurationError: If the folder cannot be written.
    """
    signer = Signer.configured()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            replace_file(out / name, content)
            if signer is not None:
                signer.sign_file(out / name)
    except OSError as error:
        raise _not_written(out, error) from None
    return [out / name for name in contents]


def _not_written(out: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"cannot write the report into {str(out)!r}: {error.strerror}")


def missing(report: Report, formats: Sequence[str]) -> dict[str, list[str]]:
    """List for each format what it has room for and the report lacks.

    Args:
        report: The document of :func:`greentrain.report.build`.
        formats: Some of :data:`FORMATS`.

    Returns:
        Sentences by format; formats that miss nothing are left out.

    Raises:
        ConfigurationError: If a format is not known.
    """
    listed = zip(formats, _known(formats), strict=True)
    found = {name: one.missing(report) for name, one in listed}
    return {name: sentences for name, sentences in found.items() if sentences}


def _known(formats: Sequence[str]) -> list[Format]:
    for name in formats:
        if name not in FORMATS:
            raise ConfigurationError(
                f"the report format {name!r} is not known; allowed are {', '.join(sorted(FORMATS))}"
            )
    return [FORMATS[name] for name in formats]
