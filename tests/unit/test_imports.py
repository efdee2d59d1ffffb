"""The house stands: floors import downwards only, and heavy things are imported late."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The floor of every module; a file imports from its own part or from lower floors.
FLOORS = {
    "_version": 1,
    "errors": 1,
    "gguf": 2,
    "sampling": 2,
    "text": 2,
    "prompt": 2,
    "backends": 3,
    "engine": 4,
    "session": 5,
    "models": 5,
    "store": 5,
    "validation": 5,
    "config": 5,
    "demo": 5,
    "cli": 6,
    "__main__": 7,
}
# Importing these costs time or loads native code: never at the import of `nitrolib`.
HEAVY = (
    "ctransformers", "flask", "gunicorn", "jinja2", "jsonschema", "llama_cpp", "llguidance",
    "numpy",
)  # fmt: skip


def imports(path: Path, package: str) -> list[str]:
    """Absolute names of everything *path* imports, type-only imports left out."""
    parts = package.split(".")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    type_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names = []
    for node in ast.walk(tree):
        if id(node) in type_only:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def modules() -> list[tuple[Path, str]]:
    """Every module of the package with the name of the package it stands in."""
    return [
        (path, ".".join(path.relative_to(ROOT).parent.parts))
        for path in sorted((ROOT / "nitrolib").rglob("*.py"))
    ]


def part_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "nitrolib" and len(parts) > 1 else None


@pytest.mark.parametrize(("path", "package"), modules(), ids=lambda v: str(v)[-40:])
def test_a_file_imports_only_from_lower_floors(path: Path, package: str) -> None:
    relative = path.relative_to(ROOT / "nitrolib")
    if relative.name == "__init__.py" and len(relative.parts) == 1:
        pytest.skip("the face names every part")
    own = relative.parts[0].removesuffix(".py")
    for name in imports(path, package):
        part = part_of(name)
        if part is None or part == own:
            continue
        assert part in FLOORS, f"{relative} imports {name}, which has no floor"
        assert FLOORS[part] < FLOORS[own] or (part, own) == ("_version", "errors"), (
            f"{relative} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[part]})"
        )


@pytest.mark.parametrize(("path", "package"), modules(), ids=lambda v: str(v)[-40:])
def test_nitrolib_never_imports_adapters_or_a_web_framework(path: Path, package: str) -> None:
    for name in imports(path, package):
        first = name.split(".")[0]
        assert first not in {"adapters", "flask", "gunicorn", "werkzeug"}, f"{path}: {name}"
        assert not name.startswith("nitrolib.adapters"), f"{path}: {name}"


def test_importing_nitrolib_loads_nothing_heavy() -> None:
    code = f"import sys, nitrolib; print(*({set(HEAVY)!r} & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == ""


def test_the_engine_loads_no_native_library_and_no_web_framework() -> None:
    code = (
        "import sys, nitrolib; nitrolib.Engine, nitrolib.ChatSession, nitrolib.LoadOptions\n"
        f"print(*({set(HEAVY) - {'numpy'}!r} & sys.modules.keys()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == ""


def test_every_public_name_is_there_and_listed_once() -> None:
    import nitrolib

    assert sorted(nitrolib.__all__, key=str.casefold) == sorted(
        [*nitrolib._HOME_OF, "__version__"], key=str.casefold
    )
    for name in nitrolib.__all__:
        assert getattr(nitrolib, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        nitrolib.nonsense  # noqa: B018


@pytest.mark.parametrize("name", ["fcntl", "resource", "pwd", "grp", "termios", "pty", "readline"])
def test_nothing_posix_only_is_imported_at_the_top_of_a_module(name: str) -> None:
    for path, _ in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                assert name not in {alias.name for alias in node.names}, path
            elif isinstance(node, ast.ImportFrom):
                assert node.module != name, path
