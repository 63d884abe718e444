"""Names that try to do something in an output, and marks that show that they did."""

from __future__ import annotations

import unicodedata

FORGED = "FAILED: row 0 was altered"
"""A line that a name tries to add to an output."""

STORABLE: tuple[str, ...] = (
    # Terminals
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil.example\x07click\x1b]8;;\x07",
    "\x1b[31mred\x1b[0m",
    "\x9b2J",
    "\x90qsixel\x9c",
    "back\b\b\b\bspace",
    "bell\x07",
    "\x7fdelete",
    "form\x0cfeed",
    "vertical\x0btab",
    "carriage\rreturn",
    # Lines
    f"a\n{FORGED}",
    f"a\r\n{FORGED}",
    f"a\x85{FORGED}",
    f"a\u2028{FORGED}",
    f"a\u2029{FORGED}",
    f"\n\n{FORGED}\n",
    "WARNING:greentrain:forged\nINFO",
    # Order and invisibility
    "\u202egnp.exe",
    "\u2066a\u2069",
    "\u200f\u061c",
    "zero\u200bwidth",
    "soft\u00adhyphen",
    "\ufeffmark",
    "tag\U000e0041\U000e0042",
    "\ufffe",
    "\uffff",
    "\ufdd0",
    "\U0001fffe",
    "\U0010ffff",
    # Spreadsheets
    "=HYPERLINK(1)",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1+1",
    "_x001b_",
    # HTML, XML and templates
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</style><script>alert(1)</script>",
    "]]>&amp;&lt;",
    "{{ 7 * 7 }}",
    # Markdown
    "[a](http://evil.example)",
    "![b](http://evil.example/c.png)",
    "http://evil.example/path",
    "www.evil.example",
    "<http://evil.example>",
    "a | b | c",
    "# heading",
    "`code` *f* _g_ ~~h~~",
    # Terminal markup, formats, shells, SQL, paths
    "[red]red[/red]",
    "%s %d %(name)s",
    "{0} {name!r}",
    "$(touch x) `touch y` ; rm -rf z",
    "'; DROP TABLE runs; --",
    "../../etc/passwd",
    "C:\\x|y?*",
    "x\n---\nco2_eq_emissions: 0 # &a *a",
    # Length and scripts
    "x" * 480,
    "日本語 العربية 👩‍🔬 é",
)
"""Sixty names that every database can store."""

UNSTORABLE: tuple[object, ...] = (
    "nul\0",
    "\ud800",
    "caf\udce9.npz",
    "x\udfff",
    "x" * 501,
    "",
    2026,
    None,
    b"bytes",
    ["list"],
    3.5,
    "https://me:secret@host/x",
)
"""Names that are refused."""


def assert_inert(text: str) -> None:
    """Assert that a text for a terminal or a log holds no control, and no line of a name."""
    hidden = {
        char
        for char in text.replace("\n", "")
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
        or char in "\u202e\u2066\u200f\u200b\u00ad\ufeff\ufffe\uffff\ufdd0"
    }
    assert hidden == set()
    assert not any(line.strip().startswith(FORGED) for line in text.splitlines())
