"""Write the results of benchmarks: rows with ids, the machine they were measured on, and a page.

``python examples/benchmarks/_results.py`` renders ``docs/benchmarks.md`` from the JSON files again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "benchmarks"
IMAGES = ROOT / "docs" / "images"
PAGE = ROOT / "docs" / "benchmarks.md"

Better = Literal["lower", "higher", "equal"]
_PACKAGES = (
    *("torch", "pytorch-lightning", "mlflow", "SQLAlchemy", "nvidia-ml-py"),
    *("codecarbon", "carbontracker", "zeus"),
)
_INTRODUCTION = """# Benchmarks

Rendered by `examples/benchmarks/_results.py` from `docs/benchmarks/*.json`, which the scripts of
`examples/benchmarks/` write. No figure here is typed by hand. A row without a value was not run,
and its note says why.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure.

    Args:
        id: The id in the issue's table. Several rows may share it, such as those of greentrain and
            of its peers.
        what: Description of the figure, and the tool that it belongs to.
        value: The figure, percentages as 0 to 100; ``None`` if it was not run.
        unit: Its unit.
        reach: The target for greentrain; ``None`` without one.
        better: Whether lower or higher is better, or the target has to be met exactly.
        seeds: Number of cases, seeds or repetitions.
        interval: The lowest and highest of them, or a confidence interval that the note names.
        note: Method of the measurement, or the reason for a missing value.
    """

    id: str
    what: str
    value: float | None
    unit: str
    reach: float | None = None
    better: Better = "lower"
    seeds: int = 1
    interval: tuple[float, float] | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """True if the value meets the target; ``None`` if either is missing."""
        if self.value is None or self.reach is None:
            return None
        if self.better == "equal":
            return self.value == self.reach
        return self.value <= self.reach if self.better == "lower" else self.value >= self.reach


def document(rows: Iterable[Row], *, peers_python: str | None = None) -> dict[str, Any]:
    """Return the content of a benchmark's JSON file.

    Args:
        rows: The figures.
        peers_python: The interpreter of the peers, whose packages are listed too.
    """
    return {
        "machine": _machine(),
        "versions": _versions(sys.executable) | (_versions(peers_python) if peers_python else {}),
        "commit": _commit(),
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rows": [asdict(row) for row in rows],
    }


def joined(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the content of one benchmark from files with parts of its rows.

    Args:
        paths: Files that ``--out`` wrote, on one machine.
    """
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return {
        "machine": "; ".join(dict.fromkeys(part["machine"] for part in parts)),
        "versions": parts[0]["versions"],
        "commit": ", ".join(dict.fromkeys(part["commit"] for part in parts)),
        "command": "\n".join(re.sub(r" --(out|kept) \S+", "", part["command"]) for part in parts),
        "date": max(part["date"] for part in parts),
        "rows": [row for part in parts for row in part["rows"]],
    }


def write(name: str, content: Mapping[str, Any]) -> Path:
    """Write ``docs/benchmarks/NAME.json`` and render the page again.

    Args:
        name: Name of the benchmark.
        content: The result of :func:`document`.

    Returns:
        The path of the JSON file.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(FOLDER), encoding="utf-8")
    return path


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks of several parts have."""
    parser = argparse.ArgumentParser(description=description.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="run a short form")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="run only these rows")
    parser.add_argument("--out", type=Path, help="write the JSON to this file instead of docs/")
    return parser


def rows_of(
    parts: Mapping[tuple[str, ...], Callable[[], Sequence[Row]]], only: Sequence[str]
) -> list[Row]:
    """Run the parts of a benchmark, or only those with some ids, and return their rows."""
    rows: list[Row] = []
    for ids, part in parts.items():
        if only and not set(ids) & set(only):
            continue
        began_s = time.monotonic()
        rows += part()
        print(f"{', '.join(ids)}: {time.monotonic() - began_s:.0f} s", flush=True)
    return rows


def report(
    name: str, rows: Sequence[Row], content: Mapping[str, Any], given: argparse.Namespace
) -> None:
    """Print the rows of a benchmark, and write them to the file that the options select."""
    print(f"\n{table(rows)}")
    if given.out is not None:
        given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    elif not given.quick and not given.only:
        print(f"\nwritten: {write(name, content)}")


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| id | figure | value | target | cases | note |", "|---|---|---|---|---|---|"]
    for row in rows:
        value = f"{_figure(row.value)} {row.unit}".strip() if row.value is not None else "not run"
        if row.interval is not None:
            value += f" ({_figure(row.interval[0])} to {_figure(row.interval[1])})"
        sign = {"lower": "<=", "higher": ">=", "equal": "="}[row.better]
        reach = "" if row.reach is None else f"{sign} {_figure(row.reach)}"
        if row.reached is False:
            reach += " **missed**"
        cells = [f"`{row.id}`", row.what, value, reach, str(row.seeds), row.note]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def render(folder: Path) -> str:
    """Return the page of all benchmarks in a folder as Markdown."""
    parts = [_INTRODUCTION]
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            Row(**{**row, "interval": tuple(row["interval"]) if row["interval"] else None})
            for row in content["rows"]
        ]
        versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
        commands = content["command"].splitlines()
        parts += [
            f"## {path.stem}",
            f"- Date: {content['date']}\n- Commit: {content['commit']}\n"
            f"- Machine: {content['machine']}\n- Versions: {versions}",
            "\n".join(["```console", *(f"$ {one}" for one in commands), "```"]),
            table(rows),
            *_image(path.stem),
            "",
        ]
    return "\n\n".join(parts).rstrip() + "\n"


def _image(name: str) -> list[str]:
    file = f"{name}.svg"
    return [f"![The picture of {name}](images/{file})"] if (IMAGES / file).exists() else []


def _figure(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _machine() -> str:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores of {_processor()}, {gib:.0f} GiB, {platform.system()} "
        f"{platform.release()}, {_cards() or 'no NVIDIA card'}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _cards() -> str:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    return ", ".join(
        torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
    )


def _versions(python: str) -> dict[str, str]:
    """Return the versions of Python and of the packages that an interpreter has."""
    if python == sys.executable:
        found = {"python": platform.python_version()}
        for name in _PACKAGES:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return found
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import _results; "
        "print(json.dumps(_results._versions(sys.executable)))"
    )
    command = [python, "-c", script, str(Path(__file__).parent)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    peers = json.loads(shown)
    return {name: peers[name] for name in ("codecarbon", "carbontracker", "zeus") if name in peers}


def _commit() -> str:
    commit = _git("rev-parse", "--short=12", "HEAD")
    return f"{commit} with uncommitted changes" if _git("status", "--porcelain") else commit


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


if __name__ == "__main__":
    PAGE.write_text(render(FOLDER), encoding="utf-8")
