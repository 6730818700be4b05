"""The architecture: who imports whom, and what start-up does not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from vsockdump.apps.registry import LIBRARIES

PACKAGE = Path(__file__).parent.parent / "vsockdump"

# From low to high; a module imports only from its own rank and below.
RANKS = (
    ("wire",),
    ("address", "amounts", "errors", "lazy", "programs", "batch"),
    ("columns", "capture", "track", "layers"),
    ("findings", "apps"),
    ("story",),
    ("fields",),
    ("filters",),
    ("output",),
    ("export",),
    ("config", "demo", "library", "extcap", "manual", "verify"),
    ("tui",),
    ("events", "wireshark"),
    ("pipeline",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}


def imports(path: Path) -> Iterator[str]:
    """The parts of vsockdump that a module imports, those of type checkers left out."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "vsockdump":
                names = [f"vsockdump.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "vsockdump" and rest:
                yield rest.split(".")[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_lower_does_not_import_higher(path: Path) -> None:
    """wire, then batch, then capture and track, then output, then what runs it all."""
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part != "__init__":
        found = {name for name in imports(path) if not name.startswith("__")}
        assert set() == {name for name in found if RANK[name] > RANK[part]}


def loaded(code: str) -> set[str]:
    """The modules that are loaded after some code has run in a fresh Python."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        cwd="/",
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Neither NumPy, Scapy nor Rich."""
    assert set() == loaded("import vsockdump") & {"numpy", "scapy", "rich"}


def test_version_does_not_load_numpy() -> None:
    """--version answers at once."""
    code = "from vsockdump.cli import main; main(['--version'])"
    assert set() == loaded(code) & {"numpy", "scapy", "rich"}


def test_reading_a_capture_loads_neither_scapy_nor_rich() -> None:
    """Printing packets is no reason to load them."""
    capture = PACKAGE.parent / "captures" / "k612_refused.pcap"
    code = f"from vsockdump.cli import main; main(['-r', {str(capture)!r}, '-z', 'conv'])"
    assert set() == loaded(code) & {"scapy", "rich", "textual", "lark"}


def test_what_parsers_import_late_is_known() -> None:
    """A run that becomes another user imports it before: see pipeline."""
    late = set()
    for path in (PACKAGE / "apps").glob("*.py"):
        tree = ast.parse(path.read_text())
        inner = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for node in (one for function in inner for one in ast.walk(function)):
            if isinstance(node, ast.Import):
                late.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith("vsockdump"):
                late.update(_modules(str(node.module), [alias.name for alias in node.names]))
    assert late - {"importlib", "importlib.metadata"} == set(LIBRARIES)


def _modules(package: str, names: list[str]) -> set[str]:
    """The modules that `from package import names` loads."""
    inner = {f"{package}.{name}" for name in names}
    return {name for name in inner if find_spec(name)} if _is_package(package, inner) else {package}


def _is_package(package: str, inner: set[str]) -> bool:
    spec = find_spec(package)
    return bool(spec and spec.submodule_search_locations and any(map(find_spec, inner)))
