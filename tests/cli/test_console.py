"""Lines of text on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from greentrain.cli.console import print_line


def test_a_line_above_a_status_stands_alone() -> None:
    """The status is a line that is drawn again and again; a line must not be appended to it."""
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=80)
    with terminal.status("experience 0") as status:
        status.update("experience 1")
        print_line(" 0  [b]first\x1b[2J", terminal)
    before, after = written.getvalue().split(" 0  [b]first")
    assert "experience" not in before.rpartition("\x1b[2K")[2]  # the line was erased
    assert after.startswith("\\x1b[2J\n")
