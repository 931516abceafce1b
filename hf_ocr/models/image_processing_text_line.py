"""Line images to the tensors a recognizer takes: height fixed, aspect kept, padded right, widths beside them."""

from typing import Any, TypedDict

import numpy as np
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from .image_loading import ImageError, ImageSource, load_image
from .line_preparation import MIN_SIDE, resize_line, resized_width, scale_pixels


class TextLineImagesKwargs(TypedDict, total=False):
    """The settings that `from_pretrained` may override."""

    height: int
    min_width: int
    max_width: int
    num_channels: int
    mean: float
    std: float


class TextLineImageProcessor(BaseImageProcessor):
    """Scale every line to one height and lay the batch out in one tensor.

    The width follows the aspect: W = clamp(round(width * height / original height), min_width), never cropped. Narrow
    words are widened to `min_width`, so that a recognizer has a frame for each of their characters.

    Args:
        height: px of the output.
        min_width: px of the output.
        max_width: px of the output; a longer line is refused.
        num_channels: 1 (grey by luma, ITU-R 601) or 3 (RGB).
        mean, std: the output is (value - mean) / std with values in [0, 1]; 0.5 and 0.5 give [-1, 1].

    Raises:
        ValueError: a setting that makes no image.
    """

    model_input_names = ["pixel_values", "widths"]
    valid_kwargs = TextLineImagesKwargs

    def __init__(
        self,
        height: int = 32,
        min_width: int = 64,
        max_width: int = 4096,
        num_channels: int = 1,
        mean: float = 0.5,
        std: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if height < MIN_SIDE or not 1 <= min_width <= max_width:
            raise ValueError(
                f"TextLineImageProcessor: height={height}, min_width={min_width}, max_width={max_width}. "
                f"Expected height >= {MIN_SIDE} and 1 <= min_width <= max_width, px."
            )
        if num_channels not in (1, 3):
            raise ValueError(f"TextLineImageProcessor: num_channels={num_channels}. Expected 1 (grey) or 3 (RGB).")
        if not std > 0:
            raise ValueError(f"TextLineImageProcessor: std={std}. Expected a number above 0.")
        self.height = height
        self.min_width = min_width
        self.max_width = max_width
        self.num_channels = num_channels
        self.mean = mean
        self.std = std

    def resized_width(self, width: int, height: int) -> int:
        """Width in px of a line of `width` x `height` px once it is scaled.

        Raises:
            ImageError: a side below 3 px; a line longer than `max_width`, or as tall as that when turned.
        """
        return resized_width((width, height), self.height, self.min_width, self.max_width)

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
        lines: list[Image.Image] = []
        for index, image in enumerate(batch):
            try:
                lines.append(self._line(image))
            except ImageError as error:
                if len(batch) == 1:
                    raise
                raise ImageError(f"image {index} of {len(batch)}: {error}") from error

        widths = np.array([line.width for line in lines], dtype=np.int64)
        widest = int(widths.max(initial=0)) or self.min_width
        shape = (len(lines), self.height, widest, self.num_channels)
        pixels = np.zeros(shape, dtype=np.uint8)  # (B, H, W, C)
        for row, line in zip(pixels, lines, strict=True):
            row[:, : line.width] = np.asarray(line).reshape(self.height, line.width, self.num_channels)

        channels_first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))  # (B, C, H, W)
        values = scale_pixels(channels_first, self.mean, self.std)
        for row, width in zip(values, widths, strict=True):
            row[:, :, width:] = 0.0
        return BatchFeature({"pixel_values": values, "widths": widths}, tensor_type=return_tensors)

    def _line(self, image: ImageSource) -> Image.Image:
        """Mode "L" or "RGB", `height` px high, its own width."""
        line = load_image(image)
        size = (self.resized_width(line.width, line.height), self.height)
        return resize_line(line, size, self.num_channels)
