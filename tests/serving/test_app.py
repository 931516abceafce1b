"""`app.py` of a published folder: the page is built, and its function called, by Gradio itself."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from tiny_recognizer import lines, tiny_recognizer
from transformers import pipeline

from hf_ocr.bundle import bundle_checkpoint, save_bundle

gradio = pytest.importorskip("gradio")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    place = tmp_path_factory.mktemp("app")
    folder = bundle_checkpoint(save_bundle(*tiny_recognizer(), place / "checkpoint"), place / "bundle")
    spec = importlib.util.spec_from_file_location("app", folder / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    return app.build(pipeline("image-to-text", model=str(folder)))


def function(blocks):
    return next(f.fn for f in blocks.fns.values() if f.api_name == "read")


def test_the_page_shows_image_text_score_and_boxes(blocks):
    shown = {component["type"] for component in blocks.get_config_file()["components"]}
    assert {"image", "textbox", "number", "annotatedimage", "button", "dataset"} <= shown
    line = lines(1)[0]
    text, score, (image, boxes) = function(blocks)(line)
    assert text.split() == [label.rpartition(" ")[0] for _, label in boxes]
    assert 0 <= score <= 1 and image.size == line.size
    for (left, top, right, bottom), _ in boxes:
        assert 0 <= left <= right <= line.width and 0 <= top <= bottom <= line.height
    annotated = next(b for b in blocks.blocks.values() if type(b).__name__ == "AnnotatedImage")
    assert len(annotated.postprocess((image, boxes)).annotations) == len(boxes)


def test_what_is_clear_is_white(blocks):
    """Black on a clear ground: in the page's own RGB it would be black on black."""
    line = lines(1)[0].convert("L")
    clear = Image.merge("LA", (Image.new("L", line.size, 0), ImageOps.invert(line)))
    image = next(b for b in blocks.blocks.values() if type(b).__name__ == "Image")
    path = Path(image.GRADIO_CACHE) / "clear.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    clear.save(path)
    given = image.preprocess(gradio.data_classes.ImageData(path=str(path)))
    text, _, (shown, _) = function(blocks)(given)
    assert text == function(blocks)(line)[0]
    assert np.array_equal(np.asarray(shown.convert("L")), np.asarray(line))


def test_no_image_is_an_error_on_the_page(blocks):
    with pytest.raises(gradio.Error, match="Choose one first"):
        function(blocks)(None)
