"""The base class of every recognizer: what is saved beside the weights, and what is said when loading fails."""

import copy
import os
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import PreTrainedModel

from .pipeline_text_recognition import TextRecognitionPipeline

MOST_SYMBOLS = 1024  # a frame each of a line of 4096 px, the widest that is read, at 4 px a frame


class CheckpointError(Exception):
    """A checkpoint that cannot be loaded as it is: names the folder, what was found and the cure.

    Not a ValueError, OSError or RuntimeError: `transformers.pipeline` catches those while it loads, tries again in
    other ways, and buries the first message under the last.
    """


class TextRecognitionPreTrainedModel(PreTrainedModel):
    """Base of all model classes here; saving it writes a folder that transformers alone can load and run.

    transformers copies the files of the model class beside the weights and writes the `auto_map` entry of that one
    class. Two things are added here, and the import of the pipeline below makes the copy include its files: the entry
    of the bare model (`AutoModel`), and `custom_pipelines`, by which `pipeline("image-to-text", model=folder,
    trust_remote_code=True)` finds the pipeline class in a process that has never heard of the package.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as `PreTrainedModel.from_pretrained` does (same arguments).

        Raises:
            CheckpointError: a folder without weights, damaged weights, or weights that do not fit the configuration.
        """
        name = pretrained_model_name_or_path
        plain = not any(kwargs.get(key) for key in ("subfolder", "variant", "gguf_file"))
        if plain and name is not None and Path(name).is_dir():
            if not any(any(Path(name).glob(pattern)) for pattern in ("*.safetensors", "*.safetensors.index.json")):
                raise CheckpointError(
                    f"{name}: has no weights, expected model.safetensors. Copy or download the checkpoint again, whole."
                )
        try:
            return super().from_pretrained(name, *args, **kwargs)
        except Exception as error:
            if type(error).__name__ == "SafetensorError":
                raise CheckpointError(
                    f"{name}: the weights are damaged ({error}). Copy or download the checkpoint again, whole."
                ) from error
            if "ignore_mismatched_sizes" in str(error):
                raise CheckpointError(
                    f"{name}: the weights do not fit config.json (the shapes are listed above). Take both from the "
                    "same checkpoint; to begin with a new head, pass ignore_mismatched_sizes=True."
                ) from error
            raise

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

    def get_input_embeddings(self) -> None:
        """None: no layer takes a text first. accelerate's FSDP asks, and PreTrainedModel itself would raise."""

    def reading_copy(self, dtype: torch.dtype) -> Self:
        """A copy for reading only: batch norms folded into the convolutions, eval mode, weights in `dtype`."""
        reader = copy.deepcopy(self).eval()
        for layer in reader.modules():
            for name in ("norm", "normalization"):
                norm = getattr(layer, name, None)
                if isinstance(norm, nn.BatchNorm2d):
                    layer.convolution = fuse_conv_bn_eval(layer.convolution, norm)
                    setattr(layer, name, nn.Identity())
        # The layout the convolutions compute in: else each call would rearrange their weights.
        return reader.to(dtype=dtype, memory_format=torch.channels_last)

    def _generate_at_most(self, num_symbols: int = MOST_SYMBOLS) -> None:
        """Of `generate` where no length is given: it stops behind the longest text, not at transformers' 20 symbols.

        And its temperature is not the configuration's, which is for scores.
        """
        self.generation_config.max_length = num_symbols + 1  # the start counts
        self.generation_config.temperature = None
