"""A checkout of a few files, in which ``make test``, ``make lint`` and ``make format`` take seconds."""

import shutil
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FILES = (
    "Makefile", "pyproject.toml", "setup.py", "requirements.txt", "constraints.txt", "hypvl/errors.py",
    "scripts/demo.py", "benchmarks/__init__.py", "tests/__init__.py",
)  # fmt: skip
_TEST = 'from hypvl import __version__\n\n\ndef test_small() -> None:\n    assert __version__ == "0"\n'
_WRITTEN = {
    "hypvl/__init__.py": '"""A small package."""\n\n__version__ = "0"\n',
    "tests/test_small.py": _TEST,
}


def make_checkout(folder: Path) -> None:
    """Copies, and a ``.venv`` that has the packages of this environment and counts as installed."""
    for name in _FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "configs").mkdir()
    for name, content in _WRITTEN.items():
        (folder / name).write_text(content, encoding="utf-8")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / ".venv" / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    home = f"home = {Path(sys.base_prefix) / 'bin'}\ninclude-system-site-packages = false\n"
    (folder / ".venv" / "pyvenv.cfg").write_text(home, encoding="utf-8")
    (folder / ".venv" / ".hypvl-installed").touch()
