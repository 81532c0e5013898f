import pytest
from programs import serving

SMALL = """
instrument:
  cameras:
    far_field: {rows: 24, columns: 32}
    near_field: {rows: 16, columns: 16}
data: {minimum_free_gb: 0.01}
"""


@pytest.fixture
def small(tmp_path):
    """Return a function that writes a configuration with small cameras, and more settings, that extends another."""

    def write(base="simulated", more="", name=None):
        path = tmp_path / f"{name or base}.yml"
        path.write_text(f"extends: {base}\nname: {name or base}\n{SMALL}{more}")
        return path

    return write


@pytest.fixture
def serve(tmp_path):
    """Return a function that makes a ``dfxrm serve`` in a folder of its own; ``start`` starts it."""
    made = []

    def make(config, *arguments, folder=None):
        folder = folder or tmp_path / "served"
        folder.mkdir(exist_ok=True)
        made.append(serving(config, folder, *arguments))
        return made[-1]

    yield make
    for program in made:
        program.clear()
