"""What is put into a model card's header leaves everything else as it was."""

from __future__ import annotations

import json
import stat

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from greentrain.errors import ConfigurationError
from greentrain.report import build
from greentrain.report.exports import card_text, write_card
from greentrain.report.exports.claim import claim
from tests.report.exports.documents import known
from tests.report.ledgers import stream

DOCUMENT = {
    "generator": {"version": "1"},
    "runs": [],
    "experiences": [],
    "summary": {"weights_sha256": None},
    "totals": {"energy_j": 3.6e6, "sources": [], "complete": True},
    "carbon": {"emissions_g": 400.0, "complete": True, "intensities": [], "sentence": ""},
}
CARD = """---
# Who may use it
license:   mit   # as the code
tags: [a,  b]
{old}model-index:
- name: "net"
---
# A model

co2_eq_emissions: 3 is no header.
---
"""
OLD = {
    "none": "",
    "a number": "co2_eq_emissions: 12.5\n",
    "a comment": "co2_eq_emissions: 12.5  # roughly\n",
    "nothing": "co2_eq_emissions:\n",
    "a block": "co2_eq_emissions:\n  emissions: 1\n  source: |\n    two\n    lines\n",
    "a flow": "co2_eq_emissions: {emissions: 1,\n  source: x}\n",
    "quotes": "'co2_eq_emissions': \"1\n  2\"\n",
    "a list": "co2_eq_emissions:\n- emissions: 1\n- 2\n",
}


ENTRY = (
    f"co2_eq_emissions:\n  emissions: 400.0\n  source: 'greentrain 1: ; report {claim(DOCUMENT)}'\n"
)


def header(text):
    return yaml.safe_load(text.split("---")[1])


@pytest.mark.parametrize("old", OLD.values(), ids=OLD.keys())
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_only_the_entry_changes(old, newline):
    card = CARD.format(old=old).replace("\n", newline)
    after = card_text(card, DOCUMENT)
    assert header(after)["co2_eq_emissions"]["emissions"] == 400.0
    lines = CARD.format(old="").replace("\n", newline).splitlines(keepends=True)
    entry = [line for line in after.splitlines(keepends=True) if line not in lines]
    assert [line for line in after.splitlines(keepends=True) if line in lines] == lines
    assert entry[0] == f"co2_eq_emissions:{newline}"
    assert all(line.startswith("  ") and line.endswith(newline) for line in entry[1:])
    assert card_text(after, DOCUMENT) == after


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("", "---\nENTRY---\n"),
        ("# A model\n", "---\nENTRY---\n# A model\n"),
        ("\ufeff# A model\r\n", "\ufeff---\r\nENTRY---\r\n# A model\r\n"),
        ("---\n---\nText", "---\nENTRY---\nText"),
        ("---\n# only this\n---", "---\n# only this\nENTRY---"),
        ("\n---\na: 1\n--- \nText\n", "\n---\na: 1\nENTRY--- \nText\n"),
        ("---\nno end\n", "---\nENTRY---\n---\nno end\n"),
    ],
)
def test_a_card_with_little_in_it(card, expected):
    newline = "\r\n" if "\r\n" in card else "\n"
    after = card_text(card, DOCUMENT)
    assert after == expected.replace("ENTRY", ENTRY.replace("\n", newline))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{license: mit}", "not a list of keys"),
        ("- a\n- b", "not a list of keys"),
        ("a: [", "is not YAML"),
        ("co2_eq_emissions: 1\nco2_eq_emissions: 2", "twice"),
        ("co2_eq_emissions: &mark 1\nother: *mark", "is not YAML"),
        ("  a: 1\n  co2_eq_emissions: 2", "fit into|change other"),
    ],
)
def test_a_header_that_the_entry_does_not_fit_into_is_refused(text, words):
    with pytest.raises(ConfigurationError, match=words):
        card_text(f"---\n{text}\n---\n", DOCUMENT)


plain = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=8,
)


def in_blocks(mapping):
    return yaml.safe_dump(mapping, allow_unicode=True) if mapping else ""


def in_lines(mapping):
    pairs = [(json.dumps(key), json.dumps(value)) for key, value in mapping.items()]
    return "".join(f"{key}: {value}\n" for key, value in pairs)


@settings(max_examples=50)
@given(
    before=st.dictionaries(plain, values, max_size=3),
    old=st.none() | values.map(lambda value: [value]),
    after=st.dictionaries(plain, values, max_size=3),
    dumped=st.sampled_from([in_blocks, in_lines]),
    body=plain,
)
def test_other_entries_stay_byte_for_byte_whatever_they_are(before, old, after, dumped, body):
    first = dumped(before)
    last = dumped({key: value for key, value in after.items() if key not in before})
    replaced = "" if old is None else dumped({"co2_eq_emissions": old})
    text = card_text(f"---\n{first}{replaced}{last}---\n{body}", DOCUMENT)
    places = f"{first}{ENTRY}{last}" if replaced else f"{first}{last}{ENTRY}"
    assert text == f"---\n{places}---\n{body}"


def test_write_card_keeps_the_files_mode_and_follows_a_link(ledger, tmp_path):
    real, link = tmp_path / "real.md", tmp_path / "README.md"
    real.write_bytes(b"---\nlicense: mit\n---\n\xc3\xa9\r\n")
    real.chmod(0o640)
    link.symlink_to(real)
    write_card(link, known(ledger))
    assert link.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o640
    text = real.read_bytes()
    assert text.startswith(b"---\nlicense: mit\nco2_eq_emissions:\n  emissions: 1.44\n")
    assert text.endswith(b"\n---\n\xc3\xa9\r\n")
    assert sorted(path.name for path in tmp_path.glob("*.md")) == ["README.md", "real.md"]


def test_a_card_keeps_its_figure_where_the_report_has_none(ledger, tmp_path):
    stream(ledger)
    card = tmp_path / "README.md"
    card.write_text("---\nco2_eq_emissions: 3\n---\n")
    with pytest.raises(ConfigurationError, match="stays as it is, because the report has no"):
        write_card(card, build(ledger))
    assert card.read_text() == "---\nco2_eq_emissions: 3\n---\n"


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot read the model card"), (b"\xff\xfe", "is not UTF-8")]
)
def test_a_card_that_cannot_be_read_is_named(ledger, tmp_path, content, words):
    card = tmp_path / "README.md"
    if content is not None:
        card.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        write_card(card, known(ledger))
