"""Whether a folder reads for people who do not have this package: it is loaded in a process that has not.

This file is also the program of that process, so it imports nothing of the package.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from PIL import Image, ImageDraw, ImageFont

AUTO_CLASSES = (
    "AutoConfig",
    "AutoModel",
    "AutoTokenizer",
    "AutoImageProcessor",
    "AutoProcessor",
    "AutoModelForTextRecognition",
)
# This package and those of its extras: a published folder needs transformers, torch and what they bring.
HIDDEN = [
    "hf_ocr", "accelerate", "datasets", "evaluate", "fontTools", "matplotlib", "onnx", "onnxruntime", "peft", "pyarrow",
    "rapidfuzz", "rapidocr", "ray",
]  # fmt: skip
# Before anything else is imported: a module that is None raises ModuleNotFoundError.
PREAMBLE = "import runpy, sys; sys.modules.update(dict.fromkeys({})); runpy.run_path(sys.argv[1], run_name='__main__')"
SECONDS = 600


class StandaloneError(ValueError):
    """A folder that does not load without this package, or reads something else there."""


def check_standalone(folder: str | os.PathLike[str], images: Sequence[Any] | None = None) -> list[str]:
    """Read images with the folder's own code, in a process without this package, and here, and compare the texts.

    There the folder is loaded with `trust_remote_code=True`, through every Auto class and through
    `pipeline("image-to-text")`, offline; that runs the Python files in it.

    Args:
        folder: a checkpoint as `save_pretrained` writes it.
        images: paths or PIL images of lines; `example_lines()` when None.

    Returns:
        The texts, one an image.

    Raises:
        StandaloneError: it does not load here or there, an Auto class gives a class that is not the folder's own, or
            a text differs.
    """
    folder = Path(folder).resolve()
    with TemporaryDirectory() as place:
        paths = []
        for index, image in enumerate(example_lines() if images is None else images):
            path = Path(place, f"{index}.png")
            if isinstance(image, Image.Image):
                image.save(path)
            paths.append(str(path if isinstance(image, Image.Image) else Path(image).resolve()))
        try:
            here = _read(folder, paths, trust=False)
        except Exception as error:  # transformers raises of every kind
            raise StandaloneError(f"{folder}: does not load with hf_ocr. {' '.join(str(error).split())}") from error
        there = _run(folder, paths, Path(place))
    for name, module in there["modules"].items():
        if not module.startswith("transformers_modules."):
            raise StandaloneError(
                f"{folder}: without hf_ocr, {name} gives a class of {module}; expected one of the folder's own code. "
                "Write the folder again with `hf-ocr bundle`."
            )
    for way in ("pipeline", "recognize"):
        for name, text, expected in zip(paths, there[way], here[way], strict=True):
            if text != expected:
                raise StandaloneError(
                    f"{folder}: without hf_ocr ({way}) {Path(name).name} reads {text!r}; expected {expected!r}, as "
                    "with it. Are its Python files those of this version? Write it again with `hf-ocr bundle`."
                )
    texts: list[str] = here["pipeline"]
    return texts


def example_lines() -> list[Image.Image]:
    """Three printed lines of different widths, black on white."""
    font, images = ImageFont.load_default(32), []
    for text in ("Total 12.50", "Invoice 2024-0317", "The quick brown fox"):
        left, top, right, bottom = font.getbbox(text)
        image = Image.new("L", (round(right - left) + 24, round(bottom - top) + 16), 255)
        ImageDraw.Draw(image).text((12 - left, 8 - top), text, fill=0, font=font)
        images.append(image)
    return images


def _run(folder: Path, paths: list[str], place: Path) -> dict[str, Any]:
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(place / "modules"),
        "PYTHONIOENCODING": "utf-8",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),  # another split of a sum may round in another way
    }
    # -P: what lies in the working directory is not imported.
    command = [sys.executable, "-P", "-c", PREAMBLE.format(HIDDEN), __file__, str(folder), *paths]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", env=environment, cwd=place,
            stdin=subprocess.DEVNULL, timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StandaloneError(f"{folder}: does not load without hf_ocr within {SECONDS} s.") from None
    if done.returncode:
        raise StandaloneError(
            f"{folder}: does not load without hf_ocr. {' '.join(done.stderr.split())[-600:]} "
            "Write the folder again with `hf-ocr bundle`."
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _read(folder: Path, paths: list[str], trust: bool) -> dict[str, Any]:
    """{"modules": of the class that each Auto class and the pipeline give, "pipeline" and "recognize": their texts}."""
    parts = {
        name: getattr(transformers, name).from_pretrained(folder, trust_remote_code=trust) for name in AUTO_CLASSES
    }
    processor, model = parts["AutoProcessor"], parts["AutoModelForTextRecognition"].float().eval()
    recognized = []
    for path in paths:
        with torch.no_grad():
            inputs = processor(images=[path], return_tensors="pt")
            recognized += processor.batch_decode(model.recognize(**inputs).sequences)
    read = transformers.pipeline(
        "image-to-text", model=str(folder), trust_remote_code=trust, dtype=torch.float32, device="cpu"
    )
    return {
        "modules": {name: type(part).__module__ for name, part in {**parts, "pipeline": read}.items()},
        "pipeline": [result["generated_text"] for (result,) in read(paths)],
        "recognize": recognized,
    }


def main() -> None:
    """The other process: its last line of output is JSON."""
    print(json.dumps(_read(Path(sys.argv[2]), sys.argv[3:], trust=True)))  # noqa: T201


if __name__ == "__main__":
    main()
