"""The README and the pages: their code runs, their links lead somewhere, their tables are right."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from greentrain.control.utility import PRIOR_WEIGHTS
from greentrain.energy import _codecarbon_parts, _nvml_card
from greentrain.tracking import names

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("reference/*.md")])
TEXTS = [*([README] if README.exists() else []), *PAGES]

FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# A shell block is marked as such, and a block without a language holds no code.
LANGUAGES = {"python", "console", "sh", "text", "yaml", "{toctree}", "{eval-rst}"}


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page, with the line that each begins at."""
    text = path.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(2)) + 1, match.group(2))
        for match in FENCE.finditer(text)
        if match.group(1) == "python"
    ]


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors that headings get, as GitHub and MyST make them."""
    headings = re.findall(r"^#+\s+(.+)$", prose(path), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading).strip().lower() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def rows(path: Path, heading: str) -> list[list[str]]:
    """The cells of the tables under a heading, without their header rows."""
    section = re.split(rf"^#+ {re.escape(heading)}$", prose(path), flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
    tables = re.findall(r"(?:^\|.*\|\n)+", section, re.MULTILINE)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for table in tables
        for line in table.splitlines()[2:]
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
# Pages run in real time: on a busy machine a stall draws joules, and a guard says so.
@pytest.mark.filterwarnings("ignore:BudgetGuard")
@pytest.mark.parametrize("path", [path for path in TEXTS if blocks(path)], ids=label)
def test_the_code_of_a_page_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for line, code in blocks(path):
        # Blank lines before it, so that a traceback names the line of the page.
        exec(compile("\n" * (line - 1) + code, str(path), "exec"), namespace)


@pytest.mark.parametrize("path", TEXTS, ids=label)
def test_every_block_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert {match.group(1) for match in FENCE.finditer(text)} <= LANGUAGES
    assert text.count("```") % 2 == 0


@pytest.mark.parametrize("path", TEXTS, ids=label)
def test_links_lead_somewhere(path: Path) -> None:
    dead = []
    for target in LINK.findall(prose(path)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = unquote(target).partition("#")
        page = (path.parent / name).resolve() if name else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            dead.append(target)
    assert dead == []


def test_every_page_is_in_the_index() -> None:
    listed = {
        line.strip()
        for match in FENCE.finditer((DOCS / "index.md").read_text(encoding="utf-8"))
        if match.group(1) == "{toctree}"
        for line in match.group(2).splitlines()
        if line.strip() and not line.startswith(":")
    }
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in PAGES}
    assert listed == pages - {"index"}


def test_every_package_has_a_page_of_its_api() -> None:
    told = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("reference/*.md"))
    packages = [path.parent.name for path in (ROOT / "greentrain").glob("*/__init__.py")]
    modules = ["budget", "callbacks", "errors", "units", *packages]
    assert [name for name in modules if f"automodule:: greentrain.{name}\n" not in told] == []


def test_the_table_of_names_is_that_of_the_code() -> None:
    table = [row[0].strip("`") for row in rows(DOCS / "mlflow.md", "Names")]
    written = {
        value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and name != "ENERGY_PREFIX"
    }
    of_sources = {
        each("SOURCE")
        for each in (names.source_epoch, names.source_power_limit, names.source_power)
    }
    assert set(table) == written | of_sources | {names.setting("NAME")}
    assert len(table) == len(set(table))


def test_the_numbers_of_the_update_modes_are_those_of_the_code() -> None:
    told = {row[0].strip("`"): row[3] for row in rows(DOCS / "mlflow.md", "Names")}
    for mode, number in names.UPDATE_MODE_STEPS.items():
        assert f"{number} `{mode}`" in told[names.UPDATE_MODE_STEP]


def test_the_prior_weights_are_those_of_the_code() -> None:
    table = {row[0]: row[1:] for row in rows(DOCS / "deciding.md", "What an update gains")}
    for mode, weights in PRIOR_WEIGHTS.items():
        assert [float(cell) for cell in table[f"`{mode}`"]] == list(weights)


KNOWN_CPU_METHODS = [way for way in _codecarbon_parts.CPU_METHODS.values() if way[1] is not None]


@pytest.mark.parametrize(
    "reference",
    [
        _nvml_card._COUNTER_REFERENCE,
        _nvml_card._SAMPLED_REFERENCE,
        _codecarbon_parts.LOAD_REFERENCE,
        *dict.fromkeys(reference for _, _, reference in KNOWN_CPU_METHODS),
    ],
)
def test_references_of_uncertainties_are_those_of_the_code(reference: str) -> None:
    assert reference in prose(DOCS / "measuring.md")


def test_uncertainties_are_those_of_the_code() -> None:
    table = rows(DOCS / "measuring.md", "Method and uncertainty")
    told = {row[-1]: (row[1], row[2]) for row in table if len(row) == 4}
    expected = {
        _nvml_card._COUNTER_REFERENCE: ("counter", _nvml_card._COUNTER_UNCERTAINTY),
        _nvml_card._SAMPLED_REFERENCE: ("sampled", _nvml_card._SAMPLED_UNCERTAINTY),
        **{reference: (method, share) for method, share, reference in KNOWN_CPU_METHODS},
    }
    for reference, (method, share) in expected.items():
        assert told[reference] == (f"`{method}`", f"{100 * share:g} %")
