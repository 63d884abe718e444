"""Find text that is not plain English in code, templates and documentation.

Run it on files or folders: ``python tests/plain_english.py greentrain/ledger docs``. It prints a
line for each finding, and exits with 1 if there are any.

The rules: no archaic words, no software that knows or tells, the field's verbs, at most 30 words a
sentence, and docstrings that begin with a verb or a noun.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Collection, Iterable, Iterator
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
    r"whatever|howsoever": "'any', 'each'",
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
    (re.compile(rf"(?<![\w.-])(?:{words})(?![\w-])".replace(" ", r"\s+"), re.I), instead)
    for words, instead in BANNED.items()
]

Kind = Literal["docstring", "comment", "message", "prose"]
_BREAK = "\0"  # ends a sentence in masked text
_CODE = re.compile(
    r"(?::[\w:+.-]+:|\{[\w:+.-]+\})?(?:``(?:[^`\n]|\n(?!\s*\n)|`(?!`))+``|`(?:[^`\n]|\n(?!\s*\n))+`)"
)
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()\s]*\)|\[[^\[\]]*\])")
_VALUE = re.compile(r"\{[^{}\n]*\}")
_SENTENCE = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bcf)(?<!\bvs)(?<!\bal)(?<!\bEq)(?<!\bSec)(?<!\bFig)(?<!\bNo)"
    r"[.!?][\"')*_\]]*\s+(?=[\"'(*_\[]*[A-Z0-9])"
)
_ITEM = re.compile(r"\s*(?:[-*+•]|\d+[.)])\s")
_SECTION = re.compile(
    r"\s*(Args|Attributes|Raises|Returns|Yields|Examples?|Notes?|References):\s*$"
)
_ARGUMENT = re.compile(r"\s+[*\w.]+(?: \([^()]*\))?:\s")
_KEY = re.compile(r"\s*[\w.]+:(\s|$)")
_SUPPRESSION = re.compile(r"\s*(?:type: ignore(?:\[.*?\])?|noqa(?:: [\w, ]+)?|pragma: no \w+|!.*)")
_PROSE_BLOCK = re.compile(
    r"\{(note|tip|hint|important|warning|caution|admonition|seealso|figure)\}"
)
_FENCE = re.compile(r"\s*(`{3,}|~{3,}|:{3,})([^`]*)$")
_NO_PROSE = re.compile(r"\s*:[\w-]+:(?!`)|\(?[\w-]+\)=$|\[[^\]]+\]: \S+$|\s*\|[-:| ]+\|$")
_VISIBLE = re.compile(r"""\b(?:aria-label|title|alt|placeholder)="([^"]*)\"""")
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
        excuse: Index of the exception that allows it, or ``None``.
    """

    path: str
    line: int
    message: str
    excuse: int | None = None

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


def check(
    path: Path, excuses: Collection[Excuse] = (), *, root: Path | None = None
) -> list[Finding]:
    """Return the findings of a file in the order of its lines, with the excused ones marked.

    Args:
        path: A Python or Markdown file, a Jinja template of HTML, or a YAML file.
        excuses: Exceptions. Their patterns match paths from ``root``.
        root: Folder from which paths are given.
    """
    name = path.relative_to(root).as_posix() if root else str(path)
    applicable = [
        (number, excuse.phrase)
        for number, excuse in enumerate(excuses)
        if fnmatch(name, excuse.files)
    ]
    found = []
    for place in places(path.name, path.read_text(encoding="utf-8")):
        excused = [
            (number, match.span())
            for number, phrase in applicable
            for match in re.finditer(phrase, place.text)
        ]
        for start, end, message in _broken_rules(place):
            number = next((n for n, (a, b) in excused if a <= start and end <= b), None)
            line = place.line + (0 if place.one_line else place.text.count("\n", 0, start))
            found.append(Finding(name, line, message, number))
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
            if each.suffix in _READERS and "_build" not in each.parts and each.is_file()
        ]
        if not checked:
            raise FileNotFoundError(f"{path} has no file that ends with {', '.join(_READERS)}")
        found += checked
    return found


def _broken_rules(place: Place) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and message of each broken rule."""
    if place.kind == "docstring" and (match := RIDDLE.match(place.text)):
        yield *match.span(1), f"begins with {match[1]!r}: write a verb or a noun"
    for pattern, instead in _BANNED:
        for match in pattern.finditer(place.masked):
            near = place.text[max(0, match.start() - 30) : match.end() + 30]
            phrase = " ".join(match.group().split())
            yield *match.span(), f"{phrase!r}: write {instead}: ...{' '.join(near.split())}..."
    for start, end in _sentences(place.masked, place.kind):
        # The words of a link are joined by no-break spaces.
        words = re.findall(r"[^ \t\n]*\w[^ \t\n]*", place.masked[start:end])
        if len(words) > MAX_WORDS:
            shown = " ".join(place.text[start:end].split())
            yield start, end, f"{len(words)} words in a sentence: {shown[:70]}..."


def _sentences(masked: str, kind: Kind) -> Iterator[tuple[int, int]]:
    """Yield start and end of each sentence of a masked text.

    Blank lines, list items, headings, table cells and the items of ``Args:`` end a sentence, too.
    """
    edges = [0]
    position, in_section = 0, False
    for line in io.StringIO(masked):
        in_section |= kind == "docstring" and bool(_SECTION.match(line))
        row = line.lstrip().startswith("|")
        if (
            row
            or not line.strip()
            or line.startswith("#")
            or _ITEM.match(line)
            or _SECTION.match(line)
            or (in_section and _ARGUMENT.match(line))
            or (kind == "comment" and _KEY.match(line))
        ):
            edges.append(position)
        if row:
            edges += [position + match.start() for match in re.finditer(r"(?<!\\)\|", line)]
        position += len(line)
        if row or line.startswith("#"):
            edges.append(position)
    edges += [match.start() for match in re.finditer(_BREAK, masked)]
    edges += [match.end() for match in _SENTENCE.finditer(masked)]
    for start, end in pairwise(sorted({*edges, len(masked)})):
        if sentence := re.search(rf"[^\s{_BREAK}](?:.*\S)?", masked[start:end], flags=re.S):
            yield start + sentence.start(), start + sentence.end()


def places(name: str, source: str) -> Iterator[Place]:
    """Yield the texts of a file that people read.

    Args:
        name: Name of the file, whose suffix says how to read it. Only the newest section of
            ``CHANGELOG.md`` counts, because a release is not rewritten.
        source: Content of the file.
    """
    if name == "CHANGELOG.md":
        source = "\n## ".join(source.split("\n## ")[:2])
    yield from _READERS[Path(name).suffix](source)


def _python(source: str) -> Iterator[Place]:
    """Yield docstrings, messages and comments."""
    nodes = list(ast.walk(ast.parse(source)))
    documentation = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in formatted for part in node.values}
    texts = [(node, "".join(map(_part, node.values))) for node in formatted] + [
        (node, node.value)
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts
    ]
    for node, text in texts:
        if id(node) in documentation:
            yield Place(node.lineno, "docstring", text, _without_code(_without_examples(text)))
        elif " " in text.strip():  # not a name
            masked = _VALUE.sub(_code, _without_code(text))
            yield Place(node.lineno, "message", text, masked, one_line=True)
    comments: list[tuple[int, int, str]] = []  # line, column, text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            column = token.start[1] if alone else -1
            comments.append((token.start[0], column, token.string.lstrip("#")))
    yield from _comments(comments)


def _part(part: ast.expr) -> str:
    """Return a part of an f-string, with X for a value."""
    return str(part.value) if isinstance(part, ast.Constant) else "X"


def _comments(comments: Iterable[tuple[int, int, str]]) -> Iterator[Place]:
    """Yield comments, given as line, column and text, joined where they are one below the other."""
    block: list[tuple[int, int, str]] = []
    for comment in [*comments, (0, 0, "")]:
        line, column, _ = comment
        if block and not (column >= 0 and (line - 1, column) == block[-1][:2]):
            text = "\n".join(_SUPPRESSION.sub("", text, count=1) for _, _, text in block)
            yield Place(block[0][0], "comment", text, _without_code(text))
            block = []
        block.append(comment)


def _yaml(source: str) -> Iterator[Place]:
    """Yield comments, with the keys that are commented out."""
    lines = enumerate(source.splitlines(), start=1)
    found = [(line, re.search(r"(?:^|\s)#(.*)", text)) for line, text in lines]
    yield from _comments((line, match.start(), match[1]) for line, match in found if match)


def _markdown(source: str) -> Iterator[Place]:
    """Yield the text outside code blocks, directives' options and HTML."""
    masked = re.sub(r"\A---\n.*?\n---\n", _blank, source, flags=re.S)
    masked = re.sub(r"<!--.*?-->", _blank, masked, flags=re.S)
    lines = []
    fences: list[tuple[str, bool]] = []  # marks of the open blocks, and whether they are code
    for line in io.StringIO(masked):
        mark = _FENCE.match(line)
        in_code = bool(fences) and fences[-1][1]
        if mark and not mark[2].strip() and fences and mark[1].startswith(fences[-1][0]):
            fences.pop()
        elif mark and not in_code:
            fences.append((mark[1], not _PROSE_BLOCK.match(mark[2])))
        elif not in_code and not _NO_PROSE.match(line):
            lines.append(line)
            continue
        lines.append(_blank(line))
    masked = _without_code("".join(lines))
    yield Place(1, "prose", source, re.sub(r"</?[a-z][^<>]*>", _blank, masked))


def _template(source: str) -> Iterator[Place]:
    """Yield the visible text of HTML, of its attributes, and of strings in Jinja's expressions."""
    masked = re.sub(r"\{#.*?#\}", _blank, source, flags=re.S)
    for match in re.finditer(r"\{[{%].*?[%}]\}", masked, flags=re.S):
        for quoted in re.finditer(r"""'([^'\n]*)'|"([^"\n]*)\"""", match.group()):
            text = quoted[1] or quoted[2] or ""
            if " " in text.strip():
                line = source.count("\n", 0, match.start() + quoted.start()) + 1
                yield Place(line, "message", text, text)
    masked = re.sub(r"\{\{.*?\}\}", _code, masked, flags=re.S)
    masked = re.sub(r"\{%-?\s*(?:else|elif)\b.*?%\}", _ending, masked, flags=re.S)
    masked = re.sub(r"\{%.*?%\}", _blank, masked, flags=re.S)
    for match in _VISIBLE.finditer(masked):
        line = source.count("\n", 0, match.start()) + 1
        yield Place(line, "message", source[slice(*match.span(1))], match[1])
    masked = re.sub(r"<(style|script)\b.*?</\1>|<!--.*?-->", _ending, masked, flags=re.S)
    masked = re.sub(r"<code\b[^<>]*>.*?</code>", _code, masked, flags=re.S)
    masked = re.sub(rf"</?(?:{_INLINE})(?:\s[^<>]*)?>", _blank, masked)
    masked = re.sub(r"<[^<>]*>", _ending, masked)
    yield Place(1, "prose", source, re.sub(r"&\w+;", _blank, masked))


def _without_examples(docstring: str) -> str:
    """Mask doctests with their output, and literal blocks."""
    masked = re.sub(r"(?m)^[ \t]*>>> .*(?:\n[ \t]*\S.*)*", _blank, docstring)
    return re.sub(
        r"::[ \t]*\n\s*\n(?P<indent>[ \t]+)\S.*(?:\n(?:[ \t]*\n)*(?P=indent).*)*", _ending, masked
    )


def _without_code(text: str) -> str:
    """Mask code and roles as one word each, and join the words of a link."""
    masked = _CODE.sub(_code, text)
    return _LINK.sub(_joined, masked)


def _joined(link: re.Match[str]) -> str:
    words = " " * (link.start(1) - link.start()) + link[1]
    return re.sub(r"\s", "\xa0", words.ljust(len(link.group())))


def _code(match: re.Match[str]) -> str:
    return "X" * len(match.group())


def _ending(match: re.Match[str]) -> str:
    return _BREAK + _blank(match)[1:]


def _blank(text: re.Match[str] | str) -> str:
    """Return spaces of the same length, with the same line ends."""
    return re.sub(r"[^\n]", " ", text if isinstance(text, str) else text.group())


_READERS = {".py": _python, ".md": _markdown, ".j2": _template, ".yaml": _yaml}


def main(arguments: Collection[str]) -> int:
    """Print the findings of files and folders, and return the exit status."""
    findings = [finding for path in files(map(Path, arguments)) for finding in check(path)]
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    sys.stdout.write(f"{len(findings)} findings\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
