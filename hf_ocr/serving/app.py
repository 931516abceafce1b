"""A demo in the browser: the text of a line or word, its score, and boxes with scores around the words.

Here: `pip install -r requirements.txt gradio`, then `python app.py`. In a Space with the Gradio SDK: this file,
requirements.txt, and a variable MODEL with the name of the model's repository. Without it, the model in the folder of
this file reads. Its code is run, as `trust_remote_code=True` says.
"""

import os
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageOps
from transformers import pipeline

FOLDER = Path(__file__).resolve().parent


def _on_white(image: Image.Image) -> Image.Image:
    """RGB, as the reader sees it: what is clear is white."""
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def build(read: Any) -> gr.Blocks:
    """The page. `read`: a pipeline "image-to-text" of a recognizer."""

    def show(image: Image.Image | None) -> tuple[str, float, tuple[Image.Image, list[Any]]]:
        if image is None:
            raise gr.Error("No image. Choose one first.", print_exception=False)
        image = ImageOps.exif_transpose(image)  # boxes are those of the upright image
        [result] = read(image, return_scores=True, return_boxes="word", on_error="skip")
        if "error" in result:
            raise gr.Error(result["error"], print_exception=False)
        boxes = [
            (tuple(round(side) for side in word["box"]), f"{word['text']} {word['score']:.2f}")
            for word in result["words"]
        ]
        return result["generated_text"], result["score"], (_on_white(image), boxes)

    with gr.Blocks(title="Text recognition") as blocks:
        gr.Markdown("# Text recognition\n\nOne line or word an image.")
        with gr.Row():
            with gr.Column():
                image = gr.Image(type="pil", image_mode=None, label="Image")  # in RGB what is clear would be black
                button = gr.Button("Read", variant="primary")
            with gr.Column():
                text = gr.Textbox(label="Text")
                score = gr.Number(label="Score: the probability of the text, 0 to 1", precision=4)
                words = gr.AnnotatedImage(label="Words, each with its score")
        outputs = [text, score, words]
        button.click(show, image, outputs, api_name="read")
        examples = sorted(str(path) for path in (FOLDER / "examples").glob("*.png"))
        if examples:
            gr.Examples(examples, image, outputs, show, run_on_click=True, cache_examples=False)
    return blocks


if __name__ == "__main__":
    model = os.environ.get("MODEL", str(FOLDER))
    build(pipeline("image-to-text", model=model, trust_remote_code=True)).launch()
