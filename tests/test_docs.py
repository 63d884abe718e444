"""Test README and documentation: code runs and prints its output, links resolve, tables match."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from greentrain.callbacks import BudgetGuard
from greentrain.control import UPDATE_MODES
from greentrain.energy import _codecarbon_hardware, nvml
from greentrain.tracking import names

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PACKAGE = ROOT / "greentrain"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
NAMES = DOCS / "reference" / "metrics_and_tags.md"
CONTROLLER = DOCS / "explanation" / "controller.md"
MEASURING = DOCS / "explanation" / "measuring.md"
TEXTS = [*(path for path in (README, ROOT / "CONTRIBUTING.md") if path.exists()), *PAGES]

# A marker in an HTML comment may precede a block. `<!-- recorded -->`: the output differs by run.
# `<!-- needs NAME -->`: the block runs only where that package is installed.
# `python tests/test_docs.py PAGE...` runs pages and replaces the outputs that they show.
FENCE = re.compile(
    r"(?:^<!-- (?P<marker>[^\n]*?) -->\s*?\n)?"
    r"^```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
OUTPUT = re.compile(
    r"\s*(?P<recorded><!-- recorded -->\s*?\n)?^```text\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# A shell block is marked as such, and a block without a language holds no code.
LANGUAGES = {"python", "console", "sh", "text", "yaml", "{toctree}", "{eval-rst}"}
MARKER = re.compile(r"recorded|needs \w+")
CODE_WIDTH = 88
"""Most characters in a line of code; a longer one is clipped in a window of 1280 pixels."""
CELL_WORDS = 12
"""Most words in a cell of a table."""


class Block(NamedTuple):
    """A Python block of a page.

    Args:
        line: The line that its code begins at.
        code: Its code.
        package: A package that it needs and greentrain does not; empty for none.
        output: The text block directly below it; ``None`` without one.
        recorded: Whether that text was recorded, and is allowed to differ.
    """

    line: int
    code: str
    package: str
    output: str | None
    recorded: bool


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[Block]:
    """Return the Python blocks of a page, each with its output."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        if match["language"] == "python":
            output = OUTPUT.match(text, match.end())
            found.append(
                Block(
                    line=text.count("\n", 0, match.start("code")) + 1,
                    code=match["code"],
                    package=(match["marker"] or "").removeprefix("needs ").strip(),
                    output=output["text"] if output else None,
                    recorded=bool(output and output["recorded"]),
                )
            )
    return found


def run(path: Path) -> Iterator[tuple[Block, str]]:
    """Run the Python blocks of a page in its order, and yield what each of them prints."""
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(path):
        # Blank lines before it, so that a traceback names the line of the page.
        code = compile("\n" * (block.line - 1) + block.code, str(path), "exec")
        if not block.package or importlib.util.find_spec(block.package) is not None:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, namespace)
            yield block, printed.getvalue()


def write_outputs(path: Path) -> None:
    """Run a page, and replace the outputs that it shows by those of this run."""
    printed = {block.line: output for block, output in run(path)}
    text = path.read_text(encoding="utf-8")
    for match in reversed(list(FENCE.finditer(text))):
        line = text.count("\n", 0, match.start("code")) + 1
        shown = OUTPUT.match(text, match.end())
        if match["language"] == "python" and shown and line in printed:
            text = text[: shown.start("text")] + printed[line] + text[shown.end("text") :]
    path.write_text(text, encoding="utf-8")


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Return the anchors that headings get, as GitHub and MyST make them."""
    headings = re.findall(r"^#+\s+(.+)$", prose(path), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading).strip().lower() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def table_cells(text: str) -> list[list[str]]:
    """Return the cells of all tables in a text, without their header rows."""
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for table in tables
        for line in table.splitlines()[2:]
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
# Pages run in real time: on a busy machine a stall uses joules, and a guard says so.
@pytest.mark.filterwarnings("ignore:BudgetGuard")
# MLflow about its datasets of pandas.
@pytest.mark.filterwarnings("ignore:The specified dataset source can be interpreted")
@pytest.mark.filterwarnings("ignore:Starting with pandas version 4.0")
@pytest.mark.filterwarnings("ignore:.*Inferred schema contains integer column")
@pytest.mark.parametrize("path", [path for path in TEXTS if blocks(path)], ids=label)
def test_the_code_of_a_page_runs_and_prints_the_output_below_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # a page may write a module and import it
    monkeypatch.setattr(sys, "argv", ["page"])  # LightningCLI reads it
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of LightningCLI's own calls
    for block, printed in run(path):
        if block.recorded:
            assert printed, f"{label(path)}:{block.line} prints nothing"
        else:
            assert (block.line, printed) == (block.line, block.output or "")


@pytest.mark.parametrize("path", TEXTS, ids=label)
def test_every_block_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert {match["language"] for match in FENCE.finditer(text)} <= LANGUAGES
    assert text.count("```") % 2 == 0
    comments = re.findall(r"^<!-- (.*?) -->", text, re.MULTILINE | re.DOTALL)
    assert [comment for comment in comments if not MARKER.fullmatch(comment)] == []
    assert len(comments) == sum(bool(match["marker"]) for match in FENCE.finditer(text))


@pytest.mark.parametrize("path", TEXTS, ids=label)
def test_code_and_tables_fit_the_page(path: Path) -> None:
    """Lines of code fit a window of 1280 pixels, and cells of tables a narrow one."""
    fences = FENCE.finditer(path.read_text(encoding="utf-8"))
    blocks = [match["code"] for match in fences if match["language"] != "text"]  # outputs wrap
    code = [line for block in blocks for line in block.splitlines()]
    assert [line for line in code if len(line) > CODE_WIDTH] == []
    if path != DOCS / "benchmarks.md":  # generated
        cells = [cell for row in table_cells(prose(path)) for cell in row]
        assert [cell for cell in cells if len(cell.split()) > CELL_WORDS] == []


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


@pytest.mark.parametrize("path", TEXTS, ids=label)
def test_a_source_file_that_a_page_names_exists(path: Path) -> None:
    named = re.findall(r"`([\w-]+/[\w/-]+\.py)`", path.read_text(encoding="utf-8"))
    assert [name for name in named if not any((at / name).exists() for at in (ROOT, PACKAGE))] == []


def test_every_page_is_in_the_index() -> None:
    listed = [
        line.strip()
        for match in FENCE.finditer((DOCS / "index.md").read_text(encoding="utf-8"))
        if match["language"] == "{toctree}"
        for line in match["code"].splitlines()
        if line.strip() and not line.startswith(":")
    ]
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in PAGES}
    assert set(listed) == pages - {"index"}
    assert len(listed) == len(set(listed))


def test_every_package_has_a_page_of_its_api() -> None:
    api = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("reference/api/*.md"))
    packages = [path.parent.name for path in (ROOT / "greentrain").glob("*/__init__.py")]
    # The command has a page of its commands and options in place of its modules.
    assert (DOCS / "reference" / "command_line.md").exists()
    packages.remove("cli")
    modules = ["budget", "callbacks", "errors", "measuring", "units", *packages]
    assert [name for name in modules if f"automodule:: greentrain.{name}\n" not in api] == []


LIST_ITEM = re.compile(r"\s*(?:\d+[.)]|[-+*])\s")


def definitions(code: str) -> tuple[set[str], set[str]]:
    """Return the names that a block defines, and those that it uses."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    defined = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
    return defined, {node.id for node in names if isinstance(node.ctx, ast.Load)}


@pytest.mark.parametrize("path", [path for path in TEXTS if blocks(path)], ids=label)
def test_a_page_says_if_its_blocks_need_each_other(path: Path) -> None:
    """A block that is pasted alone must not end in a NameError without a word."""
    before: set[str] = set()
    needing = []
    for block in blocks(path):
        defined, used = definitions(block.code)
        needing += [block.line] if (used - defined) & before else []
        before |= defined
    said = re.search(r"in\s+their\s+order", path.read_text(encoding="utf-8"))
    assert said or needing == []


@pytest.mark.parametrize("path", TEXTS, ids=label)
def test_no_line_of_a_paragraph_reads_as_an_item_of_a_list(path: Path) -> None:
    """A line that begins with "1. " or "- " by where it was wrapped is rendered as a list."""
    broken = []
    for paragraph in re.split(r"\n\s*\n", prose(path)):
        first, *rest = paragraph.strip("\n").splitlines() or [""]
        if not LIST_ITEM.match(first):
            broken += [line for line in rest if LIST_ITEM.match(line)]
    assert broken == []


# Claims that were once made here and are wrong: a limit or an exception exists to each.
OVERSTATED = re.compile(
    r"never overspen|cannot be overspent|no benchmark compares|wrong configuration never|"
    r"guarantee|always exact|no overhead",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", TEXTS, ids=label)
def test_no_page_claims_more_than_holds(path: Path) -> None:
    assert OVERSTATED.findall(prose(path)) == []


def test_the_shares_of_the_gap_are_those_of_the_benchmark() -> None:
    """With the small CNN, which is worse: a range that leaves it out flatters."""
    rows = json.loads((DOCS / "benchmarks" / "controller.json").read_text(encoding="utf-8"))["rows"]
    shares = {row["id"]: row["value"] for row in rows if row["id"].startswith("gap_")}
    perceptron = [shares[f"gap_{stream}_10"] for stream in "abcde"]
    figures = (min(perceptron), max(perceptron), shares["gap_a_cnn_10"])
    low, high, cnn = (f"{value:.0f}" for value in figures)
    for path in (README, DOCS / "how-to" / "choose_budget.md"):
        text = " ".join(prose(path).split())
        assert re.search(rf"closed {low} to {high} %.{{0,80}} {cnn} %", text), label(path)


GUARD_SENTENCE = re.compile(r"\bthe fit used .*?(?:cap|part)\b.*")
"""A sentence of a BudgetGuard, to the end of its line."""


def without_amounts(sentence: str) -> str:
    return re.sub(r"[\d.,]+ (?:J|m?Wh|kWh|g CO2e)\b|\d+", "#", sentence)


def test_a_quoted_sentence_of_a_guard_is_the_one_that_it_prints(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not above: as a script, this module does not find it.
    from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer

    monkeypatch.chdir(tmp_path)
    clock, printed = Clock(), set()
    for cap, on_exceed in (("30 J", "stop"), ("30 J", "warn")):
        guard = BudgetGuard(cap, meter=constant_meter(clock), on_exceed=on_exceed)
        fitted = trainer(guard, Tick(clock), max_epochs=3)
        with warnings.catch_warnings(), caplog.at_level("INFO"):
            warnings.filterwarnings("ignore", message="BudgetGuard")
            fitted.fit(Classifier(), loader())
        printed.add(without_amounts(guard.reason))
    assert len(printed) == 2
    heading = "BudgetGuard stops the fit"
    assert f"### {heading}\n" in (DOCS / "how-to" / "troubleshooting.md").read_text("utf-8")
    assert any(message.startswith(f"{heading}: the fit used") for message in caplog.messages)
    pages = (path.read_text(encoding="utf-8") for path in TEXTS)
    quoted = [line for page in pages for line in GUARD_SENTENCE.findall(page)]
    assert len(quoted) >= 2
    assert {without_amounts(line) for line in quoted} <= printed


def names_table() -> list[list[str]]:
    """Return the rows of metrics and tags: name, kind, run and meaning."""
    return [row for row in table_cells(prose(NAMES)) if row[1] in ("metric", "tag")]


def test_the_table_of_names_is_that_of_the_code() -> None:
    table = [row[0].strip("`") for row in names_table()]
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
    shown = {row[0].strip("`"): row[3] for row in names_table()}
    for mode, traits in UPDATE_MODES.items():
        assert f"{traits.step} `{mode}`" in shown[names.UPDATE_MODE_STEP]


def test_the_prior_weights_are_those_of_the_code() -> None:
    number = re.compile(r"-?\d+(\.\d+)?")
    table = {
        row[0]: [float(cell) for cell in row[1:]]
        for row in table_cells(prose(CONTROLLER))
        if len(row) > 2 and all(number.fullmatch(cell) for cell in row[1:])
    }
    for mode, traits in UPDATE_MODES.items():
        if traits.prior_weights:
            assert table[f"`{mode}`"] == list(traits.prior_weights)


KNOWN_CPU_METHODS = [way for way in _codecarbon_hardware.CPU_METHODS.values() if way[1] is not None]


@pytest.mark.parametrize(
    "reference",
    [
        nvml.COUNTER_ACCURACY[1],
        nvml.SAMPLED_ACCURACY[1],
        _codecarbon_hardware.LOAD_REFERENCE,
        *dict.fromkeys(reference for _, _, reference in KNOWN_CPU_METHODS),
    ],
)
def test_references_of_uncertainties_are_those_of_the_code(reference: str) -> None:
    assert reference in " ".join(prose(MEASURING).split())


def test_uncertainties_are_those_of_the_code() -> None:
    # A cell holds a reference, or its number in a list below the table.
    items = re.findall(r"^(\d+)\. (.+?)(?=\n\d+\. |\n\n|\Z)", prose(MEASURING), re.M | re.S)
    listed = {number: " ".join(item.split()) for number, item in items}
    shown = {
        listed.get(row[3].strip("[]"), row[3]): (row[1], row[2])
        for row in table_cells(prose(MEASURING))
        if len(row) == 4
    }
    expected = {
        nvml.COUNTER_ACCURACY[1]: ("counter", nvml.COUNTER_ACCURACY[0]),
        nvml.SAMPLED_ACCURACY[1]: ("sampled", nvml.SAMPLED_ACCURACY[0]),
        **{reference: (method, share) for method, share, reference in KNOWN_CPU_METHODS},
    }
    for reference, (method, share) in expected.items():
        assert shown[reference] == (f"`{method}`", f"{100 * share:g} %")


if __name__ == "__main__":
    pages = [Path(argument).resolve() for argument in sys.argv[1:]]
    for page in pages:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            sys.path.insert(0, folder)
            write_outputs(page)
            os.chdir(ROOT)
