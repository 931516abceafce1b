"""A saved folder reads in a process that does not have the package."""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tiny_recognizer import lines, tiny_recognizer
from transformers import AutoModelForTextRecognition, AutoProcessor, MgpstrConfig, PPOCRV5MobileRecConfig, pipeline

from hf_ocr.bundle import bundle_checkpoint, licence_of, save_bundle
from hf_ocr.card import render_card, try_usage
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.record import RunRecord, Usage, fingerprint
from hf_ocr.registration import default_checkpoint

ROOT = Path(__file__).parents[1]

WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["hf_ocr"] = None
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (AutoConfig, AutoImageProcessor, AutoModel, AutoModelForTextRecognition, AutoProcessor,
                          AutoTokenizer, pipeline)

folder, images, out = sys.argv[1], sys.argv[2:-1], sys.argv[-1]
autos = (AutoConfig, AutoModel, AutoModelForTextRecognition, AutoProcessor, AutoTokenizer, AutoImageProcessor)
parts = {auto.__name__: auto.from_pretrained(folder, trust_remote_code=True) for auto in autos}
inputs = parts["AutoProcessor"](images=images, return_tensors="pt")
with torch.no_grad():
    logits = parts["AutoModelForTextRecognition"](**inputs).logits
save_file({"logits": logits.contiguous()}, out + "/logits.safetensors")
read = pipeline("image-to-text", model=folder, trust_remote_code=True, dtype=torch.float32, device="cpu")
by_itself = pipeline(model=folder, trust_remote_code=True, dtype=torch.float32, device="cpu")
results = read(images, return_scores=True, return_boxes="char")
assert results == by_itself(images, return_scores=True, return_boxes="char")
ids = parts["AutoTokenizer"]("abc")["input_ids"]
parts["AutoModelForTextRecognition"].save_pretrained(out + "/model_and_processor")
parts["AutoProcessor"].save_pretrained(out + "/model_and_processor")
read.save_pretrained(out + "/pipeline")
print(json.dumps({
    "classes": {name: type(part).__module__ for name, part in {**parts, "pipeline": read}.items()},
    "results": results,
    "ids": ids,
}))
"""


def run(program, *arguments, cache):
    """In a process of its own, offline, without any path to the package."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True, text=True, env=environment, cwd=cache, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for index, image in enumerate(lines(4)):
        paths.append(folder / f"{index}.png")
        image.save(paths[-1])
    return [str(path) for path in paths]


@pytest.mark.slow
def test_a_saved_folder_reads_without_the_package_and_so_does_what_is_saved_from_there(images, tmp_path):
    model, processor = tiny_recognizer()
    folder, cache, out = tmp_path / "folder", tmp_path / "cache", tmp_path / "out"
    cache.mkdir()
    out.mkdir()
    read = pipeline("image-to-text", model=model, processor=processor, device="cpu", dtype=torch.float32)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)

    found = run(WITHOUT_THE_PACKAGE, folder, *images, out, cache=cache)

    assert all(module.startswith("transformers_modules.") for module in found["classes"].values()), found["classes"]
    assert found["results"] == json.loads(json.dumps(read(images, return_scores=True, return_boxes="char")))
    assert found["ids"] == processor.tokenizer("abc")["input_ids"]
    with torch.no_grad():
        logits = model(**processor(images=images, return_tensors="pt")).logits
    assert torch.equal(load_file(out / "logits.safetensors")["logits"], logits)
    for again in ("model_and_processor", "pipeline"):
        (out / again / "again").mkdir()
        second = run(WITHOUT_THE_PACKAGE, out / again, *images, out / again / "again", cache=cache)
        assert second["results"] == found["results"]


def test_all_three_ways_of_saving_write_the_same_folder(tmp_path):
    model, processor = tiny_recognizer()
    model.save_pretrained(tmp_path / "save_pretrained")
    processor.save_pretrained(tmp_path / "save_pretrained")
    save_bundle(model, processor, tmp_path / "save_bundle")
    pipeline("image-to-text", model=model, processor=processor).save_pretrained(tmp_path / "pipeline")
    folders = [
        {path.name: path.read_bytes() for path in (tmp_path / way).iterdir()}
        for way in ("save_pretrained", "save_bundle", "pipeline")
    ]
    for folder in folders:  # transformers adds one more entry to the image processor's auto_map the second time
        settings = json.loads(folder.pop("preprocessor_config.json"))
        assert settings.pop("auto_map")["AutoImageProcessor"] == "image_processing_text_line.TextLineImageProcessor"
        assert settings["height"] == 32
    assert folders[0] == folders[1] == folders[2]
    assert {"config.json", "model.safetensors", "vocab.json", "processor_config.json"} < folders[0].keys()


def test_with_the_package_the_folder_needs_no_trust_and_asks_for_none(images, tmp_path):
    model, processor = tiny_recognizer()
    save_bundle(model, processor, tmp_path / "folder")
    program = """
import json, sys
import hf_ocr
from transformers import pipeline
texts = []
for trust in (None, False):
    read = pipeline("image-to-text", model=sys.argv[1], trust_remote_code=trust)
    assert type(read).__module__ == "hf_ocr.models.pipeline_text_recognition"
    assert type(read.model).__module__ == "hf_ocr.models.modeling_crnn"
    texts.append(read(sys.argv[2:]))
assert texts[0] == texts[1]
print(json.dumps(texts[0]))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "folder"), *images],
        capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(json.loads(done.stdout)) == len(images)
    assert not (tmp_path / "cache").exists()


def test_saving_leaves_the_model_as_it_was(tmp_path):
    model, processor = tiny_recognizer()
    save_bundle(model, processor, tmp_path)
    assert not hasattr(model.config, "custom_pipelines")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["custom_pipelines"] == {
        "image-to-text": {
            "impl": "pipeline_text_recognition.TextRecognitionPipeline",
            "pt": ["AutoModelForTextRecognition"],
            "type": "multimodal",
        }
    }
    assert saved["auto_map"] == {
        "AutoConfig": "configuration_crnn.CrnnConfig",
        "AutoModel": "modeling_crnn.CrnnModel",
        "AutoModelForTextRecognition": "modeling_crnn.CrnnForTextRecognition",
    }
    assert str(tmp_path) not in "".join(path.read_text() for path in tmp_path.glob("*.json"))
    # an object with its own configuration needs no trust either
    parts = {"tokenizer": processor.tokenizer, "image_processor": processor.image_processor}
    assert pipeline("image-to-text", model=model, config=model.config, **parts)(lines(1))


def test_half_the_bytes_load_in_the_models_own_type(images, tmp_path):
    model, processor = tiny_recognizer()
    save_bundle(model, processor, tmp_path / "whole")
    save_bundle(model, processor, tmp_path / "half", weights_dtype=torch.float16)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.7 * sizes[1]
    assert model.dtype == torch.float32
    again = AutoModelForTextRecognition.from_pretrained(tmp_path / "half")
    assert again.dtype == torch.float32
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=1e-2, rtol=1e-3)


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path):
    model, processor = tiny_recognizer()
    with torch.no_grad():
        model.classifier.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"float16 cannot hold classifier\.bias"):
        save_bundle(model, processor, tmp_path, weights_dtype=torch.float16)


def test_an_alphabet_that_does_not_fit_is_refused(tmp_path):
    model, processor = tiny_recognizer()
    other = TextRecognitionProcessor(processor.image_processor, CharacterTokenizer.from_alphabet("abc"))
    with pytest.raises(ValueError, match="4 symbols in the tokenizer, 22 outputs in the head"):
        save_bundle(model, other, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_bare_model_is_saved_without_a_pipeline_it_could_not_serve(tmp_path):
    model, processor = tiny_recognizer()
    model.crnn.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"]["AutoModel"] == "modeling_crnn.CrnnModel"
    assert "custom_pipelines" not in saved
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), TextRecognitionProcessor)


# --- a folder to publish


@pytest.fixture
def checkpoint(tmp_path):
    """As training leaves it: OUTPUT/best."""
    return save_bundle(*tiny_recognizer(), tmp_path / "output" / "best", weights_dtype=torch.float16)


def record_of(checkpoint, name, description):
    weights = fingerprint(checkpoint / "model.safetensors")
    return RunRecord(name=name, description=description, model={"family": "crnn"}, weights=(weights,))


@pytest.mark.slow
def test_a_folder_to_publish_holds_the_checkpoint_as_it_is_stored_and_what_serves_it(checkpoint, tmp_path):
    folder = bundle_checkpoint(checkpoint, tmp_path / "published")
    for path in checkpoint.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name
    others = {path.name for path in folder.iterdir()} - {path.name for path in checkpoint.iterdir()}
    assert others == {"README.md", "app.py", "handler.py", "requirements.txt", "examples"}
    assert len(list((folder / "examples").glob("*.png"))) == 3
    assert bundle_checkpoint(checkpoint, folder) == folder


@pytest.mark.slow
def test_of_the_folder_only_weights_of_the_same_names_go_and_licences_come(checkpoint, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    gone, kept = ["model-00001-of-00002.safetensors", "model.safetensors.index.json"], ["model-v1.safetensors", "notes"]
    for name in (*gone, *kept):
        (folder / name).write_bytes(b"mine")
    (checkpoint / "model_old.safetensors").write_bytes(b"another's")
    (checkpoint / "LICENSE").write_bytes(b"as it is\r\n")
    (checkpoint / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n")
    bundle_checkpoint(checkpoint, folder)
    assert not any((folder / name).exists() for name in (*gone, "model_old.safetensors"))
    assert all((folder / name).read_bytes() == b"mine" for name in kept)
    assert (folder / "LICENSE").read_bytes() == b"as it is\r\n"
    assert ModelCard.load(folder / "README.md").data.license == "bsd-3-clause"


@pytest.mark.parametrize("card", [None, "no metadata", "---\nlicense: [a\n---\n", "---\nlicense:\n- mit\n---\n"])
def test_a_licence_that_nobody_names_is_unknown(tmp_path, card):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) == "unknown"
    assert licence_of(default_checkpoint()) == "apache-2.0"


@pytest.mark.slow
def test_without_a_record_the_card_gives_no_figures(checkpoint, tmp_path):
    card = ModelCard.load(
        bundle_checkpoint(checkpoint, tmp_path / "published") / "README.md", ignore_metadata_errors=False
    )
    assert card.data.license == "unknown" and card.data.eval_results is None
    assert card.data.model_name == "published" and card.data.pipeline_tag == "image-to-text"
    assert "No record of its training is at hand" in card.text and "## Results" not in card.text
    assert str(tmp_path) not in str(card)


@pytest.mark.slow
def test_the_card_is_that_of_the_record_of_these_weights_alone(checkpoint, tmp_path):
    other = save_bundle(*tiny_recognizer(seed=1), tmp_path / "other")
    record_of(other, "a-later-run", "Of other weights.").save(checkpoint.parent)
    (checkpoint.parent / "aside.json").write_text("[]")
    ours = record_of(checkpoint, "b-this-run", "Of these weights.").save(checkpoint.parent)
    card = (bundle_checkpoint(checkpoint, tmp_path / "published") / "README.md").read_text()
    assert "Of these weights." in card and without_use(card) == without_use(str(render_card(RunRecord.load(ours))))
    named = replace(record_of(checkpoint, "named", "Given by name."), pictures={"curves.png": "curves"})
    (tmp_path / "curves.png").write_bytes(b"curves")
    folder = bundle_checkpoint(checkpoint, tmp_path / "2", named.save(tmp_path))
    assert "Given by name." in (folder / "README.md").read_text()
    assert (folder / "curves.png").read_bytes() == b"curves"
    with pytest.raises(ValueError, match="is the record of other weights"):
        bundle_checkpoint(checkpoint, tmp_path / "3", checkpoint.parent / "a-later-run.json")
    assert not (tmp_path / "3").exists()


def without_use(card):
    return re.sub(r"\n## Use\n.*?(?=\n## )", "", card, flags=re.DOTALL)


@pytest.mark.slow
def test_the_lines_of_the_card_run_beside_the_folder_and_print_what_it_says(checkpoint, tmp_path):
    of_training = replace(
        record_of(checkpoint, "lines", "Lines."), load_as="output/best", usage=Usage("output/sample.png", "a sample")
    )
    of_training.save(checkpoint.parent)
    folder = bundle_checkpoint(checkpoint, tmp_path / "to publish" / "mine")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "output/" not in card and "a sample" not in card
    with_package, without = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert with_package.startswith("import hf_ocr\n") and "hf_ocr" not in without
    (shown,) = re.findall(r"both printed\n\n~~~~text\n(.*?\n)~~~~", card, re.DOTALL)
    read = pipeline("image-to-text", model=str(checkpoint))
    assert shown == f"{read(str(folder / 'examples' / 'line-1.png'))}\n"
    for code in (with_package, f"import sys; sys.modules['hf_ocr'] = None\n{without}"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True, check=False,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout == shown
    code = folder / "pipeline_text_recognition.py"
    code.write_text(code.read_text().replace("reading.text[:longest].rstrip()", "reading.text[:1]"))
    with pytest.raises(RuntimeError, match=r"with hf_ocr, without it .* expected the same text"):
        try_usage(replace(of_training, load_as="mine"), "mine/examples/line-1.png", folder.parent, standalone=True)


def test_the_checkpoint_itself_is_not_written_over(checkpoint):
    with pytest.raises(ValueError, match="is the checkpoint itself"):
        bundle_checkpoint(checkpoint, checkpoint.parent / "best")


@pytest.mark.parametrize("config", [MgpstrConfig(), PPOCRV5MobileRecConfig()])
def test_what_is_no_recognizer_of_ours_is_refused_by_name(config, tmp_path):
    config.save_pretrained(tmp_path / "stock")
    with pytest.raises(ValueError, match=f"is a {config.model_type} of transformers. Expected a recognizer of hf_ocr"):
        bundle_checkpoint(tmp_path / "stock", tmp_path / "bundle")


def test_what_serving_needs_is_what_the_package_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = (ROOT / "hf_ocr" / "serving" / "requirements.txt").read_text().split()
    assert requirements and set(requirements) <= set(project["dependencies"])
