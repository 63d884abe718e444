from __future__ import annotations

import ast
import configparser
import importlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import greentrain
from greentrain._about import DISTRIBUTION, VERSION

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")

# The names that other work builds on, as the project's first issue fixes them.
FIXED = {
    "greentrain": {"Budget", "BudgetController", "Experience", "StreamTrainer", "UpdateMode"},
    "greentrain.callbacks": {"BudgetGuard", "EnergyMonitor"},
    "greentrain.energy": {
        "CodeCarbonMeter",
        "CompositeMeter",
        "ConstantMeter",
        "NvmlMeter",
        "ReplayMeter",
    },
    "greentrain.ledger": {"Ledger"},
    "greentrain.memory": {"FullBuffer", "ReservoirBuffer"},
}

# What each room may import, as DESIGN.md has it; `units` is units.py, errors.py, naming.py,
# regular_files.py and texts.py.
ROOMS: dict[str, str] = {
    "simulation": "training evaluation decisions control ledger memory streams callbacks energy "
    "payments budget units",
    "training": "evaluation decisions callbacks report tracking control ledger memory methods "
    "streams metrics carbon payments energy money budget units",
    "integrations": "callbacks tracking ledger carbon energy money budget units",
    "evaluation": "callbacks memory methods streams metrics tracking payments units",
    "callbacks": "tracking ledger memory methods carbon energy budget units",
    "report": "control ledger carbon money budget units",
    "tracking": "ledger units",
    "ledger": "money budget units",
    "control": "budget units",
    "streams": "units",
    "memory": "units",
    "methods": "units",
    "metrics": "units",
    "carbon": "units",
    "energy": "units",
    "measuring": "ledger carbon energy budget units",
    "decisions": "control ledger carbon payments energy money budget units",
    "payments": "energy budget units",
    "money": "budget units",
    "budget": "units",
    "units": "",
    "_about": "",
}
_LOWEST = ("errors", "launch", "naming", "regular_files", "texts")
TOP = {"__init__", "__main__", "auto", "cli", "configuration", "demo"}
HEAVY = {"torch", "pytorch_lightning", "lightning", "mlflow"}


def packages() -> list[str]:
    folders = [path.parent for path in (ROOT / "greentrain").glob("**/__init__.py")]
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    return sorted({*names, "greentrain.callbacks"})  # not every glob follows the symlink


def sources() -> list[Path]:
    """Every module once: callbacks where they lie, not through the symlink."""
    ours = [*(ROOT / "greentrain").glob("*.py"), *(ROOT / "callbacks").glob("**/*.py")]
    for folder in (ROOT / "greentrain").iterdir():
        if folder.is_dir() and not folder.is_symlink():
            ours += folder.glob("**/*.py")
    return sorted(ours)


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return _room(parts if parts[0] == "callbacks" else parts[1:])


def _room(parts: tuple[str, ...]) -> str:
    first = parts[0] if parts else "__init__"
    return "units" if first in _LOWEST else first


def imports(path: Path) -> set[str]:
    """The rooms that a module imports from, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            if node.module == "greentrain":
                names = [f"greentrain.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        split = [tuple(name.split(".")) for name in names]
        found |= {_room(parts[1:]) for parts in split if parts[0] == "greentrain"}
    return found


def ruff_order(name: str) -> tuple[int, list[tuple[int, int, str]]]:
    """How RUF022 sorts: constants, classes, the rest, each naturally."""
    kind = 0 if len(name) > 1 and name.isupper() else 1 if name[0].isupper() else 2
    parts = re.findall(r"\d+|\D+", name)
    return kind, [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(greentrain.__all__))
def test_names_are_handed_on_when_they_are_used(name: str) -> None:
    value = getattr(greentrain, name)
    assert name == "__version__" or value.__module__.startswith("greentrain.")
    assert name in dir(greentrain)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Bugdet'"):
        greentrain.Bugdet  # noqa: B018  (looking it up is the test)


@pytest.mark.parametrize(
    "code",
    [
        "import greentrain",
        "import greentrain.tracking.prometheus",
        "import sys; sys.argv = ['greentrain', '--help']\n"
        "from greentrain.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code",
        "import sys; sys.argv = ['greentrain', '--version']\n"
        "from greentrain.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code",
    ],
    ids=["import", "prometheus", "help", "version"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    output = run(f"{code}\nimport sys\nprint('loaded:', *sorted({HEAVY!r} & {{*sys.modules}}))")
    assert output.splitlines()[-1].strip() == "loaded:"


@pytest.mark.parametrize("package", sorted(FIXED))
def test_the_fixed_names_are_public(package: str) -> None:
    module = importlib.import_module(package)
    assert FIXED[package] <= set(module.__all__)


@pytest.mark.parametrize("package", packages())
def test_all_is_sorted_and_complete(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__, key=ruff_order)
    for name in module.__all__:
        getattr(module, name)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    handed_on = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("greentrain.")
        for alias in node.names
    }
    assert handed_on == set(module.__all__)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b", "A", "C_D", "__x__"], ["C_D", "A", "__x__", "b"]),
        (["A10", "A9"], ["A9", "A10"]),
    ],
)
def test_the_order_is_ruffs(names: list[str], expected: list[str]) -> None:
    assert sorted(names, key=ruff_order) == expected


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_only_downwards(path: Path) -> None:
    here = room(path)
    if here in TOP:
        return
    allowed = {*ROOMS[here].split(), here, "_about"}
    assert imports(path) <= allowed


def test_no_file_or_class_name_occurs_twice() -> None:
    files = Counter(path.name for path in sources() if path.name != "__init__.py")
    files -= Counter({"env.py": 1})  # Alembic's own name for it
    classes = Counter(
        node.name
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in (files + classes).items() if count > 1] == []


def test_no_module_imports_private_names_of_another() -> None:
    private = [
        f"{path.relative_to(ROOT)}: {alias.name}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("greentrain")
        for alias in node.names
        if alias.name.startswith("_")
        and not alias.name.startswith("__")
        and not (ROOT / "greentrain" / "energy" / f"{alias.name}.py").exists()
    ]
    assert private == []


def test_the_table_of_rooms_has_no_way_round() -> None:
    for name, allowed in ROOMS.items():
        for below in allowed.split():
            assert name not in ROOMS[below].split()


def test_the_page_of_the_architecture_has_the_table_of_rooms() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    lines = re.findall(r"^([a-z]+) +([a-z ]+)$", page, re.MULTILINE)
    shown = {name: set(allowed.replace("nothing", "").split()) for name, allowed in lines}
    expected = {name: set(allowed.split()) for name, allowed in ROOMS.items() if name != "_about"}
    assert {name: shown.get(name) for name in expected} == expected


def test_setup_lists_every_package() -> None:
    listed = SETUP["options"]["packages"].split()
    assert listed == packages()
    assert "greentrain.callbacks = callbacks" in SETUP["options"]["package_dir"]


def test_callbacks_are_one_folder() -> None:
    link = ROOT / "greentrain" / "callbacks"
    assert link.is_symlink()
    assert str(link.readlink()) == "../callbacks"


def test_the_distribution_has_one_name() -> None:
    assert SETUP["metadata"]["name"] == DISTRIBUTION
    assert greentrain.__version__ == VERSION
    named = [path for path in sources() if DISTRIBUTION in path.read_text(encoding="utf-8")]
    assert named == [ROOT / "greentrain" / "_about.py"]


# Another project holds our import name on the public index: nobody may be sent there.
FOREIGN = re.compile(
    r"\b(?:pip3?|pipx|uv|conda|mamba|poetry)\s+(?:pip\s+)?(?:install|add)"
    r"(?:\s+\S+){0,5}?\s+[\"']?greentrain(?![\w/.-])"
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pip " + "install greentrain", True),
        ("pip " + "install 'greentrain[viz]'", True),
        ("pip3 " + "install --upgrade torch greentrain==1", True),
        ("uv " + "add greentrain", True),
        (f"pip install {DISTRIBUTION}", False),
        ("pip install ./greentrain/", False),
    ],
)
def test_the_search_for_the_foreign_package_finds_it(text: str, found: bool) -> None:
    assert bool(FOREIGN.search(text)) is found


def test_no_text_sends_anyone_to_the_foreign_package() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    guilty = []
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            text = path.read_bytes().decode("utf-8", errors="ignore")
            guilty += [f"{name}: {match.group()}" for match in FOREIGN.finditer(text)]
    assert guilty == []
