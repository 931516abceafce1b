"""The base class of every recognizer's configuration."""

from typing import Any

import torch
from transformers import PreTrainedConfig

from .setting_checks import check_choice, check_integer, check_list, check_no_overrides, check_number, damage_named

# Of those that any configuration may carry: written by transformers, and read by it alone.
CARRIED = {"model_type", "name_or_path", "_name_or_path", "output_attentions", "_attn_implementation"}
TEMPERATURES = (0.01, 100.0)
# Of classifiers: a recognizer has an alphabet, and transformers would make a list as long as the number says.
OF_CLASSIFIERS = ("num_labels", "id2label", "label2id")


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
        ValueError: a setting of the wrong type or beyond its bounds, or one that takes the place of something the
            class defines.
    """

    temperature: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        if not __name__.startswith("transformers_modules."):
            kwargs.pop("custom_pipelines", None)
        for name in OF_CLASSIFIERS:
            kwargs.pop(name, None)
        self.id2label = self.label2id = None
        check_no_overrides(type(self), set(kwargs) - CARRIED)
        name = type(self).__name__
        dtype = kwargs.get("torch_dtype") if self.dtype is None else self.dtype
        if dtype is not None and not isinstance(dtype, torch.dtype):
            check_choice(f"{name}: dtype", dtype, ("float32", "float16", "bfloat16", "float64"))
        architectures = getattr(self, "architectures", None)
        if architectures is not None:
            check_list(f"{name}: architectures", architectures, 0, 100)
            self.architectures = list(map(str, architectures))
        for flag in ("output_hidden_states", "return_dict", "is_encoder_decoder"):
            check_choice(f"{name}: {flag}", getattr(self, flag), (True, False, None))
        check_number(f"{name}: temperature", self.temperature, *TEMPERATURES)
        check_choice(f"{name}: pad_token_id", getattr(self, "pad_token_id", 0), (0,))
        with damage_named(name):
            super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from the content of `config.json`, as transformers does.

        Raises:
            ValueError: as for the class.
        """
        with damage_named(f"{cls.__name__}: config.json"):
            return super().from_dict(config_dict, **kwargs)

    def _check_integers(self, **bounds: tuple[int, int]) -> None:
        for name, (least, most) in bounds.items():
            check_integer(f"{type(self).__name__}: {name}", getattr(self, name), least, most)
