"""Every format carries its report, and an edited figure is found in each."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
import zlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from greentrain.cli.app import app
from greentrain.cli.verify_command import REPORT_FILES
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report import build, build_and_write, decided, recheck_exports, write
from greentrain.report.exports import write_card
from greentrain.report.exports.claim import NO_CLAIM, carried, claim
from greentrain.report.recheck_exports import check_rendered, mark
from greentrain.report.write import FORMATS
from tests.report.exports.documents import DISCLOSED, known, needs_pango
from tests.report.ledgers import stream

ENDS = [end for name, one in FORMATS.items() if name != "json" for end in one.files]
DIGIT = re.compile(rb"[1-9]")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ledger, its report in every format, and a card."""
    needs_pango()
    folder = tmp_path_factory.mktemp("written")
    ledger = Ledger(str(folder / "ledger.db"))
    document = known(ledger)
    ledger.close()
    write(document, folder, list(FORMATS))
    card = folder / "README.md"
    card.write_text("---\nlicense: mit\n---\n# A model of 2026\n")
    write_card(card, document)
    return folder


def edited_workbook(content: bytes, old: bytes, new: bytes) -> bytes:
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as held, zipfile.ZipFile(changed, "w") as archive:
        for name in held.namelist():
            archive.writestr(name, held.read(name).replace(old, new))
    return changed.getvalue()


def forged(name: str, content: bytes, number: int = 0) -> bytes:
    """The file with one of its figures changed, as its format allows it."""
    if name.endswith("pdf"):  # within the text that a page shows, in a stream that still unpacks
        streams = list(re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL))
        for one in streams:
            try:
                text = zlib.decompress(one[1])
            except zlib.error:
                continue
            if (at := text.find(b"]TJ")) > 0 or (at := text.find(b"Tj")) > 0:
                packed = zlib.compress(text[:at] + b" " + text[at:])
                return content[: one.start(1)] + packed + content[one.end(1) :]
        at = streams[number].start(1) + 5
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    if name.endswith("xlsx"):
        return edited_workbook(content, b"<v>0.003</v>", b"<v>0.002</v>")
    places = [one.start() for one in DIGIT.finditer(content)]
    if name == "README.md":
        places = [one for one in places if one > content.index(b"co2_eq") + 4][:5]
    at = places[number % len(places)]
    return content[:at] + (b"1" if content[at : at + 1] != b"1" else b"2") + content[at + 1 :]


def copied(written: Path, folder: Path, name: str) -> Path:
    (folder / "report.json").write_bytes((written / "report.json").read_bytes())
    (folder / name).write_bytes((written / name).read_bytes())
    return folder / name


@pytest.mark.parametrize("name", [*(f"report.{end}" for end in ENDS), "README.md"])
def test_each_file_is_checked_and_a_changed_figure_is_found(written, tmp_path, name):
    path = copied(written, tmp_path, name)
    assert Path(name).suffix in REPORT_FILES
    lines, code = check_rendered(path)
    assert (code, "correct: it shows what report.json gives" in lines[1]) == (0, True), lines
    content = path.read_bytes()
    for number in (0,) if name.endswith("pdf") else (0, 20, 40):  # a PDF takes seconds
        path.write_bytes(forged(name, content, number))
        assert path.read_bytes() != content
        lines, code = check_rendered(path)
        assert code == 1, (name, number)
        assert any(line.startswith("FAILED: ") for line in lines)


@pytest.mark.parametrize("end", ENDS)
def test_each_file_carries_the_identity_of_its_report(written, end):
    path = written / f"report.{end}"
    document = json.loads((written / "report.json").read_text())
    assert mark(path, path.read_bytes()) == str(claim(document))


def test_a_changed_digit_of_a_text_is_found_wherever_it_is(written, tmp_path):
    for end in ("sci.json", "runs.csv", "hf.yaml"):
        path = copied(written, tmp_path, f"report.{end}")
        content = path.read_bytes()
        for number in range(0, len(DIGIT.findall(content)), 3):
            path.write_bytes(forged(path.name, content, number))
            assert check_rendered(path)[1] == 1, (end, number)


def test_line_ends_and_layout_are_no_edits(written, tmp_path):
    for name in ("report.md", "report.runs.csv", "README.md"):
        path = copied(written, tmp_path, name)
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        assert check_rendered(path)[1] == 0, name
    path = copied(written, tmp_path, "report.sci.json")
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert check_rendered(path)[1] == 0


def test_the_rest_of_a_card_is_its_owners(written, tmp_path):
    path = copied(written, tmp_path, "README.md")
    path.write_text(path.read_text() + "\nMore words.\n")
    assert check_rendered(path)[1] == 0
    path.write_text(path.read_text().replace("---\n", "---\nco2_eq_emissions: 0\n", 1))
    with pytest.raises(ConfigurationError, match="co2_eq_emissions twice"):
        check_rendered(path)


def test_a_file_of_another_report_is_named(written, tmp_path):
    path = copied(written, tmp_path, "report.md")
    ledger = Ledger(str(tmp_path / "other.db"))
    stream(ledger)
    write(build(ledger), tmp_path, ("json",))
    ledger.close()
    lines, code = check_rendered(path)
    assert code == 1
    assert "the file carries the report urn:uuid:" in lines[1]


def test_a_report_that_was_edited_with_its_files_differs_from_its_ledger(written, tmp_path):
    """Who edits report.json and renders every file again is found by the ledger alone."""
    document = json.loads((written / "report.json").read_text())
    document["totals"]["energy_j"] /= 2
    write(document, tmp_path, ("json", "html"))
    assert check_rendered(tmp_path / "report.html")[1] == 0
    lines, code = check_rendered(tmp_path / "report.html", [str(written / "ledger.db")])
    assert code == 1
    assert "report.json/totals/energy_j: the report has 5400.0" in "\n".join(lines)


def test_the_ledger_alone_is_enough_for_a_report_of_all_of_it(tmp_path):
    ledger = Ledger(str(tmp_path / "ledger.db"))
    stream(ledger)
    write(build(ledger), tmp_path, ("html",))
    page, file = tmp_path / "report.html", [str(tmp_path / "ledger.db")]
    lines, code = check_rendered(page, file)
    assert (code, lines[-1]) == (0, "the file is correct: it shows what its ledger gives")
    page.write_text(page.read_text().replace("1.5 Wh", "1.4 Wh"))
    assert check_rendered(page, file)[1] == 1
    stream(ledger, name="later")
    ledger.close()
    with pytest.raises(ConfigurationError, match="rows were appended since"):
        check_rendered(page, file)
    with pytest.raises(ConfigurationError, match=r"there is no report.json next to"):
        check_rendered(page)


def test_csv_files_of_a_large_ledger_are_compared_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(decided, "MOST_EXPERIENCES", 1)
    ledger = Ledger(str(tmp_path / "ledger.db"))
    stream(ledger)
    document, _ = build_and_write(ledger, tmp_path, ("json", "csv"), disclosures=DISCLOSED)
    assert document["left_out"]["experiences"] == 1
    stream(ledger, name="later")
    ledger.close()
    path, file = tmp_path / "report.experiences.csv", [str(tmp_path / "ledger.db")]
    assert carried(path.read_text()) == str(claim(document))
    with pytest.raises(ConfigurationError, match=r"lists more than report.json does; add --ledger"):
        check_rendered(path)
    assert check_rendered(path, file)[1] == 0
    path.write_text(path.read_text().replace("0.9", "0.8", 1))
    lines, code = check_rendered(path, file)
    assert code == 1
    assert "line 2: the file has " in "\n".join(lines)


BAD = {
    "not UTF-8": ("report.md", b"\xff\xfe", "not UTF-8"),
    "cut short": ("report.xlsx", b"PK\x03\x04", "no whole workbook"),
    "empty": ("report.md", b"", "the file carries the report nothing"),
}


@pytest.mark.parametrize(("name", "content", "why"), BAD.values(), ids=BAD)
def test_a_damaged_file_fails(written, tmp_path, name, content, why):
    path = copied(written, tmp_path, name)
    path.write_bytes(content)
    lines, code = check_rendered(path)
    assert code == 1
    assert why in "\n".join(lines)


def bloated(content: bytes) -> bytes:
    """A workbook that is small, and has a sheet of 40 MB when it is unpacked."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as held,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in held.namelist():
            sheet = name.endswith("sheet1.xml")
            archive.writestr(name, b" " * 40_000_000 if sheet else held.read(name))
    return packed.getvalue()


def with_header(content: bytes, folder: Path) -> bytes:
    """A forged report.md that a true entry makes a model card."""
    card = (folder / "README.md").read_bytes()
    header = card[: card.index(b"---", 3) + 4]
    return header + forged("report.md", content)


SMUGGLED = {
    "bytes before a workbook": ("report.xlsx", lambda held, _: held + held, "bytes outside"),
    "bytes after a workbook": ("report.xlsx", lambda held, _: held + b"\0" * 9, "9 bytes outside"),
    "a bomb": ("report.xlsx", lambda held, _: bloated(held), "its parts would be 40"),
    "a large page": ("report.html", lambda held, _: held + b"\n" * 5_000_000, "the report gives "),
    "a large document": ("report.sci.json", lambda held, _: held + b" " * 5_000_000, "bytes, and"),
    "JSON in no UTF-8": ("report.sci.json", lambda held, _: held[:-9] + b"\xff", "not UTF-8"),
    "a report as a card": ("report.md", with_header, "outside of its entry"),
    "two reports in a page": (
        "report.html",
        lambda held, _: held.replace(b"<main", str(NO_CLAIM).encode() + b"<main", 1),
        "line ",
    ),
}


@pytest.mark.parametrize(("name", "change", "why"), SMUGGLED.values(), ids=SMUGGLED)
def test_nothing_is_smuggled_into_a_file(written, tmp_path, name, change, why):
    path = copied(written, tmp_path, name)
    path.write_bytes(change(path.read_bytes(), written))
    lines, code = check_rendered(path)
    assert code == 1
    assert why in "\n".join(lines)
    assert len(lines) < 60


def test_streams_of_a_pdf_are_unpacked_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(recheck_exports, "_MOST_OF_STREAMS", 1100)
    one = b"stream\n" + zlib.compress(b" " * 900) + b"\nendstream\n"
    hidden = b"stream\n" + zlib.compress(str(NO_CLAIM).encode()) + b"\nendstream\n"
    assert mark(Path("a.pdf"), one + hidden + one) == str(NO_CLAIM)
    assert mark(Path("a.pdf"), one + one + hidden) is None


def test_a_pipe_is_no_file_of_a_report(tmp_path):
    os.mkfifo(tmp_path / "report.html")
    with pytest.raises(ConfigurationError, match="it is no regular file"):
        check_rendered(tmp_path / "report.html")


def test_a_card_says_that_only_its_entry_was_checked(written):
    lines, code = check_rendered(written / "README.md")
    assert code == 0
    assert "the entry co2_eq_emissions is correct" in lines[1]
    assert "the rest of the card was not checked" in lines[2]


def test_what_cannot_be_checked_is_refused(written, tmp_path):
    path = copied(written, tmp_path, "report.sci.json")
    path.write_text("{")
    with pytest.raises(ConfigurationError, match="this is not JSON that greentrain wrote"):
        check_rendered(path)
    with pytest.raises(ConfigurationError, match="cannot read"):
        check_rendered(tmp_path / "missing.html")
    (tmp_path / "notes.yaml").write_text("")
    with pytest.raises(ConfigurationError, match="names no format of a report"):
        check_rendered(tmp_path / "notes.yaml")
    document = json.loads((written / "report.json").read_text())
    document["generator"]["version"] = "0.0.1"
    (tmp_path / "report.json").write_text(json.dumps(document))
    (tmp_path / "report.md").write_text("")
    with pytest.raises(ConfigurationError, match=r"written by greentrain 0.0.1"):
        check_rendered(tmp_path / "report.md")


def test_the_command(written, tmp_path):
    path = copied(written, tmp_path, "report.html")
    ask = ["verify", str(path), "--ledger", str(written / "ledger.db")]
    done = CliRunner().invoke(app, ask)
    assert (done.exit_code, "the file is correct" in done.output) == (0, True), done.output
    path.rename(tmp_path / "q3.html")
    ask = ["verify", str(tmp_path / "q3.html"), "--report", str(tmp_path / "report.json")]
    assert CliRunner().invoke(app, ask).exit_code == 0
    with pytest.raises(ConfigurationError, match="belong to a file of a report"):
        CliRunner().invoke(app, ["verify", "a.db", "--ledger", "b.db"], catch_exceptions=False)
