"""The scripts explain themselves; where a package is missing, they say in one line how to get it."""

import ast
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from hf_ocr.record import RunRecord

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ends = json.loads(done.stdout)
    assert len(ends) == len(SCRIPTS)
    for script, end in ends.items():
        assert end.startswith("usage: ") or 'is not installed: pip install -e ".[' in end, (script, end)


def test_the_training_script_says_what_the_shipped_weights_took_and_reach():
    record = RunRecord.load(ROOT / "model_cards" / "crnn-small-latin.json")
    docstring = ast.get_docstring(ast.parse((ROOT / "scripts" / "train_crnn_latin.py").read_text(encoding="utf-8")))
    runs = max(int(name.split(":")[0].removeprefix("run ")) for name in record.settings)
    figures = {(result.dataset, result.split): result.report["figures"] for result in record.results}
    exact = [figures[name, "test"]["exact"]["value"] for name in ("sroie_lines", "iiit5k", "icdar2015_words")]
    for words in (
        f"{runs} runs and {record.hours:.1f} hours",
        f"{100 * exact[0]:.2f} % of the SROIE test lines, {100 * exact[1]:.2f} % of the IIIT5K test words and "
        f"{100 * exact[2]:.2f} % of those of ICDAR 2015",
        f"CER of {100 * figures['synthetic documents', 'unseen fonts']['cer']['value']:.2f} %",
    ):
        assert words in " ".join(docstring.split()), f"{words}: not in the docstring of train_crnn_latin.py"
