"""Write the report's files, each whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from greentrain.errors import ConfigurationError
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
from greentrain.report.html import render_html

Document = Mapping[str, Any]


def render_json(report: Document) -> str:
    """Write the document as JSON: sorted keys, floats in full, plain ASCII."""
    return json.dumps(report, sort_keys=True, indent=2, allow_nan=False) + "\n"


def _nothing(_: Document) -> list[str]:
    return []


class Format(NamedTuple):
    """How a format is written.

    Args:
        files: What renders each of its files, by the end of the file's name.
        missing: Lists in sentences what the format has room for and the report does not know.
    """

    files: Mapping[str, Callable[[Document], str | bytes]]
    missing: Callable[[Document], list[str]] = _nothing


FORMATS: Mapping[str, Format] = {
    "html": Format({"html": render_html}),
    "json": Format({"json": render_json}),
    "csv": Format(
        {"runs.csv": tables.render_runs, "experiences.csv": tables.render_experiences},
    ),
    "md": Format({"md": markdown.render}),
    "hf": Format({"hf.yaml": model_card.render}, model_card.missing),
    "boamps": Format({"boamps.json": boamps.render}, boamps.missing),
    "sci": Format({"sci.json": sci.render}, sci.missing),
    "xlsx": Format({"xlsx": spreadsheet.render}),
    "pdf": Format({"pdf": pdf.render}),
    "cyclonedx": Format({"cdx.json": cyclonedx.render}, cyclonedx.missing),
    "spdx": Format({"spdx.json": spdx.render}, spdx.missing),
    "esrs": Format({"esrs.json": esrs.render}, esrs.missing),
    "gpai": Format({"gpai.json": gpai.render}, gpai.missing),
}
"""The formats by name."""


def write(report: Document, out: Path, formats: Sequence[str] = ("json", "html")) -> list[Path]:
    """Write the files ``report.*`` of each format, replacing what was there.

    Args:
        report: The document of :func:`greentrain.report.build`.
        out: The folder, created if missing.
        formats: Some of :data:`FORMATS`.

    Returns:
        The files, in the order of ``formats``.

    Raises:
        ConfigurationError: If a format is not known, needs a package that is not installed, or
            the folder cannot be written.
    """
    # All are rendered before the first is written: a report is never half new.
    contents = {
        f"report.{end}": render(report)
        for one in _known(formats)
        for end, render in one.files.items()
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            _replace(out / name, content)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the report into {str(out)!r}: {error.strerror}"
        ) from None
    return [out / name for name in contents]


def missing(report: Document, formats: Sequence[str]) -> dict[str, list[str]]:
    """List for each format what it has room for and the report does not know.

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


def _replace(path: Path, content: str | bytes) -> None:
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
