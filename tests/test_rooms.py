"""The rooms of the package stand on each other: none imports one above it, not even inside a function."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / 'nepa_mm'
# Each may import those it names; version, stack, registry and numpy_pickles are the ground, and all may import them.
BELOW = {
    'checkpoints': (),
    'datasets': (),
    'models': ('checkpoints',),
    'visualization': ('models',),
    'evaluation': ('models', 'visualization'),
    'engine': ('checkpoints', 'datasets', 'evaluation'),
    'apis': ('checkpoints', 'datasets', 'models', 'visualization', 'evaluation', 'engine'),
    'benchmark': ('checkpoints', 'datasets', 'models', 'visualization', 'evaluation', 'engine', 'apis'),
}
GROUND = ('version', 'stack', 'registry', 'numpy_pickles')


def imported_rooms(file: Path) -> set[str]:
    """Rooms of this package that a file imports when it runs."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, 'id', None) == 'TYPE_CHECKING':
            node.body = []
    package = ('nepa_mm', *file.relative_to(ROOT).parts[:-1])
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            name = '.'.join([*start, *([node.module] if node.module else [])])
            modules += [f'{name}.{alias.name}' for alias in node.names]
    return {parts[1] for parts in (module.split('.') for module in modules) if parts[0] == 'nepa_mm' and len(parts) > 1}


def test_every_room_has_its_place():
    assert {path.name for path in ROOT.iterdir() if (path / '__init__.py').is_file()} == set(BELOW)


@pytest.mark.parametrize('room', BELOW)
def test_imports_go_down(room):
    allowed = {room, *BELOW[room], *GROUND}
    upward = {
        f'{file.relative_to(ROOT)} imports {other}'
        for file in (ROOT / room).rglob('*.py')
        for other in imported_rooms(file) - allowed
    }
    assert upward == set()
