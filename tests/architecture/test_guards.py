"""The repository as it is keeps every guard."""

import runpy
import sys
from pathlib import Path

import pytest
from architecture import guards

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize(
    "guard",
    [
        guards.layer_breaches,
        guards.cycles,
        guards.late_imports,
        guards.bundle_breaches,
        guards.training_in_models,
        guards.script_breaches,
        guards.addresses,
        guards.unpickling,
        guards.public_breaches,
    ],
    ids=lambda guard: guard.__name__,
)
def test_the_repository_keeps(guard):
    assert guard(ROOT) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_script_explains_itself(script, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(script), run_name="__main__")
    assert "usage:" in capsys.readouterr().out
