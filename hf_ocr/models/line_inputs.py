"""The tensors that every recognizer takes, checked the same way in each family, and padding kept out of them."""

import torch
import torch.nn.functional as F


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


def mask_columns(hidden: torch.Tensor, widths: torch.Tensor, least: int) -> torch.Tensor:
    """(B, ..., W) with the columns behind the valid widths (B,), the least of which is given, set to 0, in place.

    Rows of a batch are of like width: the columns before the least width, nearly all, are left alone.
    """
    if least < hidden.shape[-1]:
        columns = torch.arange(least, hidden.shape[-1], device=hidden.device)
        valid = (columns < widths[:, None]).to(hidden.dtype)
        hidden[..., least:].mul_(valid.view(len(valid), *[1] * (hidden.ndim - 2), -1))
    return hidden


def masked_relu(hidden: torch.Tensor, widths: torch.Tensor, least: int) -> torch.Tensor:
    """ReLU of the valid columns, and 0 behind them, in place; as `mask_columns`.

    In place: no layer before this one needs its own result for a gradient. The mask itself is not differentiated, for
    the ReLU lets nothing through where it is 0; its gradient would cost a copy of the whole tensor.
    """
    mask_columns(hidden.detach(), widths, least)
    return F.relu(hidden, inplace=True)
