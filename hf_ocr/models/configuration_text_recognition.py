"""The base class of every recognizer's configuration."""

from typing import Any

from transformers import PreTrainedConfig


class TextRecognitionConfig(PreTrainedConfig):
    """Base of all configurations here.

    A saved folder names its pipeline class in `custom_pipelines`, for processes without the package. transformers
    takes that entry before any registered task and then refuses to go on without `trust_remote_code=True`, so the
    packaged class, beside which the pipeline is registered, leaves the entry out when it reads the file. The copy of
    this file that travels with a checkpoint keeps it.

    Args:
        temperature: divides the logits where `recognize` takes scores, so that they are as often right as they say
            (Guo et al. 2017); it changes no text. `hf-ocr calibrate` fits it.

    Raises:
        ValueError: a temperature that is not above 0.
    """

    temperature: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        if not __name__.startswith("transformers_modules."):
            kwargs.pop("custom_pipelines", None)
        if not (isinstance(self.temperature, int | float) and 0 < self.temperature < float("inf")):
            raise ValueError(
                f"{type(self).__name__}: temperature is {self.temperature!r}, expected a number above 0. 1 leaves "
                "scores as they are."
            )
        super().__post_init__(**kwargs)
