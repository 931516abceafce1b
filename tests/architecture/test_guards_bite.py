"""Each guard finds the fault it is there for, planted into a copy of the repository."""

import shutil
from functools import cache
from pathlib import Path

import pytest
from architecture import guards

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path):
    """The package, the scripts and the settings, with a function that plants text into one of its files."""
    skip = shutil.ignore_patterns("__pycache__", "checkpoints", ".*")
    for folder in ("hf_ocr", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@cache
def breaches_as_it_is(guard):
    return guard(ROOT)


def plant(copy, name, text, at_top=False):
    path = copy / name
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{text}\n{before}" if at_top else f"{before}\n{text}\n", encoding="utf-8")


FAULTS = {
    "upwards": (guards.layer_breaches, "hf_ocr/data/new.py", "from hf_ocr.training import train", "layer 2 imports"),
    "sideways": (guards.layer_breaches, "hf_ocr/text.py", "import hf_ocr.models.ctc", "layer 1 imports layer 1"),
    "against an arrow": (guards.layer_breaches, "hf_ocr/evaluation.py", "from hf_ocr import training", "layer 3"),
    "late and upwards": (guards.layer_breaches, "hf_ocr/text.py", "def f():\n    from hf_ocr.card import x", "layer 4"),
    "relative and upwards": (guards.layer_breaches, "hf_ocr/data/new.py", "from ..report import x", "layer 4"),
    "for type checkers": (
        guards.layer_breaches,
        "hf_ocr/text.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hf_ocr.card import x",
        "layer 4",
    ),
    "no layer": (guards.layer_breaches, "hf_ocr/novelty.py", "", "hf_ocr.novelty: has no layer"),
    "no name": (guards.layer_breaches, "hf_ocr/data/utils.py", "", "name a module for what it knows"),
    "the whole package": (guards.layer_breaches, "hf_ocr/card.py", "import hf_ocr", "package as a whole"),
    "too much at once": (guards.layer_breaches, "hf_ocr/__init__.py", "from hf_ocr import training", "no more than"),
    "cycle of two": (guards.cycles, "hf_ocr/models/ctc_lattice.py", "from .ctc import greedy_search", "models.ctc,"),
    "cycle of one": (guards.cycles, "hf_ocr/text.py", "def f():\n    import hf_ocr.text", "cycle: hf_ocr.text"),
    "late": (guards.late_imports, "hf_ocr/text.py", "def f():\n    import json", "-> json"),
    "folder in the bundle": (guards.bundle_breaches, "hf_ocr/models/deep/x.py", "", "one flat folder"),
    "package in the bundle": (guards.bundle_breaches, "hf_ocr/models/ctc.py", "import scipy.special", "import scipy"),
    "absolute in the bundle": (guards.bundle_breaches, "hf_ocr/models/ctc.py", "import hf_ocr.text", "import hf_ocr"),
    "from . import": (guards.bundle_breaches, "hf_ocr/models/reading.py", "from . import ctc", "copies only"),
    "from above": (guards.bundle_breaches, "hf_ocr/models/reading.py", "from ..text import x", "copies only"),
    "not beside": (guards.bundle_breaches, "hf_ocr/models/reading.py", "from .nothing import x", "no nothing.py"),
    "relative in a docstring": (
        guards.bundle_breaches,
        "hf_ocr/models/reading.py",
        'def f():\n    """Use it so:\n\n    from .ctc import align\n    """',
        "transformers sees the imports",
    ),
    "moved class": (guards.bundle_breaches, "hf_ocr/models/reading.py", 'Reading.__module__ = "x"', "by __module__"),
    "optimizer": (guards.training_in_models, "hf_ocr/models/ctc.py", "A = torch.optim.Adam", "optim belongs"),
    "accelerate": (guards.training_in_models, "hf_ocr/models/ctc.py", "import accelerate", "accelerate belongs"),
    "gradient": (guards.training_in_models, "hf_ocr/models/ctc.py", "def f(x):\n    x.backward()", "backward belongs"),
    "data sets": (guards.training_in_models, "hf_ocr/text.py", "from datasets import Dataset", "datasets belongs"),
    "work on import": (guards.script_breaches, "scripts/new.py", '"""New."""\nprint(1)', "works when it is imported"),
    "tries on import": (
        guards.script_breaches,
        "scripts/new.py",
        '"""New."""\ntry:\n    print(1)\nexcept ImportError:\n    raise',
        "works when it is imported",
    ),
    "no main": (guards.script_breaches, "scripts/new.py", '"""New."""', "scripts/new.py: has no main"),
    "no docstring": (guards.script_breaches, "scripts/new.py", "def main():\n    pass", "has no docstring"),
    "imports a script": (
        guards.script_breaches,
        "scripts/new.py",
        '"""New."""\nfrom benchmark_reading import main',
        "imports a script",
    ),
    "script in the package": (guards.script_breaches, "hf_ocr/text.py", "import scripts.x", "imports a script"),
    "path of Linux": (guards.addresses, "hf_ocr/notes.md", "see " + "/home/" + "someone/data", "a path of one machine"),
    "path of macOS": (guards.addresses, "scripts/new", 'DATA = "' + "/Users/" + 'someone"', "a path of one machine"),
    "path of Windows": (guards.addresses, "notes.txt", "C:" + "\\Users\\" + "someone", "a path of one machine"),
    "path in CI": (guards.addresses, ".ci/run", "cd " + "/work/" + "main", "a path of one machine"),
    "registry": (guards.addresses, "pyproject.toml", "# https://pypi" + ".org/simple", "a package registry"),
    "index": (guards.addresses, "scripts/new", "pip install --extra-index-url" + "=https://x.y", "package registry"),
    "torch.load": (
        guards.unpickling,
        "hf_ocr/checkpointing.py",
        'import torch\n\nstate = torch.load("x")',
        "`torch.load` is banned",
    ),
    "pickle": (guards.unpickling, "scripts/new.py", "import pickle", "`pickle` is banned"),
    "loads": (guards.unpickling, "tests/test_new.py", 'from pickle import loads\n\nloads(b"")', "unpickling"),
}


@pytest.mark.parametrize(("guard", "name", "text", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found(copy, guard, name, text, expected):
    assert not any(expected in breach for breach in breaches_as_it_is(guard))
    plant(copy, name, text)
    assert any(expected in breach for breach in guard(copy)), guard(copy)


def test_a_function_of_two_scripts_is_found(copy):
    for name in ("one", "two"):
        plant(copy, f"scripts/{name}.py", f'"""{name}."""\ndef main():\n    pass\ndef shared_part():\n    pass')
    assert guards.script_breaches(copy) == [
        "scripts/two.py: shared_part is in scripts/one.py too; its place is in the package"
    ]


def test_faults_of_the_public_names_and_of_the_import_are_found(copy):
    """All at once, since a process starts for it."""
    before = [
        "import hf_ocr.card",
        "import logging, os, random, warnings",
        'os.environ["PLANTED"] = "1"',
        'warnings.simplefilter("ignore", BytesWarning)',
        "logging.getLogger().setLevel(logging.ERROR)",
        "logging.getLogger().addHandler(logging.NullHandler())",
        "random.random()",
        "import fontTools, numpy, torch",
        "numpy.random.random()",
        "torch.rand(1)",
        "torch.set_grad_enabled(False)",
    ]
    after = [
        "def undocumented(): pass",
        'def forgotten(): """Public, but not in __all__."""',
        '__all__ = [*__all__[::-1], "undocumented", "absent"]',
        'CrnnModel.__module__ = "hf_ocr.models.ctc"',
        'os.chdir("hf_ocr")',
    ]
    plant(copy, "hf_ocr/__init__.py", "\n".join([*before, *after]))
    breaches = guards.public_breaches(copy)
    for expected in (
        "changes: environment",
        "changes: warnings",
        "changes: log level",
        "changes: log handlers",
        "changes: random state of Python",
        "changes: random state of NumPy",
        "changes: random state of torch",
        "changes: settings of torch",
        "changes: working directory",
        "changes: packages of training",
        "loads hf_ocr.card",
        "forgotten: is public only",
        "absent: is in __all__ only",
        "__all__ is not sorted",
        "undocumented: has no docstring",
        "CrnnModel: __module__ is hf_ocr.models.ctc",
    ):
        assert any(expected in breach for breach in breaches), (expected, breaches)
