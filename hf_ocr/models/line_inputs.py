"""The tensors that every recognizer takes, checked the same way in every family."""

import torch


def checked_widths(
    pixel_values: torch.Tensor, widths: torch.Tensor | None, num_channels: int, image_height: int
) -> torch.Tensor:
    """The valid columns of each image, once both tensors are what a recognizer takes.

    Args:
        pixel_values: float (B, num_channels, image_height, W).
        widths: integers (B,), px; all of W when None.
        num_channels, image_height: of the model's configuration.

    Returns:
        int64 (B,), px, each at most W, on the device of the images. Whether an image is too narrow is for the family
        to say.

    Raises:
        ValueError: another shape or dtype, or a width beyond W.
    """
    if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:3]) != (num_channels, image_height):
        raise ValueError(
            f"pixel_values has shape {tuple(pixel_values.shape)}, expected (batch, {num_channels}, {image_height}, "
            "width). Prepare images with the checkpoint's processor."
        )
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"pixel_values has dtype {pixel_values.dtype}, expected floats in [-1, 1]. Prepare images with the "
            "checkpoint's processor."
        )
    if widths is None:
        widths = torch.full((len(pixel_values),), pixel_values.shape[-1], device=pixel_values.device)
    whole = not widths.is_floating_point() and widths.dtype != torch.bool
    if not whole or widths.shape != (len(pixel_values),) or (widths > pixel_values.shape[-1]).any():
        raise ValueError(
            f"widths is {widths.tolist()} for images of shape {tuple(pixel_values.shape)}, expected one integer "
            f"width of at most {pixel_values.shape[-1]} px for each. Pass the widths that the checkpoint's "
            "processor gives beside pixel_values."
        )
    return widths.to(pixel_values.device, torch.int64)
