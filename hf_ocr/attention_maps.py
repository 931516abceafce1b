"""Where a decoder looked: the attention of each character, drawn over the image."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from hf_ocr.models.ctc_reading import eval_mode

__all__ = ["draw_attention"]

RED = (230, 0, 0)


@torch.no_grad()
def draw_attention(
    model: Any,
    processor: Any,
    image: Image.Image,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont | None = None,
) -> Image.Image:
    """A picture with a strip for each character that is read, greedily, and one for the end of the text.

    A strip is the image as the model sees it, with red where the decoder looked, the mean of its heads, the strongest
    where it looked most; the character stands beside it. Where a reading goes wrong, this shows what was mixed up,
    passed over or read twice.

    Args:
        model: a recognizer whose `forward` takes `decoder_input_ids` and `output_attentions`, as
            `AttentionOcrForTextRecognition`.
        processor: of the model.
        image: of a text line or word.
        font: of the characters, about 15 px; Pillow's own when None, which has little more than ASCII.

    Returns:
        An RGB image.
    """
    inputs = processor(images=[image], return_tensors="pt")
    width = int(inputs["widths"][0])
    given = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    with eval_mode(model):
        read = model.recognize(**given)
        # Along what was read, which may be CTC's alone.
        output = model(**given, decoder_input_ids=F.pad(read.sequences, (1, 0)), output_attentions=True)
    names = [*processor.batch_decode(read.sequences[0][:, None]), "end"]
    scale, offset = model.base_model.frame_to_pixel()
    frames = model.base_model.frame_count(width)
    weights = output.cross_attentions[0][0].mean(0).cpu()
    weights = (weights / weights.amax(-1, keepdim=True).clamp(min=1e-6))[:, :frames].numpy()
    centres = scale * (np.arange(frames) + 0.5) + offset
    seen = (inputs["pixel_values"][0, ..., :width].permute(1, 2, 0).numpy() + 1) * 127.5
    seen = np.broadcast_to(seen, (*seen.shape[:2], 3))

    margin, gap, height = 36, 4, seen.shape[0]
    font = font or ImageFont.load_default(15)
    sheet = Image.new("RGB", (margin + width, len(names) * (height + gap) - gap), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, weight) in enumerate(zip(names, weights, strict=True)):
        strength = np.interp(np.arange(width) + 0.5, centres, weight)[None, :, None]
        strip = seen + (np.array(RED) - seen) * 0.7 * strength
        top = row * (height + gap)
        sheet.paste(Image.fromarray(strip.clip(0, 255).astype(np.uint8)), (margin, top))
        draw.text((margin - 6, top + height / 2), name, "black", font, anchor="rm")
    return sheet
