import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_zoo_equals_the_configs() -> None:
    """Run `python scripts/update_zoo.py` after a change of the model configs."""
    spec = importlib.util.spec_from_file_location("update_zoo", ROOT / "scripts" / "update_zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    wanted = module.definitions()
    folder = ROOT / "hypvl" / "models" / "zoo"
    assert wanted
    assert {path.name: path.read_text() for path in folder.glob("*.json")} == wanted
