"""What holds the package together, as functions of the folder of the repository: each gives the list of its breaches.

By syntax tree and text, save the last two, which start a process.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_imports

PACKAGE = "hf_ocr"

# The layer of everything directly below the package. Imports point to a lower layer, or along an arrow below.
LAYERS = {
    "models": 1,
    "text": 1,
    "serving": 1,
    "data": 2,
    "metrics": 2,
    "mgp_str": 2,
    "stock_parts": 2,
    "registration": 2,
    "optimization": 2,
    "picture_fonts": 2,
    "sharding": 2,
    "alphabet": 3,
    "character_ngrams": 3,
    "low_rank": 3,
    "pruning": 3,
    "line_choice": 3,
    "distillation": 3,
    "batch_reading": 3,
    "attention_maps": 3,
    "encoder_decoder": 3,
    "learning_rate": 3,
    "evaluation": 3,
    "training": 3,
    "standalone": 3,
    "checkpointing": 3,
    "shards": 3,
    "report": 4,
    "report_html": 4,
    "record": 4,
    "card": 4,
    "bundle": 4,
    "calibration": 4,
    "convert": 4,
    "export": 4,
    "push": 4,
    "cli": 5,
}
ARROWS = {
    ("pruning", "low_rank"),
    ("line_choice", "encoder_decoder"),
    ("training", "evaluation"),
    ("training", "checkpointing"),
    ("training", "distillation"),
    ("distillation", "batch_reading"),
    ("mgp_str", "stock_parts"),
    ("card", "record"),
    ("bundle", "card"),
    ("bundle", "record"),
    ("convert", "bundle"),
    ("card", "report"),
    ("record", "report"),
    ("report_html", "report"),
    ("push", "bundle"),
    ("push", "card"),
    ("push", "record"),
}
# The highest layer that `import hf_ocr` may load: reading needs nothing of training.
IMPORTED_AT_ONCE = 2

# What may be imported inside a function: packages of the extras.
OPTIONAL = {
    "accelerate", "datasets", "evaluate", "fontTools", "fsspec", "matplotlib", "onnx", "onnxruntime", "peft",
    "pyarrow", "rapidfuzz", "rapidocr",
}  # fmt: skip

BUNDLE_PACKAGES = {"PIL", "numpy", "torch", "transformers"}
NAMES_THAT_SAY_NOTHING = {"common", "core", "helpers", "misc", "utils"}

NOT_OURS = {".git", "__pycache__", "build", "dist", "shared"}
# Written so that this file does not hold what it looks for.
PATHS_OF_A_MACHINE = re.compile(r"(?<![\w.:/~$}-])/(?:home|root|Users|work|mnt|scratch)/\w|[A-Z]:\\\\?Users\\")
REGISTRIES = re.compile(
    r"(?:pypi|pythonhosted|anaconda|npmjs|crates)\.(?:org|com|io)\b|download\.pytorch\.org|-index-url[ =]+\S+:/"
)


@dataclass(frozen=True)
class Import:
    """One import statement's module; `late`: inside a function."""

    importer: str
    line: int
    imported: str
    late: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} -> {self.imported}"


def modules(root: Path) -> dict[str, Path]:
    """{dotted name: file} of the package."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> Iterator[Import]:
    """All imports of the package: late ones and those for type checkers too; names that are modules are resolved."""
    known = modules(root)
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        late = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for node in ast.walk(function)
        }
        package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                targets = sorted(
                    {f"{module}.{alias.name}" if f"{module}.{alias.name}" in known else module for alias in node.names}
                )
            else:
                continue
            for target in targets:
                yield Import(name, node.lineno, target, id(node) in late)


def _unit(module: str) -> str | None:
    """What stands directly below the package; None for the package itself and for what is outside."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def layer_breaches(root: Path) -> list[str]:
    """Imports that do not point down, modules without a layer, and names that say nothing."""
    breaches = []
    for module in modules(root):
        unit = _unit(module)
        if unit is not None and unit not in LAYERS:
            breaches.append(f"{module}: has no layer; give {unit} one in the table of tests/architecture/guards.py")
        if module.rpartition(".")[2] in NAMES_THAT_SAY_NOTHING:
            breaches.append(f"{module}: name a module for what it knows")
    for found in imports(root):
        importer, imported = _unit(found.importer), _unit(found.imported)
        if importer not in LAYERS and importer is not None:
            continue
        if found.imported == PACKAGE and importer is not None:
            breaches.append(f"{found}: no module imports the package as a whole")
        elif imported not in LAYERS or importer == imported or (importer, imported) in ARROWS:
            continue
        elif importer is None:
            if LAYERS[imported] > IMPORTED_AT_ONCE:
                breaches.append(f"{found}: `import {PACKAGE}` loads no more than layer {IMPORTED_AT_ONCE}")
        elif LAYERS[imported] >= LAYERS[importer]:
            breaches.append(f"{found}: layer {LAYERS[importer]} imports layer {LAYERS[imported]}")
    return breaches


def cycles(root: Path) -> list[str]:
    """Modules of the package that reach themselves by imports."""
    arrows: dict[str, set[str]] = {name: set() for name in modules(root)}
    for found in imports(root):
        if found.imported in arrows:
            arrows[found.importer].add(found.imported)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(arrows[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(arrows[name])
        return seen

    reach = {name: reached(name) for name in arrows}
    circles = {
        tuple(sorted({name} | {other for other in reach[name] if name in reach[other]}))
        for name in arrows
        if name in reach[name]
    }
    return [f"cycle: {', '.join(circle)}" for circle in sorted(circles)]


def late_imports(root: Path) -> list[str]:
    """Imports inside functions, other than of optional packages."""
    return [
        f"{found}: import at the top of the module"
        for found in imports(root)
        if found.late and found.imported.split(".")[0] not in OPTIONAL
    ]


def bundle_breaches(root: Path) -> list[str]:
    """What would not survive the copy of `models/` beside the weights."""
    folder = root / PACKAGE / "models"
    breaches = [f"{path.relative_to(root)}: the bundle is one flat folder" for path in sorted(folder.rglob("*/*.py"))]
    for path in sorted(folder.glob("*.py")):
        if path.stem == "__init__":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        siblings, packages = set(), {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                packages.update({alias.name.split(".")[0]: node.lineno for alias in node.names})
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                packages[str(node.module).split(".")[0]] = node.lineno
            elif isinstance(node, ast.ImportFrom) and (node.level > 1 or node.module is None):
                breaches.append(f"{path.name}:{node.lineno}: transformers copies only what `from .name import x` names")
            elif isinstance(node, ast.ImportFrom):
                siblings.add(str(node.module))
                if not (folder / f"{node.module}.py").is_file():
                    breaches.append(f"{path.name}:{node.lineno}: there is no {node.module}.py beside it")
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                if getattr(node, "attr", getattr(node, "id", None)) == "__module__":
                    breaches.append(f"{path.name}:{node.lineno}: transformers finds the file to copy by __module__")
        for package, line in packages.items():
            if package not in BUNDLE_PACKAGES and package not in sys.stdlib_module_names:
                breaches.append(f"{path.name}:{line}: the bundle may not import {package}")
        # transformers finds what to copy by a regular expression over the text, docstrings included.
        if (seen := set(get_relative_imports(path))) != siblings:
            breaches.append(f"{path.name}: transformers sees the imports {sorted(seen)}, Python {sorted(siblings)}")
    return breaches


def training_in_models(root: Path) -> list[str]:
    """Optimizers, gradients taken, accelerate and data sets in layer 1."""
    breaches = []
    for name, path in modules(root).items():
        if LAYERS.get(str(_unit(name))) != 1:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            words: list[str] = []
            if isinstance(node, ast.Import):
                words = [word for alias in node.names for word in alias.name.split(".")]
            elif isinstance(node, ast.ImportFrom):
                words = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Attribute):
                words = [node.attr]
            breaches += [
                f"{name}:{node.lineno}: {word} belongs to training"
                for word in words
                if word in ("accelerate", "backward", "datasets", "optim")
            ]
    return breaches


def script_breaches(root: Path) -> list[str]:
    """Scripts that do something when imported, hold what another wants, or are imported."""
    breaches, homes = [], {}
    scripts = sorted((root / "scripts").glob("*.py"))
    names = {path.stem for path in scripts}
    for path in scripts:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        where = f"scripts/{path.name}"
        if ast.get_docstring(tree) is None:
            breaches.append(f"{where}: has no docstring")
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        if "main" not in functions:
            breaches.append(f"{where}: has no main")
        for name in functions:
            if name != "main" and homes.setdefault(name, where) != where:
                breaches.append(f"{where}: {name} is in {homes[name]} too; its place is in the package")
        for node in tree.body[1:]:
            guard = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
            # Where an extra is missing, a script says so.
            optional = isinstance(node, ast.Try) and all(
                isinstance(line, ast.Import | ast.ImportFrom) for line in node.body
            )
            if not (guard or optional) and not isinstance(
                node,
                ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.FunctionDef | ast.ClassDef,
            ):
                breaches.append(f"{where}:{node.lineno}: works when it is imported")
        for node in ast.walk(tree):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if (module or "").split(".")[0] in names | {"scripts"}:
                breaches.append(f"{where}:{node.lineno}: imports a script")
    breaches += [f"{found}: imports a script" for found in imports(root) if found.imported.split(".")[0] == "scripts"]
    return breaches


def texts(root: Path) -> Iterator[tuple[Path, str]]:
    """The text files of the repository; not what git ignores, not those that are no text."""
    for folder, folders, files in os.walk(root):
        # Hidden folders are environments and caches, save the one that runs the tests.
        folders[:] = sorted(
            name
            for name in folders
            if name not in NOT_OURS and not name.endswith(".egg-info") and (name[0] != "." or name == ".ci")
        )
        for name in sorted(set(files) - {".git"}):  # in a work tree a file that says where the repository is
            path = Path(folder, name)
            try:
                yield path.relative_to(root), path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue


def addresses(root: Path) -> list[str]:
    """Absolute paths of somebody's machine, and addresses of package registries."""
    breaches = []
    for path, text in texts(root):
        for number, line in enumerate(text.splitlines(), 1):
            for pattern, what in ((PATHS_OF_A_MACHINE, "a path of one machine"), (REGISTRIES, "a package registry")):
                if found := pattern.search(line):
                    breaches.append(f"{path}:{number}: {found.group()} is {what}")
    return breaches


def unpickling(root: Path) -> list[str]:
    """What ruff finds of its rules against pickles, with the settings of the repository."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json", "--select=TID251,S301", "."]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr)
    return [f"{Path(found['filename']).name}: {found['message']}" for found in json.loads(done.stdout)]


# Runs in a fresh process. What transformers and torch do when they are imported is theirs: they come first.
_IMPORT = """
import inspect, json, logging, os, random, sys, types, warnings
from pathlib import Path
import numpy, torch, transformers
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoModelForTextRecognition, AutoProcessor,
    AutoTokenizer, ImageTextToTextPipeline, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizer, ProcessorMixin,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.pipelines import PIPELINE_REGISTRY

root, layers, at_once = json.loads(sys.argv[1])

def state():
    return {
        "environment": dict(os.environ),
        "warnings": list(map(repr, warnings.filters)),
        "log level": [logging.getLogger().level, transformers.logging.get_verbosity()],
        "log handlers": [repr(handler) for handler in logging.getLogger().handlers],
        "random state of Python": repr(random.getstate()),
        "random state of NumPy": repr(numpy.random.get_state()),
        "random state of torch": torch.get_rng_state().tolist(),
        "settings of torch": [torch.get_num_threads(), str(torch.get_default_dtype()), torch.is_grad_enabled()],
        "working directory": os.getcwd(),
        "packages of training": sorted({"accelerate", "datasets", "evaluate", "fontTools"} & set(sys.modules)),
    }

before = state()
import hf_ocr
after = state()

breaches = [f"importing hf_ocr changes: {name}" for name in before if before[name] != after[name]]
assert Path(hf_ocr.__file__).is_relative_to(root), hf_ocr.__file__
for name in sys.modules:
    unit = (name + ".").split(".")[1] if name.startswith("hf_ocr.") else None
    if layers.get(unit, 0) > at_once:
        breaches.append(f"importing hf_ocr loads {name}")

public = {n for n, v in vars(hf_ocr).items() if n[0] != "_" and not isinstance(v, types.ModuleType)}
for name in sorted(public ^ set(hf_ocr.__all__)):
    breaches.append(f"{name}: is {'public' if name in public else 'in __all__'} only")
if list(hf_ocr.__all__) != sorted(hf_ocr.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n)):
    breaches.append("__all__ is not sorted: constants, classes, functions")
for name in hf_ocr.__all__:
    value = getattr(hf_ocr, name, None)
    if not inspect.isclass(value) and not inspect.isfunction(value):
        continue
    inherited = value.__mro__[1].__doc__ if inspect.isclass(value) else None
    if not (value.__doc__ or "").strip() or value.__doc__ == inherited:
        breaches.append(f"{name}: has no docstring")
classes = [getattr(hf_ocr, name, None) for name in hf_ocr.__all__] + list(hf_ocr.MODEL_CLASSES)
for value in classes:
    if inspect.isclass(value) and value.__module__.startswith("hf_ocr"):
        source = Path(sys.modules[value.__module__].__file__).read_text(encoding="utf-8")
        if f"class {value.__name__}(" not in source and f"class {value.__name__}:" not in source:
            breaches.append(f"{value.__name__}: __module__ is {value.__module__}, whose file does not define it")
print(json.dumps(breaches))
"""


def public_breaches(root: Path) -> list[str]:
    """What `import hf_ocr` does or loads besides registering, and what is amiss with its public names."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, json.dumps([str(root.resolve()), LAYERS, IMPORTED_AT_ONCE])],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return [done.stderr.strip()]
    breaches: list[str] = json.loads(done.stdout.splitlines()[-1])
    return breaches
