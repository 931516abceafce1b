"""Line images to the tensors a recognizer takes: height fixed, aspect kept, padded right, widths beside them."""

from typing import Any, Literal, TypedDict

import numpy as np
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from .image_loading import ImageError, ImageSource, load_image
from .line_preparation import (
    MIN_SIDE,
    grey_values,
    line_pixels,
    pixel_scale,
    resized_width,
    scale_pixels,
    text_part,
    text_width,
)
from .setting_checks import check_choice, check_integer, check_list, check_no_overrides, check_number, damage_named

MAX_SIDES = (1024, 65_536)  # px of height and width that a setting may ask for


class TextLineImagesKwargs(TypedDict, total=False):
    """The settings that `from_pretrained` may override."""

    height: int
    min_width: int
    max_width: int
    num_channels: int
    mean: float | list[float]
    std: float | list[float]
    narrow: Literal["widen", "pad"]
    resample: int


class TextLineImageProcessor(BaseImageProcessor):
    """Scale every line to one height and lay the batch out in one tensor.

    The width follows the aspect: W = clamp(round(width * height / original height), min_width). Narrow words are
    widened to `min_width`, so that a recognizer has a frame for each of their characters. Of a loose crop on even
    ground the ink and some ground are taken (`cut_to_text`), in reading and training alike.

    Args:
        height: px of the output.
        min_width: px of the output.
        max_width: px of the output; a longer line is refused. Equal to `min_width`: every line is stretched to that
            width, whatever its aspect, as recognizers of words are often trained.
        num_channels: 1 (grey by luma, ITU-R 601) or 3 (RGB).
        mean, std: the output is (value - mean) / std with values in [0, 1]; 0.5 and 0.5 give [-1, 1]. One number, or
            one for each channel.
        narrow: what becomes of a line narrower than `min_width`: "widen", or "pad", with black on its right, which is
            then part of what the recognizer reads.
        resample: the number of Pillow's filter: 2 is linear, 3 cubic interpolation, as some recognizers were trained.

    Raises:
        ValueError: a setting that makes no image, or takes the place of something the class defines.
    """

    model_input_names = ["pixel_values", "widths"]
    valid_kwargs = TextLineImagesKwargs

    def __init__(
        self,
        height: int = 32,
        min_width: int = 64,
        max_width: int = 4096,
        num_channels: int = 1,
        mean: float | list[float] = 0.5,
        std: float | list[float] = 0.5,
        narrow: Literal["widen", "pad"] = "widen",
        resample: int = Image.Resampling.BILINEAR.value,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_no_overrides(type(self), kwargs)
        super().__init__(**kwargs)
        check_integer(f"{name}: height", height, MIN_SIDE, MAX_SIDES[0])
        check_integer(f"{name}: max_width", max_width, 1, MAX_SIDES[1])
        check_integer(f"{name}: min_width", min_width, 1, max_width)
        check_choice(f"{name}: num_channels", num_channels, (1, 3))
        check_choice(f"{name}: narrow", narrow, ("widen", "pad"))
        check_choice(f"{name}: resample", resample, tuple(kind.value for kind in Image.Resampling))
        for setting, value, least in (("mean", mean, -1e3), ("std", std, 1e-3)):
            if isinstance(value, list | tuple):
                check_list(f"{name}: {setting}", value, num_channels, num_channels)
            for number in value if isinstance(value, list | tuple) else [value]:
                check_number(f"{name}: {setting}", number, least, 1e3)
        self.height = height
        self.min_width = min_width
        self.max_width = max_width
        self.num_channels = num_channels
        self.mean = mean
        self.std = std
        self.narrow = narrow
        self.resample = int(resample)

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from the content of `preprocessor_config.json`.

        Raises:
            ValueError: it holds something else than settings; a setting that makes no image.
        """
        with damage_named(f"{cls.__name__}: preprocessor_config.json"):
            return super().from_dict(image_processor_dict, **kwargs)

    def cut_to_text(self, image: Image.Image) -> Image.Image:
        """The part of the image that is prepared, the ink of a loose crop and some ground; else all of it."""
        part = text_part(grey_values(image))
        return image if part == (0, 0, *image.size) else image.crop(part)

    def resized_width(self, width: int, height: int) -> int:
        """Width in px of a line of `width` x `height` px, once it is prepared; of a loose crop, of what was cut out.

        Raises:
            ImageError: a side below 3 px; a line longer than `max_width`, or as tall as that when turned.
        """
        return resized_width((width, height), self.height, self.min_width, self.max_width)

    def text_width(self, width: int, height: int) -> int:
        """Columns of the prepared line that show the image; less than `resized_width` where it was padded."""
        return text_width((width, height), self.height, self.min_width, self.max_width, self.narrow)

    def preprocess(
        self, images: ImageSource | list[ImageSource] | tuple[ImageSource, ...], return_tensors: str | None = None
    ) -> BatchFeature:
        """Turn images into a batch.

        Args:
            images: one image or a list of them: PIL images, or anything `load_image` takes.
            return_tensors: "pt", "np", or None, which gives NumPy arrays as "np" does.

        Returns:
            pixel_values: float32 (B, num_channels, height, W); W is the greatest width, and columns at and behind an
                image's own width are 0.0.
            widths: int64 (B,), px. No image: B = 0 and W = `min_width`.

        Raises:
            ImageError: an image that cannot be loaded or is no text line (see `resized_width`); its place is named.
        """
        batch = list(images) if isinstance(images, list | tuple) else [images]
        lines: list[np.ndarray] = []
        for index, image in enumerate(batch):
            try:
                lines.append(self._line(image))
            except ImageError as error:
                if len(batch) == 1:
                    raise
                raise ImageError(f"image {index} of {len(batch)}: {error}") from error

        widths = np.array([line.shape[1] for line in lines], dtype=np.int64)
        widest = int(widths.max(initial=0)) or self.min_width
        values = np.zeros((len(lines), self.num_channels, self.height, widest), dtype=np.float32)
        scale = pixel_scale(self.mean, self.std)
        for row, line in zip(values, lines, strict=True):
            scale_pixels(line.transpose(2, 0, 1), scale, out=row[:, :, : line.shape[1]])
        return BatchFeature({"pixel_values": values, "widths": widths}, tensor_type=return_tensors)

    def _line(self, image: ImageSource) -> np.ndarray:
        """uint8 (height, its own width, num_channels), at least `min_width` wide."""
        settings = self.height, self.min_width, self.max_width, self.num_channels, self.narrow, self.resample
        return line_pixels(load_image(image), *settings)
