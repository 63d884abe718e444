"""Find what is not plain English in docstrings, comments, messages and documentation.

Run it on files or folders: ``python tests/plain_english.py greentrain/ledger docs``. It prints one
line for each finding, and the number of findings.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LONGEST = 30
"""Words that a sentence may have."""

RIDDLE = re.compile(r"(What|Which|How|Whether|Who|Whose|Where|When)\b")
"""Beginnings of a docstring that say neither what a thing is nor what it does."""

# Each word with what to write in its place.
BANNED: dict[str, str] = {
    r"told|tells?|telling": "'is given', 'is logged', 'reports', 'shows'",
    r"drew|drawn|draws?|drawing": "'used', 'uses' (energy), 'plot' (charts), 'sampled' (random)",
    r"who(?:m|so)?ever|nobody|somebody": "'the caller', 'no one', 'users that'",
    r"anew|afresh": "'again'",
    r"what (?:came|comes|became|becomes) of|(?:came|comes) of": "'the outcome of'",
    r"as far as": "'where', 'up to'",
    r"at hand": "'current'",
    r"of one's own|of (?:its|their|his|your|our) own": "'its own ...', 'separate'",
    r"beside|therein|thereof|whereof|hence|thus": "'next to', 'besides', 'so'",
    r"tak(?:e|es|en|ing) up|took up": "'load', 'record', 'add'",
    r"dear(?:er|est|ly)?": "'expensive'",
    r"stands?|stood": "'is listed', 'is', 'represents'",
    r"hears?|heard|knows?": "'receives', 'has', 'records'",
    r"asks|asking": "'needs', 'requests'",
    r"whatever|howsoever": "'any'",
    r"goes on with|go on with|gone on with|goes on from|go on from": "'continues', 'resumes'",
    r"in order before": "'cleanly before'",
    r"lets? go of": "'releases', 'closes'",
    r"gives? back": "'returns'",
    r"holds? against": "'compares with'",
    r"pot|purse|glance|riddle": "'period', 'budget', 'fast evaluation'",
}
_BANNED = [
    (re.compile(rf"(?<![\w.`-])(?:{word})(?![\w`-])", re.I), instead)
    for word, instead in BANNED.items()
]

# Reasoned exceptions: (pattern of the file, the text that may be there).
ALLOWED: tuple[tuple[str, str], ...] = (
    (r".*", r"standing|understand|stand-?in|standard"),
    (r".*", r"know what|known|Known"),
)


class Finding(NamedTuple):
    """A place that is not plain English."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def check(path: Path) -> list[Finding]:
    """Return the findings of a Python or Markdown file, by line."""
    text = path.read_text(encoding="utf-8")
    parts = _python(text) if path.suffix == ".py" else _markdown(text)
    found = []
    for line, kind, part in parts:
        if kind == "docstring" and (match := RIDDLE.match(part.strip())):
            found.append(Finding(str(path), line, f"begins with {match.group()!r}"))
        plain = _plain(part)
        for pattern, instead in _BANNED:
            found += [
                Finding(
                    str(path),
                    line,
                    f"{match.group()!r}: write {instead}: ...{_near(plain, match)}...",
                )
                for match in pattern.finditer(plain)
                if not any(
                    re.fullmatch(where, str(path)) and re.search(allowed, _near(plain, match))
                    for where, allowed in ALLOWED
                    if allowed.startswith("(?x)")
                )
            ]
        for sentence in sentences(part) if kind != "comment" else ():
            n = len(sentence.split())
            if n > LONGEST:
                found.append(Finding(str(path), line, f"{n} words: {sentence[:70]}..."))
    return sorted(found, key=lambda each: each.line)


def sentences(text: str) -> Iterator[str]:
    """Give the sentences of a text: paragraphs, list items and table cells end one, too."""
    for block in re.split(
        r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+\.)\s)|\n(?=\s*\w+(?: \([^)]*\))?: )", text
    ):
        cells = block.split("|") if block.lstrip().startswith("|") else [block]
        for cell in cells:
            plain = " ".join(_plain(cell).split())
            yield from re.split(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_`A-Z0-9])", plain)


def _plain(text: str) -> str:
    """Return a text whose code and links are one word each."""
    text = re.sub(r"^\s*(>>>|\.\.\. ).*$", "", text, flags=re.M)
    text = re.sub(r"(?::\w+)+:`[^`]*`|``[^`]*``|`[^`]*`", "CODE", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\{[^{}]*\}", "VALUE", text)


def _near(text: str, match: re.Match[str]) -> str:
    return " ".join(text[max(0, match.start() - 30) : match.end() + 30].split())


def _python(source: str) -> Iterator[tuple[int, str, str]]:
    """Give line, kind and text of docstrings, of comments and of messages."""
    tree = ast.parse(source)
    documented = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for place, child in enumerate(body):
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                documented.add(id(child.value))
                first = place == 0 and not isinstance(node, (ast.If, ast.For, ast.With))
                text = re.sub(
                    r"(?m)^\s*Example:?\n(?:.*\n?)*?(?=\n\s*\n\s*\w|\Z)",
                    lambda match: re.sub(r"(?m)^(?!\s*>>>|\s*\.\.\. ).*$", "", match.group()),
                    child.value.value,
                )
                yield child.lineno, "docstring" if first else "attribute", text
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            text = "".join(map(str, parts))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documented | inside
        ):
            text = node.value
        else:
            continue
        if text.count(" ") >= 2:  # a message, not a name
            yield node.lineno, "message", text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not re.match(r"#\s*(type:|noqa|!)", token.string):
            yield token.start[0], "comment", token.string.lstrip("# ")


def _markdown(text: str) -> Iterator[tuple[int, str, str]]:
    """Give line and text of each paragraph outside code blocks."""
    text = re.sub(r"(?ms)^\s*(```|~~~).*?^\s*\1\s*$", lambda m: "\n" * m.group().count("\n"), text)
    text = re.sub(r"(?s)<!--.*?-->", lambda m: "\n" * m.group().count("\n"), text)
    line = 1
    for block in re.split(r"(\n\s*\n)", text):
        if block.strip():
            yield line, "prose", re.sub(r"(?m)^#+ .*$|^\{.*$|^:::.*$|^:\w+:.*$", "", block)
        line += block.count("\n")


def files(arguments: list[str]) -> Iterator[Path]:
    """Give the Python and Markdown files of files and folders."""
    for argument in map(Path, arguments):
        if argument.is_file():
            yield argument
        else:
            yield from sorted(
                path
                for path in argument.rglob("*")
                if path.suffix in (".py", ".md") and "_build" not in path.parts
            )


if __name__ == "__main__":
    findings = [each for path in files(sys.argv[1:]) for each in check(path)]
    for each in findings:
        sys.stdout.write(f"{each}\n")
    sys.stdout.write(f"{len(findings)} findings\n")
