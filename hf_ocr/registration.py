"""Makes every class of the package known to transformers; `import hf_ocr` calls `register()` once."""

import os
import sys
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import transformers.pipelines
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForTextRecognition,
    AutoProcessor,
    AutoTokenizer,
    ImageTextToTextPipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY

from hf_ocr.models import MODEL_CLASSES
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.pipeline_text_recognition import TextRecognitionPipeline
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer

DEFAULT_CHECKPOINT = "crnn-small-latin"
REWRITER = "_resolve_deprecated_task"


class ImageToTextPipeline:
    """What `pipeline("image-to-text")` builds: a choice, made when the model is loaded, never an instance of this.

    - Recognizers with `recognize`, encoder-decoders (TrOCR, Donut) and MGP-STR: `TextRecognitionPipeline`.
    - Models whose tokenizer or processor has a chat template (vision-language models): the stock
      `ImageTextToTextPipeline`, to which transformers 5 itself would send the task.
    - Any other model: `TextRecognitionPipeline`, which reads with what can generate and refuses the rest by name.
    """

    # All optional: a chat model needs its processor, a recognizer its tokenizer and image processor.
    _load_tokenizer = None
    _load_image_processor = None
    _load_processor = None
    _load_feature_extractor = False
    _load_video_processor = False

    def __new__(cls, model: Any, task: str, **kwargs: Any) -> Any:
        """The pipeline for this model."""
        parts = (kwargs.get("processor"), kwargs.get("tokenizer"))
        chats = any(getattr(part, "chat_template", None) is not None for part in parts)
        encoder_decoder = model.config.is_encoder_decoder or model.config.model_type == "vision-encoder-decoder"
        if chats and not encoder_decoder and not hasattr(model, "recognize"):
            return ImageTextToTextPipeline(model=model, task="image-text-to-text", **kwargs)
        return TextRecognitionPipeline(model=model, task=task, **kwargs)


def register() -> None:
    """Register models, processors and pipelines with transformers. Calling it again changes nothing.

    After it, the Auto classes know every configuration of `MODEL_CLASSES`, saved checkpoints carry their code, and
    `pipeline("text-recognition")` and `pipeline("image-to-text")` read, without `model=` with the checkpoint inside
    the package.
    """
    for model_class in MODEL_CLASSES:
        config_class = model_class.config_class
        base_class = _base_class(model_class)
        AutoConfig.register(config_class.model_type, config_class)
        AutoModel.register(config_class, base_class)
        AutoModelForTextRecognition.register(config_class, model_class)
        AutoTokenizer.register(config_class, tokenizer_class=CharacterTokenizer)
        AutoImageProcessor.register(config_class, image_processor_classes={"pil": TextLineImageProcessor})
        AutoProcessor.register(config_class, TextRecognitionProcessor)
        config_class.register_for_auto_class()
        base_class.register_for_auto_class("AutoModel")
        model_class.register_for_auto_class("AutoModelForTextRecognition")
    for part in (CharacterTokenizer, TextLineImageProcessor, TextRecognitionProcessor):
        part.register_for_auto_class()
    _register_pipelines()


def default_checkpoint() -> Path:
    """The folder of the checkpoint that `pipeline("image-to-text")` reads with."""
    return Path(str(resources.files("hf_ocr") / "checkpoints" / DEFAULT_CHECKPOINT))


def shipped_checkpoints() -> list[Path]:
    """The folders of the checkpoints inside the package."""
    return sorted(config.parent for config in default_checkpoint().parent.glob("*/config.json"))


def checkpoint(name: str) -> str:
    """The folder of a checkpoint inside the package, as `model=` takes it.

    Args:
        name: as "attention-ocr-small-latin".

    Raises:
        ValueError: there is none of this name.
    """
    folders = {folder.name: str(folder) for folder in shipped_checkpoints()}
    if name not in folders:
        raise ValueError(f"no checkpoint {name!r} is in the package, expected one of {', '.join(folders)}.")
    return folders[name]


def find_checkpoint(name: str | os.PathLike[str]) -> str:
    """What a user names: a folder here; else the one of that name in the package; else a name on the Hub, as it is."""
    shipped = {folder.name: str(folder) for folder in shipped_checkpoints()}
    return os.fspath(name) if Path(name).exists() else shipped.get(os.fspath(name), os.fspath(name))


def _base_class(model_class: Any) -> Any:
    """The bare model of a family: the class its head builds on, from the same module."""
    name = model_class.__name__.removesuffix("ForTextRecognition") + "Model"
    return getattr(sys.modules[model_class.__module__], name)


def _register_pipelines() -> None:
    # The entries are written as transformers writes its own. `register_pipeline` would attach them to the class, and
    # then saving a pipeline would publish the path of the default checkpoint on this machine.
    default = {"model": (str(default_checkpoint()), None)}
    recognizers = (AutoModelForTextRecognition, AutoModelForImageTextToText)
    for task, implementation in (("text-recognition", TextRecognitionPipeline), ("image-to-text", ImageToTextPipeline)):
        PIPELINE_REGISTRY.supported_tasks[task] = {
            "impl": implementation,
            "pt": recognizers,
            "default": default,
            "type": "multimodal",
        }
    _keep_image_to_text()


def _keep_image_to_text() -> None:
    """Let transformers look "image-to-text" up among the registered pipelines.

    transformers 5.19 and later turn the name into "image-text-to-text" before they look, in one private function.
    That function is wrapped, for this one name; older versions have none and need nothing. Where another version
    does it in another way, the import goes on, and the warning names the task that reads all the same.
    """
    rewrite = getattr(transformers.pipelines, REWRITER, None)
    if callable(rewrite) and not hasattr(rewrite, "keeps_image_to_text"):

        def keep_image_to_text(task: Any, *args: Any, **kwargs: Any) -> Any:
            return task if task == "image-to-text" else rewrite(task, *args, **kwargs)

        keep_image_to_text.keeps_image_to_text = True  # type: ignore[attr-defined]
        setattr(transformers.pipelines, REWRITER, keep_image_to_text)
    try:
        entry = transformers.pipelines.check_task("image-to-text")[1]
    except Exception:
        entry = None
    if entry is not PIPELINE_REGISTRY.supported_tasks["image-to-text"]:
        if callable(rewrite):
            setattr(transformers.pipelines, REWRITER, rewrite)
        warnings.warn(
            f'transformers {transformers.__version__} does not let a package offer the task "image-to-text". Use '
            'pipeline("text-recognition"), which takes the same models, arguments and images.',
            stacklevel=3,
        )
