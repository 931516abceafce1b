"""The scripts explain themselves; where a package is missing, they say in one line how to get it."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "scripts").glob("*.py"))
WITHOUT_EXTRAS = """
import contextlib, io, json, runpy, sys
for name in "accelerate datasets evaluate matplotlib onnx onnxruntime peft pyarrow rapidfuzz rapidocr ray".split():
    sys.modules[name] = None
ends = {}
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as help:
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            ends[script] = end.code or help.getvalue()
        except BaseException as error:
            ends[script] = repr(error)
print(json.dumps(ends))
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help(capsys, monkeypatch, script):
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert not end.value.code and "usage: " in capsys.readouterr().out


@pytest.mark.slow
def test_without_extras_help_or_the_cure():
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *map(str, SCRIPTS)]
    done = subprocess.run(command, cwd=SCRIPTS[0].parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ends = json.loads(done.stdout)
    assert len(ends) == len(SCRIPTS)
    for script, end in ends.items():
        assert end.startswith("usage: ") or 'is not installed: pip install -e ".[' in end, (script, end)
