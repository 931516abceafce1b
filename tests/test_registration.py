"""What `import hf_ocr` tells transformers, and which pipeline answers to which model."""

import json
import subprocess
import sys
import warnings

import pytest
import transformers.pipelines
from tiny_recognizer import lines, tiny_recognizer
from tiny_stock_models import tiny_chat_model, tiny_trocr
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForTextRecognition,
    AutoProcessor,
    AutoTokenizer,
    ImageTextToTextPipeline,
    pipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY

import hf_ocr
from hf_ocr import registration
from hf_ocr.models.pipeline_text_recognition import TextRecognitionPipeline

REWRITER = registration.REWRITER
rewrites = pytest.mark.skipif(
    not hasattr(transformers.pipelines, REWRITER), reason="transformers 5.18 does not rewrite names of tasks"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model, processor = tiny_recognizer()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def registry():
    """transformers' tables as they are, put back at the end."""
    tasks = {task: dict(entry) for task, entry in PIPELINE_REGISTRY.supported_tasks.items()}
    rewriter = getattr(transformers.pipelines, REWRITER, None)
    yield
    PIPELINE_REGISTRY.supported_tasks.clear()
    PIPELINE_REGISTRY.supported_tasks.update(tasks)
    if rewriter is not None:
        transformers.pipelines._resolve_deprecated_task = rewriter


def test_every_auto_class_finds_the_classes_of_the_package(folder):
    model_class = hf_ocr.CrnnForTextRecognition
    for auto_class, expected in (
        (AutoConfig, hf_ocr.CrnnConfig),
        (AutoModel, hf_ocr.CrnnModel),
        (AutoModelForTextRecognition, model_class),
        (AutoTokenizer, hf_ocr.CharacterTokenizer),
        (AutoImageProcessor, hf_ocr.TextLineImageProcessor),
        (AutoProcessor, hf_ocr.TextRecognitionProcessor),
    ):
        assert type(auto_class.from_pretrained(folder)) is expected
        assert type(auto_class.from_pretrained(folder, trust_remote_code=False)) is expected


@pytest.mark.parametrize("task", ["image-to-text", "text-recognition"])
def test_both_tasks_read_a_folder_and_a_model(task, folder):
    read = pipeline(task, model=str(folder))
    assert type(read) is TextRecognitionPipeline
    assert read.task == task
    model, processor = tiny_recognizer()
    images = lines(3)
    texts = [result[0]["generated_text"] for result in read(images)]
    assert texts == [result[0]["generated_text"] for result in pipeline(task, model=model, processor=processor)(images)]
    assert len(set(texts)) == 3


@pytest.mark.parametrize("task", ["image-to-text", "text-recognition"])
def test_without_a_model_the_packaged_checkpoint_reads(task, folder, registry, monkeypatch):
    assert registration.default_checkpoint().parent.parent.name == "hf_ocr"
    assert registration.default_checkpoint().name == "crnn-small-latin"
    assert PIPELINE_REGISTRY.supported_tasks[task]["default"]["model"] == (str(registration.default_checkpoint()), None)
    monkeypatch.setattr(registration, "default_checkpoint", lambda: folder)
    registration.register()
    assert pipeline(task)(lines(3)) == pipeline(task, model=str(folder))(lines(3))


def test_a_stock_encoder_decoder_reads_through_image_to_text(tmp_path):
    read = pipeline("image-to-text", model=str(tiny_trocr(tmp_path, lines(2), ["ab", "c"])))
    assert type(read) is TextRecognitionPipeline
    assert read(lines(1)[0]) == [{"generated_text": "ab"}]


def test_a_model_with_a_chat_template_keeps_the_stock_pipeline(tmp_path):
    chat = pipeline("image-to-text", model=str(tiny_chat_model(tmp_path)))
    assert type(chat) is ImageTextToTextPipeline
    assert chat.task == "image-text-to-text"
    parts = [{"type": "image", "image": lines(1)[0].convert("RGB")}, {"type": "text", "text": "read"}]
    (answer,) = chat(text=[{"role": "user", "content": parts}], max_new_tokens=2)
    assert answer["generated_text"][-1]["role"] == "assistant"
    objects = pipeline("image-to-text", model=chat.model, processor=chat.processor)
    assert type(objects) is ImageTextToTextPipeline


@rewrites
def test_other_tasks_are_left_to_transformers(registry):
    rewriter = transformers.pipelines._resolve_deprecated_task
    assert rewriter("image-to-text") == "image-to-text"
    assert rewriter("image-text-to-text") == "image-text-to-text"
    with pytest.raises(KeyError, match="visual-question-answering"):
        rewriter("visual-question-answering")


def test_registering_again_changes_nothing(registry):
    rewriter = getattr(transformers.pipelines, REWRITER, None)
    tasks = dict(PIPELINE_REGISTRY.supported_tasks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registration.register()
    assert getattr(transformers.pipelines, REWRITER, None) is rewriter
    assert tasks == PIPELINE_REGISTRY.supported_tasks


def test_where_the_function_is_missing_the_task_is_looked_up_as_it_is(folder, registry, monkeypatch):
    # as in transformers 5.18: no such function, and the registry is asked at once
    monkeypatch.delattr(transformers.pipelines, REWRITER, raising=False)
    monkeypatch.setattr(transformers.pipelines, "check_task", PIPELINE_REGISTRY.check_task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registration.register()
    assert not hasattr(transformers.pipelines, REWRITER)


@pytest.mark.parametrize("way", ["another function", "another result"])
def test_where_transformers_rewrites_in_another_way_the_other_task_is_named(way, folder, registry, monkeypatch):
    if way == "another function":
        monkeypatch.delattr(transformers.pipelines, REWRITER, raising=False)

        def check_task(task):
            return PIPELINE_REGISTRY.check_task("image-text-to-text" if task == "image-to-text" else task)

    else:

        def resolve(task):
            return ("image-text-to-text" if task == "image-to-text" else task, "a second value")

        def check_task(task):
            task, _ = transformers.pipelines._resolve_deprecated_task(task)
            return PIPELINE_REGISTRY.check_task(task)

        monkeypatch.setattr(transformers.pipelines, REWRITER, resolve, raising=False)
    monkeypatch.setattr(transformers.pipelines, "check_task", check_task)
    with pytest.warns(UserWarning, match=r'Use pipeline\("text-recognition"\)'):
        registration.register()
    if way == "another result":
        assert transformers.pipelines._resolve_deprecated_task is resolve
        return
    monkeypatch.setattr(transformers.pipelines, "_resolve_deprecated_task", lambda task: task, raising=False)
    assert type(pipeline("text-recognition", model=str(folder))) is TextRecognitionPipeline


def test_the_order_of_imports_does_not_matter_and_the_import_is_quiet(folder):
    program = """
import json, sys
from transformers import pipeline
import hf_ocr
from PIL import Image
read = pipeline("image-to-text", model=sys.argv[1])
print(json.dumps([type(read).__module__, read(Image.new("L", (99, 30), 255))[0]["generated_text"]]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program, str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    module, text = json.loads(done.stdout)
    assert module == "hf_ocr.models.pipeline_text_recognition"
    assert isinstance(text, str)
    assert "Logging error" not in done.stderr and "Traceback" not in done.stderr


def test_a_checkpoint_of_the_package_is_known_by_its_name():
    assert registration.checkpoint("crnn-small-latin") == str(registration.default_checkpoint())
    with pytest.raises(ValueError, match=r"'crnn-large' is in the package, expected one of .*crnn-small-latin"):
        registration.checkpoint("crnn-large")


def test_a_folder_here_goes_before_one_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert registration.find_checkpoint("crnn-small-latin") == str(registration.default_checkpoint())
    assert registration.find_checkpoint("someone/crnn-small-latin") == "someone/crnn-small-latin"
    (tmp_path / "crnn-small-latin").mkdir()
    assert registration.find_checkpoint("crnn-small-latin") == "crnn-small-latin"
