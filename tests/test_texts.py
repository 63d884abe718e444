"""Texts that are safe for each output."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import greentrain
from greentrain.callbacks.messages import warn
from greentrain.texts import markdown, one_line, storable, visible
from tests.hostile import STORABLE, assert_inert

ALLOWED = {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}


@pytest.mark.parametrize("name", STORABLE, ids=range(60))
def test_a_name_is_one_inert_line(name: str) -> None:
    line = one_line(name)
    assert len(line.splitlines()) == 1
    assert_inert(line)
    assert line.replace("\u200d", "").isprintable()
    assert storable(name) == name


@pytest.mark.parametrize("name", STORABLE, ids=range(60))
def test_markdown_has_no_links_and_no_markup(name: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"a {markdown(name)} b")
    inside = [inner.type for token in tokens for inner in token.children or []]
    assert {*inside, *(token.type for token in tokens)} <= ALLOWED
    # GitHub and MLflow make links of these as well.
    assert not any(start in markdown(name) for start in ("http:", "www.", "ftp:", "mailto:"))


def test_visible_texts_keep_scripts_and_chosen_characters() -> None:
    assert visible("日本語 العربية 👩‍🔬 é") == "日本語 العربية 👩‍🔬 é"
    assert visible("a\nb\tc", keep="\n") == "a\nb\\tc"


@pytest.mark.parametrize(
    "text",
    ["a" * 10**5, "a://" * 2500, "password" * 10**4, "token=' " * 10**4, "x:" * 10**5, "@" * 10**5],
    ids=range(6),
)
def test_long_texts_are_cut_off(text: str) -> None:
    assert len(one_line(text, 10)) == 11


def test_a_warning_of_a_callback_is_one_inert_line() -> None:
    with pytest.warns(UserWarning) as warned:
        warn("the budget 'a\x1b[2J\nb' at postgresql://me:secret@host/db is used up")
    (warning,) = warned
    expected = r"the budget 'a\x1b[2J\nb' at postgresql://host/db is used up"
    assert str(warning.message) == expected
    assert warning.filename == __file__


def test_no_module_warns_past_it() -> None:
    sources = Path(greentrain.__file__).parent
    files = [*sources.rglob("*.py"), *(sources / "callbacks").glob("*.py")]
    calling = {path.name for path in files if "rank_zero_warn" in path.read_text(encoding="utf-8")}
    assert calling == {"messages.py"}
