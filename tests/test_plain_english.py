"""Text that people read is plain English, and the checker of that finds what it should."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plain_english import Excuse, check, files, main

ROOT = Path(__file__).parents[1]

# Folders and files of the project, each with the least number of files that it must have.
CHECKED = {
    "greentrain": 200,
    "callbacks": 10,
    "examples": 30,
    "docs": 30,
    "README.md": 1,
    "CONTRIBUTING.md": 1,
    "CHANGELOG.md": 1,
}

EXCUSES = (
    Excuse(
        "docs/benchmarks.md",
        r"(?m)^\| `.*\|$",
        "Names and notes recorded with measured values. The text of new ones is in examples/.",
    ),
)


@pytest.fixture(scope="module")
def findings() -> list[tuple[str, int | None]]:
    """Findings in the whole project, each with its exception."""
    found = [
        finding
        for path in files(ROOT / name for name in CHECKED)
        for finding in check(path, EXCUSES, root=ROOT)
    ]
    return [(str(finding), finding.excuse) for finding in found]


def test_the_project_is_in_plain_english(findings: list[tuple[str, int | None]]) -> None:
    wrong = [text for text, excuse in findings if excuse is None]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("excuse", EXCUSES, ids=lambda excuse: excuse.files)
def test_an_exception_has_a_reason_and_is_used(
    excuse: Excuse, findings: list[tuple[str, int | None]]
) -> None:
    assert excuse.reason
    assert EXCUSES.index(excuse) in {number for _, number in findings}


@pytest.mark.parametrize("name", CHECKED)
def test_each_folder_has_files(name: str) -> None:
    assert len(files([ROOT / name])) >= CHECKED[name]


def test_files_of_each_kind_are_checked() -> None:
    assert {
        "greentrain/budget.py",
        "greentrain/report/templates/summary.html.j2",
        "greentrain/configuration/stream.yaml",
        "callbacks/energy_monitor.py",
        "examples/benchmarks/_results.py",
        "docs/benchmarks.md",
    } <= {path.relative_to(ROOT).as_posix() for path in files(ROOT / name for name in CHECKED)}


def found(tmp_path: Path, name: str, text: str, *excuses: Excuse) -> list[tuple[int, str]]:
    """Return line and first words of the findings in a file."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return [
        (finding.line, finding.message.partition(":")[0])
        for finding in check(path, excuses, root=tmp_path)
        if finding.excuse is None
    ]


WORDS = [
    *("told", "tell", "tells", "telling", "knows", "hears", "heard", "asks", "asking"),
    *("drew", "drawn", "draw", "draws", "drawing", "takes up", "took up", "taken up"),
    *("goes on with", "gone on from", "lets go of", "gives back", "holds against"),
    *("stand", "stands", "stood", "whoever", "whomever", "nobody", "somebody", "whatever"),
    *("anew", "afresh", "what came of", "comes of", "what is new of", "as far as", "at hand"),
    *("of its own", "of one's own", "of your own", "beside", "hence", "thus", "therein"),
    *("closed in order", "ends in order", "dear", "dearest"),
    *("pot", "purse", "tally", "glance", "gauge", "riddle"),
]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_found(tmp_path: Path, word: str) -> None:
    assert (1, repr(word)) in found(tmp_path, "a.md", f"Text {word} text.\n")
    assert (1, repr(word.upper())) in found(tmp_path, "a.md", f"Text {word.upper()} text.\n")


@pytest.mark.parametrize(
    "text",
    [
        "understand standard standing stand-in stand-alone outstanding withstand",
        "known knowledge unknown acknowledge; you know it",
        "besides, considered, endeared, spot, spots, potential, retell, teller",
        "task, basks, ask for it, withdrawn, redrawn, shear, thusly",
        "in order to close, in the order of arrival, classes in order",
        "`told` and ``drawn`` and {py:func}`tell` and `two words told`",
        "trainer.tell(x), self.draws, drawn_j, hand-drawn",
        "[text](https://example.org/nobody/told)",
        "<!-- told -->",
        "<span title='drawn'>text</span>",
        "```python\ntold = drawn  # nobody\n```",
        "~~~\ntold\n```\ntold\n~~~",
        "```{code-block} python\n:caption: told\ntold\n```",
        "(told)=\n## Heading",
        "---\ntitle: told\n---\nText.",
    ],
)
def test_what_is_not_a_word_is_not_found(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, "a.md", text + "\n") == []


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.py", '"""Text.\n\nMore that is told.\n"""\n', 3),
        ("a.py", 'class A:\n    """Text told."""\n', 2),
        ("a.py", 'def a():\n    """Text told."""\n', 2),
        ("a.py", 'class A:\n    def a(self):\n        """Text told."""\n', 3),
        ("a.py", 'async def a():\n    """Text told."""\n', 2),
        ("a.py", 'A = 1\n"""Number told."""\n', 2),
        ("a.py", 'class A:\n    a: int = 1\n    """Number told."""\n', 3),
        ("a.py", 'class A:\n    """Text.\n\n    Args:\n        a: Text told.\n    """\n', 5),
        ("a.py", "a = 1\n# Number told.\n", 2),
        ("a.py", "a = 1  # number told\n", 1),
        ("a.py", "a = 1  # noqa: E501 - told\n", 1),
        ("a.py", "# One line that is\n# told.\n", 2),
        ("a.py", '\nraise ValueError("number told")\n', 2),
        ("a.py", '\nraise ValueError(f"{a} told")\n', 2),
        ("a.py", "\nraise ValueError(f\"{a('number told')}\")\n", 2),
        ("a.py", 'a = {"number told": 1}\n', 1),
        ("a.md", "# Told\n", 1),
        ("a.md", "Text.\n\n- Item\n- Item told\n", 4),
        ("a.md", "| a | b |\n|---|---|\n| text | told |\n", 3),
        ("a.md", "```{note}\nText told.\n```\n", 2),
        ("a.md", "```{note}\nText.\n```\nText told.\n", 4),
        ("a.md", ":::{warning} Text\nText told.\n:::\n", 2),
        ("a.md", "```\ncode\n```\nText told.\n", 4),
        ("a.md", "[text told](https://example.org)\n", 1),
        ("a.md", "![chart that is told](a.png)\n", 1),
        ("a.yaml", "a: 1\n# Number told.\n", 2),
        ("a.yaml", "a: 1  # number told\n", 1),
        ("a.html.j2", "<p>\nText <b>told</b></p>\n", 2),
        ("a.html.j2", '<p\n aria-label="text told">Text</p>\n', 2),
        ("a.html.j2", '<p>{{\n a if b else "text told" }}</p>\n', 2),
        ("a.html.j2", "{% if a %}\n{% set b = 'text told' %}{% endif %}\n", 2),
    ],
)
def test_each_kind_of_text_is_checked(tmp_path: Path, name: str, text: str, line: int) -> None:
    assert [place for place, _ in found(tmp_path, name, text)] == [line]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", 'told = drawn["told"]\n'),
        ("a.py", 'def told():\n    """Text.\n\n    >>> told()\n    \'told\'\n    """\n'),
        ("a.py", '"""Text::\n\n    told --> drawn\n\n    told\n"""\n'),
        ("a.py", '"""Text of :meth:`tell` and ``drawn``."""\n'),
        ("a.py", 'a = "the {told} number"\n'),
        ("a.py", 'a = f"the {told} number"\n'),
        ("a.py", "a = 1  # noqa: told\n"),
        ("a.yaml", "told: drawn\n"),
        ("a.html.j2", "{# told #}<p class='told'>{{ told }} {% if told %}{% endif %}</p>"),
        ("a.html.j2", "<style>.told {}</style><script>told()</script><code>told</code>"),
    ],
)
def test_code_is_not_checked(tmp_path: Path, name: str, text: str) -> None:
    assert found(tmp_path, name, text) == []


@pytest.mark.parametrize(
    "word", ["What", "Which", "How", "Whether", "Who", "Whose", "Where", "When"]
)
def test_the_beginning_of_a_docstring_is_checked(tmp_path: Path, word: str) -> None:
    sources = [
        (1, '"""{} it is."""\n'),
        (2, 'class A:\n    """{} it is."""\n'),
        (2, 'def a():\n    """{} it is."""\n'),
        (3, 'class A:\n    def a(self):\n        """{} it is."""\n'),
        (3, 'class A:\n    a = 1\n    """{} it is."""\n'),
        (2, 'A = 1\n"""{} it is."""\n'),
    ]
    for line, source in sources:
        expected = [(line, f"begins with {word!r}")]
        assert found(tmp_path, "a.py", source.format(word)) == expected
        assert found(tmp_path, "a.py", source.format(f"{word}ness")) == []


def test_the_beginning_of_other_text_is_free(tmp_path: Path) -> None:
    assert found(tmp_path, "a.py", 'a = "What it is"\n# What it is\n') == []
    assert found(tmp_path, "a.py", '"""Text.\n\nWhat it is.\n"""\n') == []
    assert found(tmp_path, "a.md", "# What it is\n\nWhen it is.\n") == []


def words(number: int) -> str:
    return " ".join(["word"] * number)


LONG = "31 words in a sentence"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", '"""{}"""\n'),
        ("a.py", "# {}\n"),
        ("a.py", 'a = "{}"\n'),
        ("a.py", 'a = f"{{a(1, 2)}} {}"\n'.replace("{}", words(30)) + "# {}\n"),
        ("a.md", "{}\n"),
        ("a.yaml", "# {}\n"),
        ("a.html.j2", "<p>{}</p>\n"),
    ],
)
def test_the_longest_sentence_has_30_words(tmp_path: Path, name: str, text: str) -> None:
    longest, too_long = (text.replace("{}", words(number)) for number in (30, 31))
    before = found(tmp_path, name, longest)
    assert len(found(tmp_path, name, too_long)) == len(before) + 1
    assert found(tmp_path, name, too_long)[-1][1] == LONG


def test_a_long_sentence_goes_over_lines(tmp_path: Path) -> None:
    lines = [words(15), words(16)]
    assert found(tmp_path, "a.md", "Short.\n\n" + "\n".join(lines)) == [(3, LONG)]
    assert found(tmp_path, "a.py", "\n".join(f"# {line}" for line in lines)) == [(1, LONG)]
    assert found(tmp_path, "a.py", "\n".join(f"a = 1  # {line}" for line in lines)) == []
    text = '"""Short.\n\n' + "\n".join(lines) + '\n"""'
    assert found(tmp_path, "a.py", text) == [(3, LONG)]


@pytest.mark.parametrize(
    "one_word",
    [
        "`two words`",
        "``two words``",
        "{py:meth}`two words <a.b>`",
        "[two words](https://example.org)",
        "[two words](other.md#part)",
        "**word**",
        "(word)",
        "word =",  # a sign is none
    ],
)
def test_code_and_links_are_one_word(tmp_path: Path, one_word: str) -> None:
    assert found(tmp_path, "a.md", f"{words(29)} {one_word}.") == []
    assert found(tmp_path, "a.md", f"{words(30)} {one_word}.") == [(1, LONG)]


@pytest.mark.parametrize(
    "between",
    [
        *(". Word", "! Word", "? Word", ".) Word", '." Word', ". `code`", ". 5"),
        *("\n\n", "\n- ", "\n* ", "\n1. ", "\n## Heading\n"),
        *("\n| ", "\n| word | ", "\n```\ncode\n```\n", "\n```{note}\n"),
    ],
)
def test_two_sentences_in_markdown(tmp_path: Path, between: str) -> None:
    assert found(tmp_path, "a.md", f"{words(29)}{between} {words(28)}") == []


@pytest.mark.parametrize("between", [", ", "; ", ": ", " e.g. A ", " i.e. ", " 2.5 ", "\n", " | "])
def test_one_sentence_in_markdown(tmp_path: Path, between: str) -> None:
    assert len(found(tmp_path, "a.md", f"{words(15)}{between}{words(16)}")) == 1


def test_items_of_a_docstring_are_sentences(tmp_path: Path) -> None:
    text = (
        'def a(b, c):\n    """Text\n\n'
        f"    Args:\n        b: {words(28)}\n        c (int): {words(28)}\n"
        f"        *d: {words(28)}\n\n    Returns:\n        {words(29)}\n\n"
        f"    Raises:\n        ValueError: {words(28)}\n        a.B: {words(28)}\n"
    )
    assert found(tmp_path, "a.py", text + '    """\n') == []
    assert found(tmp_path, "a.py", text + '        word word\n    """\n') == [(14, LONG)]


def test_a_colon_before_the_items_ends_no_sentence(tmp_path: Path) -> None:
    text = f'def a(b, c):\n    """{words(20)}\n    word: {words(20)}\n    """\n'
    assert found(tmp_path, "a.py", text) == [(2, "41 words in a sentence")]


def test_keys_of_a_configuration_are_sentences(tmp_path: Path) -> None:
    text = f"# {words(20)}\n# key: {words(20)}\n"
    assert found(tmp_path, "a.yaml", text) == []


def test_branches_and_blocks_of_a_template_are_sentences(tmp_path: Path) -> None:
    for between in ("</p><p>", "{% else %}", "{% elif a %}", "<br>", "</td><td>"):
        assert found(tmp_path, "a.j2", f"<p>{words(20)}{between}{words(20)}</p>") == []
    for between in ("<b>", "{{ a }}", "{% if a %}", "&nbsp;"):
        assert len(found(tmp_path, "a.j2", f"<p>{words(20)}{between}{words(20)}</p>")) == 1


def test_the_newest_section_of_the_changelog_is_checked(tmp_path: Path) -> None:
    text = "# Changelog\n\n## Unreleased\n\n### Added\n\n- told\n\n## 0.1.0\n\n- told\n"
    assert found(tmp_path, "CHANGELOG.md", text) == [(7, "'told'")]


def test_an_exception_allows_its_phrase_in_its_files(tmp_path: Path) -> None:
    excuse = Excuse("chart*.py", r"draw the axes|^word.*", "The word of the field.")
    text = '"""Always draw the axes, and draw power."""\n'
    assert found(tmp_path, "charts.py", text, excuse) == [(1, "'draw'")]
    assert found(tmp_path, "chart.py", text.replace("draw power", "bars"), excuse) == []
    assert found(tmp_path, "other.py", text, excuse) == [(1, "'draw'")] * 2
    assert found(tmp_path, "chart.py", f'"""{words(31)}"""', excuse) == []
    assert found(tmp_path, "other.py", f'"""{words(31)}"""', excuse) == [(1, LONG)]


def test_an_exception_is_named_by_its_findings(tmp_path: Path) -> None:
    path = tmp_path / "chart.py"
    path.write_text('"""Draw the axes."""\n')
    excuses = [Excuse("other.py", "Draw", "Unused."), Excuse("chart.py", "Draw", "Used.")]
    assert [finding.excuse for finding in check(path, excuses, root=tmp_path)] == [1]


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing has no file that ends with \.py"):
        files([tmp_path / "missing"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").touch()
    with pytest.raises(FileNotFoundError, match="empty has no file"):
        files([tmp_path / "empty"])


def test_the_command_prints_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.md"
    path.write_text("Text told.\n")
    assert main([str(tmp_path)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{path}:1: 'told': write 'is given'")
    assert last == "1 findings"
    path.write_text("Text.\n")
    assert main([str(path)]) == 0
    assert capsys.readouterr().out == "0 findings\n"
