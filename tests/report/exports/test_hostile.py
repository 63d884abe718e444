"""Whatever stands in a name, no format lets it do anything."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser

import openpyxl
import pytest
import yaml

from greentrain.ledger import Ledger
from greentrain.report.exports import card_text
from greentrain.report.exports.claim import carried
from greentrain.report.write import FORMATS
from tests.report.exports.documents import known, needs_pango
from tests.report.exports.test_schemas import read_spdx

NAMES = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>&amp;",
    "equals": "=HYPERLINK(1)",
    "plus": "+1+1",
    "minus": "-1+1",
    "at": "@SUM(1)",
    "tab": "\t=1+1",
    "return": "\r=1+1\r\n=2",
    "reorders": "\u202egnp.exe\u2066\u200f",
    "long": "x" * 10_000,
    "nul": "a\x00b\x1b[2J",
    "markdown": "[a](http://evil.example) ![b](c) `d` | e | www.evil.example *f* # g",
    "yaml": "x\n---\nco2_eq_emissions: 0 # &a *a",
    "quotes": "\"',;\\",
    "lines": "a\u2028=1\u2029b\x85c",
    "surrogate": "\ud800",
}
TRICKS = ("\u202e", "\u2066", "\u200f", "\x00", "\x1b", "\ud800")


def called(value, name):
    """The document with a name in place of every text that a ledger's writer may choose."""
    if isinstance(value, dict):
        return {key: called(one, name) for key, one in value.items()}
    if isinstance(value, list):
        return [called(one, name) for one in value]
    return name if value in CHOSEN else value


CHOSEN = {
    "digits",
    "experience-0",
    "experience-1",
    "val_acc",
    "nothing to gain",
    "a card",
    "a processor",
    "a model",
    "a paper",
    "abc",
    "gpu:0",
    "DE",
    "a yearbook",
    "digits-net",
    "image classification",
    "https://example.org/digits",
    "cnn",
    "1.0",
    "experience",
    "data sheet",
    "contract",
    "gpu+cpu",
    "4 Wh for 2 experiences",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The document with names that do nothing."""
    ledger = Ledger(f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'ledger.db'}")
    document = known(ledger)
    ledger.close()
    return document


@pytest.fixture(params=NAMES.values(), ids=NAMES.keys())
def document(plain, request):
    return called(plain, request.param)


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"pdf"}))
def test_a_name_is_inert_in_every_format(document, name):
    for end, render in FORMATS[name].files.items():
        content = render(document)
        assert len(content) < 600_000
        if isinstance(content, str):
            content.encode("utf-8")
            assert not any(trick in content for trick in TRICKS)
        CHECKS[end.rpartition(".")[2]](content)


def html_is_inert(content):
    tags = Tags()
    tags.feed(content)
    assert not tags.found & {"script", "img", "iframe", "object", "a href=http"}


def json_is_inert(content):
    json.loads(content)
    assert content.isascii()


def csv_is_inert(content):
    header, *rows = csv.reader(io.StringIO(content, newline=""), strict=True)
    assert len(rows) in (1, 2)
    for row in rows:
        assert len(row) == len(header)
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)
        assert not any(mark in cell for cell in row for mark in "\r\n\u2028\u2029\x85")


def markdown_is_inert(content):
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(content)
    inside = [inner for token in tokens for inner in token.children or []]
    kinds = {token.type for token in [*tokens, *inside]}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "em_open", "fence"}
    command, mark = [token.content for token in inside if token.type == "code_inline"]
    assert command == "greentrain verify ledger.db"
    assert carried(mark) == mark
    # Every row of a table has the cells of its header.
    lines = [line for line in content.splitlines() if line.startswith("| ")]
    assert {len(line.replace("\\|", "").split("|")) for line in lines} <= {4, 5, 6}
    assert "www.evil" not in content and "http:" not in content


def yaml_is_inert(content):
    assert content.isascii()
    held = yaml.safe_load(content)
    assert list(held) == ["co2_eq_emissions"]
    assert held["co2_eq_emissions"]["emissions"] == pytest.approx(1.44)


def workbook_is_inert(content):
    book = openpyxl.load_workbook(io.BytesIO(content))
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert {cell.data_type for cell in cells} <= {"s", "n"}
    for cell in cells:
        if isinstance(cell.value, str) and cell.value.startswith(("=", "+", "-", "@")):
            assert cell.quotePrefix
    assert [len(list(sheet.rows)) for sheet in book][1:] == [2, 3, 2, 2]


CHECKS = {
    "html": html_is_inert,
    "json": json_is_inert,
    "csv": csv_is_inert,
    "md": markdown_is_inert,
    "yaml": yaml_is_inert,
    "xlsx": workbook_is_inert,
}


class Tags(HTMLParser):
    """Collects the names of the elements, and links that leave the page."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        if any(key == "href" and str(value).startswith("http") for key, value in attrs):
            self.found.add("a href=http")


def test_the_fragments_stay_valid_whatever_the_names(document):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    bom = FORMATS["cyclonedx"].files["cdx.json"](document)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom) is None
    assert len(read_spdx(FORMATS["spdx"].files["spdx.json"](document))) == 4


def test_a_name_changes_nothing_else_in_a_model_card(document):
    card = "---\nlicense: mit\n---\n# Text\n"
    text = card_text(card, document)
    assert text.startswith("---\nlicense: mit\nco2_eq_emissions:\n")
    assert text.endswith("\n---\n# Text\n")
    header = yaml.safe_load(text.split("\n---\n")[0])
    assert list(header) == ["license", "co2_eq_emissions"]


@pytest.mark.slow
def test_a_pdf_carries_no_action_and_no_script(plain):
    needs_pango()
    everything = " ".join(name.encode("utf-8", "ignore").decode() for name in NAMES.values())
    printed = FORMATS["pdf"].files["pdf"](called(plain, everything))
    assert printed.startswith(b"%PDF-")
    assert not any(mark in printed for mark in (b"/JavaScript", b"/JS", b"/Launch", b"/URI"))
