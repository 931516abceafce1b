"""The base class of every recognizer's configuration."""

from typing import Any

from transformers import PreTrainedConfig


class TextRecognitionConfig(PreTrainedConfig):
    """Base of all configurations here.

    A saved folder names its pipeline class in `custom_pipelines`, for processes without the package. transformers
    takes that entry before any registered task and then refuses to go on without `trust_remote_code=True`, so the
    packaged class, beside which the pipeline is registered, leaves the entry out when it reads the file. The copy of
    this file that travels with a checkpoint keeps it.
    """

    def __post_init__(self, **kwargs: Any) -> None:
        if not __name__.startswith("transformers_modules."):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
