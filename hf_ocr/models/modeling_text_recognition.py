"""The base class of every recognizer: what `save_pretrained` must write so that a checkpoint reads without the package."""

import os
from typing import Any

from transformers import PreTrainedModel

from .pipeline_text_recognition import TextRecognitionPipeline


class TextRecognitionPreTrainedModel(PreTrainedModel):
    """Base of all model classes here; saving it writes a folder that transformers alone can load and run.

    transformers copies the files of the model class beside the weights and writes the `auto_map` entry of that one
    class. Two things are added here, and the import of the pipeline below makes the copy include its files: the entry
    of the bare model (`AutoModel`), and `custom_pipelines`, by which `pipeline("image-to-text", model=folder,
    trust_remote_code=True)` finds the pipeline class in a process that has never heard of the package.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save as `PreTrainedModel.save_pretrained` does (same arguments), with the whole of the code beside it."""
        base = type(self.base_model)
        auto_map = getattr(self.config, "auto_map", None) or {}
        self.config.auto_map = {**auto_map, "AutoModel": f"{base.__module__.split('.')[-1]}.{base.__name__}"}
        if not hasattr(self, "recognize"):
            super().save_pretrained(save_directory, *args, **kwargs)
            return

        before = getattr(self.config, "custom_pipelines", None)
        # A task listed here is taken before transformers rewrites "image-to-text". One task only: with two,
        # `pipeline(model=folder)` could not tell which is meant.
        self.config.custom_pipelines = {
            "image-to-text": {
                "impl": f"{TextRecognitionPipeline.__module__.split('.')[-1]}.{TextRecognitionPipeline.__name__}",
                "pt": ["AutoModelForTextRecognition"],
                "type": "multimodal",
            }
        }
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            # The file must name it; the live configuration stays what it was, or `pipeline("image-to-text",
            # config=model.config)` would ask to trust code that is already here.
            if before is None:
                del self.config.custom_pipelines
            else:
                self.config.custom_pipelines = before
