"""Write the report's files, each whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.report.html import render_html


def render_json(report: Mapping[str, Any]) -> str:
    """Write the document as JSON: sorted keys, floats in full, plain ASCII."""
    return json.dumps(report, sort_keys=True, indent=2, allow_nan=False) + "\n"


RENDERERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "html": render_html,
    "json": render_json,
}
"""How each format is rendered; its name is the file's suffix."""


def write(
    report: Mapping[str, Any], out: Path, formats: Sequence[str] = ("json", "html")
) -> list[Path]:
    """Write ``report.FORMAT`` for each format, replacing what was there.

    Args:
        report: The document of :func:`greentrain.report.build`.
        out: The folder, created if missing.
        formats: Some of ``"json"`` and ``"html"``.

    Returns:
        The files, in the order of ``formats``.

    Raises:
        ConfigurationError: If a format is not known, or the folder cannot be written.
    """
    for name in formats:
        if name not in RENDERERS:
            raise ConfigurationError(
                f"the report format {name!r} is not known; allowed are "
                f"{', '.join(sorted(RENDERERS))}"
            )
    # All are rendered before the first is written: a report is never half new.
    texts = {f"report.{name}": RENDERERS[name](report) for name in formats}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            _replace(out / name, text)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the report into {str(out)!r}: {error.strerror}"
        ) from None
    return [out / name for name in texts]


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
