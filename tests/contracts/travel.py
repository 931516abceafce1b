"""Contract: a saved folder reads in a process that does not have the package, and so does what is saved from there."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from contracts.persistence import saved
from contracts.tiny_configs import tiny_batch, tiny_lines, tiny_model, tiny_processor
from safetensors.torch import load_file, save_file
from transformers import pipeline

from hf_ocr.bundle import bundle_checkpoint
from hf_ocr.standalone import check_standalone

WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["hf_ocr"] = None
import torch
from safetensors.torch import load_file, save_file
from transformers import (AutoConfig, AutoImageProcessor, AutoModel, AutoModelForTextRecognition, AutoProcessor,
                          AutoTokenizer, pipeline)

folder, inputs, images, out, again = sys.argv[1:]
autos = (AutoConfig, AutoModel, AutoTokenizer, AutoImageProcessor, AutoModelForTextRecognition, AutoProcessor)
parts = [auto.from_pretrained(folder, trust_remote_code=True) for auto in autos]
read = pipeline("image-to-text", model=folder, trust_remote_code=True, dtype=torch.float32, device="cpu")
*_, model, processor = parts
with torch.no_grad():
    save_file({"logits": model(**load_file(inputs)).logits.contiguous()}, out)
model.save_pretrained(again)
processor.save_pretrained(again)
print(json.dumps({
    "modules": [type(part).__module__ for part in (*parts, read)],
    "results": read(json.loads(images), return_scores=True),
}))
"""


def a_folder_travels_without_the_package(model_class: Any) -> None:
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    inputs = tiny_batch(model_class)
    with torch.no_grad():
        logits = model(**inputs).logits
    read = pipeline("image-to-text", model=model, processor=processor, dtype=torch.float32, device="cpu")
    expected = read(tiny_lines(), return_scores=True)
    with saved(model, processor) as folder, TemporaryDirectory() as name:
        place = Path(name)
        save_file(inputs, place / "inputs.safetensors")
        images = []
        for index, image in enumerate(tiny_lines()):
            images.append(str(place / f"{index}.png"))
            image.save(images[-1])
        files = {path.name for path in folder.iterdir()}
        for turn, source in enumerate((folder, place / "again-0")):
            out, again = place / f"logits-{turn}.safetensors", place / f"again-{turn}"
            found = _run(place, source, place / "inputs.safetensors", json.dumps(images), out, again)
            where = "the saved folder" if turn == 0 else "what was saved from there"
            assert all(module.startswith("transformers_modules.") for module in found["modules"]), found["modules"]
            # Where a tensor happens to lie decides which kernel some processors take, and so the last bits.
            near = torch.allclose(load_file(out)["logits"], logits, rtol=1e-5, atol=1e-5)
            assert near, f"{where} gives other logits without the package"
            for (there,), (here,) in zip(found["results"], expected, strict=True):
                score = there.pop("score")
                assert math.isclose(score, here["score"], rel_tol=1e-4), f"{where} is of another opinion"
                assert there | {"score": here["score"]} == here, f"{where} reads something else without the package"
            missing = files - {path.name for path in again.iterdir()}
            assert not missing, f"saving from {where} leaves out {sorted(missing)}"


def _run(cache: Path, *arguments: Any) -> dict[str, Any]:
    """The program in a process of its own, offline, without any path to the package."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(cache / "modules"),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),  # another split of a sum may round in another way
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, *map(str, arguments)],
        capture_output=True, text=True, env=environment, cwd=cache, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"the folder does not load without the package: {done.stderr[-3000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def a_published_folder_stands_alone(model_class: Any) -> None:
    with saved(tiny_model(model_class), tiny_processor(model_class)) as folder, TemporaryDirectory() as name:
        published = bundle_checkpoint(folder, Path(name, "published"))
        assert load_file(published / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()
        assert {path.name for path in folder.iterdir()} < {path.name for path in published.iterdir()}
        check_standalone(published, tiny_lines())


CONTRACTS = (a_folder_travels_without_the_package, a_published_folder_stands_alone)
