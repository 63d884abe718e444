"""Find text that is not plain English in code, templates and documentation.

Run it on files or folders: ``python tests/plain_english.py greentrain/ledger docs``. Each finding is
printed on a line with its file and line number. The exit status is 1 if there are findings.

The rules are those of "Plain English" in the project's style guide: no archaic words, no software that
knows or tells, the field's verbs, short sentences, and docstrings that begin with a verb or a noun.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Collection, Iterable, Iterator
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

MAX_WORDS = 30
"""Most words of a sentence."""

RIDDLE = re.compile(r"\s*(What|Which|How|Whether|Who|Whose|Where|When)\b")
"""Beginnings of a docstring that say neither what a thing is nor what it does."""

# Regular expressions of words and phrases, each with the words to use instead.
BANNED: dict[str, str] = {
    # Software does not know, tell, hear or ask.
    r"told|tells?|telling": "'is given', 'is logged', 'reports', 'shows'",
    r"knows": "'has', 'records', 'contains'",
    r"hears?|heard|hearing": "'receives', 'reads'",
    r"asks|asking": "'needs', 'requests', 'reads'",
    # The field's verbs.
    r"drew|drawn|draws?|drawing": "'use' (energy), 'plot' (a chart), 'sample' (at random)",
    r"tak(?:e|es|en|ing) up|took up": "'load', 'add', 'start'",
    r"goes on (?:with|from)|go(?:ing|ne)? on (?:with|from)|went on (?:with|from)": "'continue'",
    r"lets? go of|letting go of": "'release', 'close'",
    r"gives? back|gave back": "'return', 'release'",
    r"holds? against|held against": "'compare with'",
    # Archaic and poetic words.
    r"stands?|stood": "'is listed', 'is', 'represents'",
    r"who(?:m|so)?ever": "'the caller', 'anyone who', 'users who'",
    r"nobody": "'no one', 'nothing'",
    r"somebody": "'someone', 'another user'",
    r"whatever|howsoever|whichever": "'any', 'each'",
    r"anew|afresh": "'again', 'new'",
    r"what (?:came|comes|became|becomes) of|(?:came|comes?|coming) of": "'the outcome of'",
    r"what is new of": "'new', 'the news of'",
    r"as far as": "'where', 'up to', 'if'",
    r"at hand": "'current', 'available'",
    r"of one's own|of (?:its|their|his|her|your|our|my) own": "'its own ...', 'separate'",
    r"beside": "'next to', 'with', 'besides'",
    r"therein|thereof|whereof|hence|thus": "'so', 'in it', 'of it'",
    r"(?:clos|end|finish|stopp?)(?:e|es|ed|ing|s)? in order(?! to)": "'cleanly'",
    r"dear(?:er|est|ly)?": "'expensive'",
    # Words of greentrain's own that its glossary has replaced.
    r"pots?": "'period'",
    r"purses?": "'budget'",
    r"tall(?:y|ies)": "'totals'",
    r"glances?": "'probe', 'fast evaluation'",
    r"gauges?": "'meter', 'estimate'",
    r"riddles?": "'question'",
}
_BANNED = [
    (re.compile(rf"(?<![\w.-])(?:{words})(?![\w-])", re.I), instead)
    for words, instead in (
        (phrase.replace(" ", r"\s+"), instead) for phrase, instead in BANNED.items()
    )
]

Kind = Literal["docstring", "comment", "message", "prose"]
SUFFIXES = (".py", ".md", ".j2", ".yaml")

_BREAK = "\x1e"  # ends a sentence in masked text
_CODE = re.compile(
    r"(?::[\w:+.-]+:|\{[\w:+.-]+\})?(?:``(?:[^`\n]|\n(?!\s*\n)|`(?!`))+``|`(?:[^`\n]|\n(?!\s*\n))+`)"
)
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()\s]*\)|\[[^\[\]]*\])")
_ADDRESS = re.compile(r"<?https?://[^\s<>)]+>?")
_VALUE = re.compile(r"\{[^{}\n]*\}")
_SENTENCE = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bcf)(?<!\bvs)(?<!\bal)(?<!\bEq)(?<!\bSec)(?<!\bFig)(?<!\bNo)"
    r"[.!?][\"')*_\]]*\s+(?=[\"'(*_\[]*[A-Z0-9])"
)
_ITEM = re.compile(r"\s*(?:[-*+•]|\d+[.)])\s")
_SECTION = re.compile(r"\s*(Args|Attributes|Raises|Returns|Yields|Examples?|Notes?|References):\s*$")
_ARGUMENT = re.compile(r"\s+[*\w.]+(?: \([^()]*\))?:\s")
_KEY = re.compile(r"\s*[\w.]+:(\s|$)")
_SUPPRESSION = re.compile(r"\s*(?:type: ignore(?:\[[^\]]*\])?|noqa(?:: [\w, ]+)?|pragma: \w+ \w+|!.*)")
_TITLES = ("note", "tip", "hint", "important", "warning", "caution", "admonition", "seealso")
_PROSE_BLOCKS = re.compile(rf"\{{(?:{'|'.join(_TITLES)}|figure|image|tab-item|dropdown|glossary)\}}")
_VISIBLE = re.compile(r"""\b(?:aria-label|title|alt|placeholder|content)="([^"]*)\"""")
_INLINE = r"a|abbr|b|bdi|em|i|kbd|small|span|strong|sub|sup"


class Place(NamedTuple):
    """A text that people read.

    Attributes:
        line: Line of its first character in the file.
        kind: Kind of the text.
        text: The text as written.
        masked: The same text with spaces in place of markup, and X in place of code. It is as long.
        one_line: True if lines of the text are not lines of the file.
    """

    line: int
    kind: Kind
    text: str
    masked: str
    one_line: bool = False


class Finding(NamedTuple):
    """A piece of text that is not plain English.

    Attributes:
        path: The file.
        line: Line in the file.
        message: The rule that is broken, with the words that break it.
        excused_by: Index of the exception that allows it, or ``None``.
    """

    path: str
    line: int
    message: str
    excused_by: int | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


class Excuse(NamedTuple):
    """A reasoned exception.

    Attributes:
        files: Pattern of the paths, as in ``fnmatch``.
        phrase: Regular expression. Findings inside its matches are allowed.
        reason: The reason why the text is right as it is.
    """

    files: str
    phrase: str
    reason: str


def check(path: Path, excuses: Collection[Excuse] = (), *, root: Path | None = None) -> list[Finding]:
    """Return the findings of a file in the order of its lines, with the excused ones marked.

    Args:
        path: A Python or Markdown file, a Jinja template of HTML, or a YAML file.
        excuses: Exceptions. Their patterns match paths from ``root``.
        root: Folder from which paths are given.
    """
    name = path.relative_to(root).as_posix() if root else str(path)
    applicable = [
        (index, re.compile(excuse.phrase))
        for index, excuse in enumerate(excuses)
        if fnmatch(name, excuse.files)
    ]
    found = []
    for place in places(path.name, path.read_text(encoding="utf-8")):
        for start, end, message in _broken_rules(place):
            excused_by = next(
                (
                    index
                    for index, phrase in applicable
                    if any(m.start() <= start and end <= m.end() for m in phrase.finditer(place.text))
                ),
                None,
            )
            line = place.line + (0 if place.one_line else place.text.count("\n", 0, start))
            found.append(Finding(name, line, message, excused_by))
    return sorted(found, key=lambda finding: finding.line)


def files(paths: Iterable[Path]) -> list[Path]:
    """Return the files to check in files and folders.

    Raises:
        FileNotFoundError: If a path does not exist, or has no file to check.
    """
    found = []
    for path in paths:
        inside = [path] if path.is_file() else sorted(path.rglob("*"))
        checked = [
            each
            for each in inside
            if each.suffix in SUFFIXES and "_build" not in each.parts and each.is_file()
        ]
        if not checked:
            raise FileNotFoundError(f"{path} has no file that ends with one of {SUFFIXES}")
        found += checked
    return found


def _broken_rules(place: Place) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and message of each broken rule."""
    if place.kind == "docstring" and (match := RIDDLE.match(place.text)):
        yield *match.span(1), f"begins with {match[1]!r}: write a verb or a noun"
    for pattern, instead in _BANNED:
        for match in pattern.finditer(place.masked):
            near = place.text[max(0, match.start() - 30) : match.end() + 30]
            words = " ".join(match.group().split())
            yield *match.span(), f"{words!r}: write {instead}: ...{' '.join(near.split())}..."
    # A link is one word of a sentence, but the words in it are checked above.
    counted = _LINK.sub(_code, place.text) if place.kind == "prose" else place.text
    counted = "".join(a if a == "X" and b != " " else b for a, b in zip(counted, place.masked, strict=True))
    for start, end in _sentences(counted, place.kind):
        words = sum(any(map(str.isalnum, word)) for word in counted[start:end].split())
        if words > MAX_WORDS:
            shown = " ".join(place.text[start:end].split())
            yield start, end, f"{words} words in a sentence: {shown[:70]}..."
