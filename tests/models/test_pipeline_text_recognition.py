"""The interface that `image-to-text` had in transformers 4, with our recognizers and with stock encoder-decoders."""

import base64
import http.server
import io
import socket
import threading
import time
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Value, load_dataset
from datasets import Image as ImageFeature
from PIL import Image, ImageSequence
from tiny_recognizer import ALPHABET, lines, tiny_recognizer
from tiny_stock_models import tiny_trocr
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

import hf_ocr  # noqa: F401  registers the tasks
from hf_ocr.models.confidence import aggregate
from hf_ocr.models.pipeline_text_recognition import TextRecognitionPipeline, cpu_computes_bfloat16
from hf_ocr.models.reading import read_images
from hf_ocr.models.tokenization_characters import CharacterTokenizer

TEXTS = ["a", "total 12", "invoice", "x y z", "", "long line of text 1", "99", "abc"]


@pytest.fixture(scope="module")
def recognizer():
    return tiny_recognizer()


@pytest.fixture(scope="module")
def read(recognizer):
    model, processor = recognizer
    return pipeline("image-to-text", model=model, processor=processor, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def trocr(tmp_path_factory):
    folder = tiny_trocr(tmp_path_factory.mktemp("trocr"), lines(8), TEXTS)
    return pipeline("image-to-text", model=str(folder), device="cpu")


def texts(results):
    return [result[0]["generated_text"] for result in results]


def png(image):
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def data_uri(image):
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


@pytest.mark.parametrize(
    "form",
    [
        lambda image, path: str(path),
        lambda image, path: path,
        lambda image, path: image,
        lambda image, path: image.convert("RGB"),
        lambda image, path: png(image),
        lambda image, path: base64.b64encode(png(image)).decode(),
        lambda image, path: data_uri(image),
        lambda image, path: np.asarray(image),
        lambda image, path: torch.from_numpy(np.array(image)),
        lambda image, path: {"image": image},
    ],
    ids=["str", "Path", "L", "RGB", "bytes", "base64", "data URI", "array", "tensor", "row"],
)
def test_every_form_of_one_image_gives_one_list_of_one_dictionary(read, form, tmp_path):
    image = lines(1)[0]
    path = tmp_path / "line.png"
    image.save(path)
    expected = read(image)
    assert [list(result) for result in expected] == [["generated_text"]]
    assert len(expected[0]["generated_text"]) > 3
    assert read(form(image, path)) == expected
    assert read(images=form(image, path)) == expected
    assert read([form(image, path)]) == [expected]


def test_a_list_gives_a_list_in_its_order(read):
    images = lines(20)
    expected = [read(image) for image in images]
    assert len(set(texts(expected))) > 10
    assert read(images) == expected
    assert read(tuple(images)) == expected
    assert read(images, batch_size=2) == expected
    assert read(images, batch_size=1, num_workers=2) == expected
    assert read([]) == []


def test_a_generator_gives_a_lazy_iterator(read):
    images = lines(6)
    taken = []

    def source():
        for image in images:
            taken.append(image)
            yield image

    results = read(source(), batch_size=1)
    assert iter(results) is results
    assert taken == []
    first = next(results)
    assert len(taken) == 1
    assert [first, *results] == read(images)
    assert list(read(source())) == read(images)
    assert list(read(image for image in [])) == []


def test_data_sets(read):
    images = lines(7)
    expected = read(images)
    rows = Dataset.from_dict(
        {"text": ["?"] * 7, "crop": [{"bytes": png(image), "path": None} for image in images]},
        features=Features({"text": Value("string"), "crop": ImageFeature()}),
    )
    for inputs in (KeyDataset(rows, "crop"), rows, rows.to_iterable_dataset(), rows.with_format("numpy")):
        results = read(inputs, batch_size=4)
        assert iter(results) is results
        assert list(results) == expected
    assert list(read(rows["crop"], batch_size=4)) == expected
    assert list(read(Dataset.from_list([{"image": data_uri(image)} for image in images]))) == expected
    with pytest.raises(ValueError, match="no column of images, only text"):
        read(rows.remove_columns("crop"))


class Decoding(torch.utils.data.Dataset):
    """A user's own data set, which decodes its images itself."""

    def __init__(self, content):
        self.content = content

    def __len__(self):
        return len(self.content)

    def __getitem__(self, index):
        return Image.open(io.BytesIO(self.content[index]))


def test_a_damaged_row_of_a_data_set_is_one_failure(read):
    """Whether the pipeline decodes the image or the data set does."""
    images = lines(3)
    content = [png(images[0]), b"no image at all", png(images[2])]
    rows = Dataset.from_dict(
        {"image": [{"bytes": item, "path": None} for item in content]}, features=Features({"image": ImageFeature()})
    )
    expected = [read(images[0])[0]["generated_text"], None, read(images[2])[0]["generated_text"]]
    same = rows.with_transform(lambda batch: batch)
    for inputs in (rows, same, KeyDataset(rows, "image"), rows["image"], Decoding(content)):
        assert texts(read(inputs, on_error="skip")) == expected
    for inputs in (KeyDataset(rows, "image"), rows["image"], Decoding(content)):
        with pytest.raises(ValueError, match=r"row 1 of the \w+: cannot be had \(UnidentifiedImageError"):
            list(read(inputs))


def test_a_transform_of_a_data_set_is_applied(read):
    images = lines(3)
    rows = Dataset.from_dict(
        {"image": [{"bytes": png(image), "path": None} for image in images]},
        features=Features({"image": ImageFeature()}),
    )
    cut = rows.with_transform(lambda batch: {"image": [image.crop((0, 0, 40, 32)) for image in batch["image"]]})
    assert list(read(cut)) == read([image.crop((0, 0, 40, 32)) for image in images]) != read(images)


def test_images_streamed_from_an_archive_are_read(read, tmp_path):
    images = lines(3)
    with zipfile.ZipFile(tmp_path / "lines.zip", "w") as archive:
        for index, image in enumerate(images):
            archive.writestr(f"{index}.png", png(image) if index != 1 else b"no image at all")
    files = {"train": str(tmp_path / "lines.zip")}
    rows = load_dataset("imagefolder", data_files=files, split="train", streaming=True)
    expected = texts(read(images))
    assert texts(read(rows, on_error="skip")) == [expected[0], None, expected[2]]


def test_what_an_iterator_changes_for_the_next_image_is_read_as_it_was(read, tmp_path):
    images = lines(3)
    expected = read(images)
    images[0].save(tmp_path / "pages.tif", save_all=True, append_images=images[1:])
    buffer = np.empty((max(image.height for image in images), max(image.width for image in images)), np.uint8)

    def camera(wrap):
        for image in images:
            buffer[:] = 255
            buffer[: image.height, : image.width] = np.asarray(image)
            yield wrap(buffer)

    with Image.open(tmp_path / "pages.tif") as pages:
        assert list(read(ImageSequence.Iterator(pages))) == expected
    alone = [list(read(camera(lambda pixels: pixels.copy()), batch_size=1))]
    for wrap in (np.asarray, torch.from_numpy, Image.fromarray, lambda pixels: {"image": pixels}):
        assert [list(read(camera(wrap)))] == alone
    assert len(set(texts(alone[0]))) == 3


def test_what_came_before_an_iterator_failed_is_read(read):
    images = lines(3)

    def camera():
        yield from images
        raise OSError("camera gone")

    found = []
    with pytest.raises(OSError, match="camera gone"):
        for result in read(camera()):
            found.append(result)
    assert found == read(images)


def test_a_url_is_fetched_and_a_silent_one_gives_up(read, tmp_path):
    image = lines(1)[0]
    image.save(tmp_path / "line.png")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert read(f"http://127.0.0.1:{server.server_port}/line.png") == read(image)
        server.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/line.png"
        start = time.monotonic()
        with pytest.raises(ValueError, match=r"line\.png"):
            read(url, timeout=0.2)
        assert time.monotonic() - start < 5, "without the argument it is ten seconds"
        (skipped,), good = read([url, image], timeout=0.2, on_error="skip")
        assert "127.0.0.1" in skipped["error"] and good == read(image)


def test_scores_and_boxes_only_when_asked_for(read, recognizer):
    model, processor = recognizer
    images = lines(5)
    readings = read_images(model, processor, images, with_characters=True)
    for image, reading, scored in zip(images, readings, read(images, return_scores=True), strict=True):
        (plain,) = read(image)
        assert plain == {"generated_text": reading.text}
        assert scored == [{"generated_text": reading.text, "score": pytest.approx(reading.score, rel=1e-3)}]
        (result,) = read(image, return_boxes="char")
        assert list(result) == ["generated_text", "characters"]
        assert "".join(character["text"] for character in result["characters"]) == reading.text
        for given, expected in zip(result["characters"], reading.characters, strict=True):
            assert given["box"] == pytest.approx(list(expected.box), abs=0.01)
            assert given["score"] == pytest.approx(expected.score, rel=1e-3)
            left, top, right, bottom = given["box"]
            assert 0 <= left < right <= image.width and (top, bottom) == (0, image.height)


def test_boxes_of_words_join_the_characters_between_spaces(recognizer, monkeypatch):
    monkeypatch.setattr("hf_ocr.models.reading.DOUBTFUL", 0.0)  # the tiny model doubts everything
    model, processor = recognizer
    # The tiny model hardly ever reads a space: let it be the id that it reads most.
    tokenizer = CharacterTokenizer.from_alphabet(ALPHABET.translate(str.maketrans("6 ", " 6")))
    parts = {"tokenizer": tokenizer, "image_processor": processor.image_processor}
    spaces = pipeline("text-recognition", model=model, **parts, device="cpu", dtype=torch.float32)
    image = lines(9)[4]
    (words,) = spaces(image, return_boxes="word")
    (characters,) = spaces(image, return_boxes="char")
    assert "characters" not in words
    assert [word["text"] for word in words["words"]] == characters["generated_text"].split()
    assert len(words["words"]) > 1
    rest = list(characters["characters"])
    for word in words["words"]:
        while rest[0]["text"] == " ":
            rest.pop(0)
        parts, rest = rest[: len(word["text"])], rest[len(word["text"]) :]
        assert "".join(part["text"] for part in parts) == word["text"]
        assert word["box"] == [parts[0]["box"][0], 0.0, parts[-1]["box"][2], image.height]
        assert word["score"] == pytest.approx(np.prod([part["score"] for part in parts]))


@pytest.mark.parametrize("score_as", ["geometric_mean", "mean", "min"])
def test_lines_and_words_are_scored_alike(recognizer, read, score_as):
    for image in lines(4):
        (result,) = read(image, score_as=score_as, return_scores=True, return_boxes="char")
        scores = [character["score"] for character in result["characters"]]
        assert result["score"] == pytest.approx(aggregate(scores, score_as))
        (by_word,) = read(image, score_as=score_as, return_boxes="word")
        start = 0
        for word in by_word["words"]:
            start = result["generated_text"].index(word["text"], start)
            own = scores[start : start + len(word["text"])]
            assert word["score"] == pytest.approx(aggregate(own, score_as))


def test_what_is_too_doubtful_is_rejected_and_shows_its_score(read):
    images = lines(8)
    given = [result[0] for result in read(images, return_scores=True, return_boxes="char")]
    middle = sorted(result["score"] for result in given)[4]
    for name in ("characters", "words"):
        boxes = "char" if name == "characters" else "word"
        results = [result[0] for result in read(images, min_score=middle, return_boxes=boxes)]
        for result, expected in zip(results, given, strict=True):
            rejected = expected["score"] < middle
            assert list(result) == ["generated_text", "score", name]
            assert result["score"] == expected["score"]
            assert result["generated_text"] == (None if rejected else expected["generated_text"])
            assert bool(result[name]) != rejected
        assert [result["generated_text"] for result in results].count(None) == 4
    assert None not in texts(read(images, min_score=0.0))
    missing = read([images[0], "missing.png"], min_score=1.0, on_error="skip")
    assert list(missing[0][0]) == ["generated_text", "score"]
    assert list(missing[1][0]) == ["generated_text", "error"]


def test_a_temperature_set_later_changes_scores_but_no_text():
    model, processor = tiny_recognizer(seed=1)
    read = pipeline("image-to-text", model=model, processor=processor, device="cpu", dtype=torch.float32)
    before = read(lines(6), return_scores=True)
    model.config.temperature = 0.2
    after = read(lines(6), return_scores=True)
    assert texts(after) == texts(before)
    assert all(warm[0]["score"] > cold[0]["score"] for warm, cold in zip(after, before, strict=True))


def test_max_new_tokens_cuts_the_text(read):
    image = lines(1)[0]
    whole = read(image)[0]["generated_text"]
    assert read(image, max_new_tokens=3)[0]["generated_text"] == whole[:3]
    assert read(image, generate_kwargs={"max_new_tokens": 4})[0]["generated_text"] == whole[:4]
    (result,) = read(image, max_new_tokens=3, return_boxes="char")
    assert len(result["characters"]) == 3


def test_arguments_of_the_constructor_hold_until_a_call_says_otherwise(recognizer):
    model, processor = recognizer
    read = pipeline("image-to-text", model=model, processor=processor, max_new_tokens=2, return_scores=True)
    image = lines(1)[0]
    (first,), (second,), (third,) = read(image), read(image, max_new_tokens=5), read(image, return_scores=False)
    assert (len(first["generated_text"]), len(second["generated_text"])) == (2, 5)
    assert "score" in first and "score" not in third


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": None}, ValueError, "Cannot call the image-to-text pipeline without an inputs argument!"),
        ({"max_new_tokens": 3, "generate_kwargs": {"max_new_tokens": 3}}, ValueError, "please use only 1 version"),
        ({"max_new_tokens": -1}, ValueError, "max_new_tokens is -1, expected a whole number of at"),
        ({"max_new_tokens": 2.5}, ValueError, "max_new_tokens is 2.5, expected a whole number of at least 1"),
        ({"generate_kwargs": {"max_new_tokens": 0}}, ValueError, "max_new_tokens is 0, expected a whole"),
        ({"batch_size": 0}, ValueError, "batch_size is 0, expected at least 1"),
        ({"batch_size": 2.5}, ValueError, "batch_size is 2.5, expected at least 1"),
        ({"generate_kwargs": [1]}, ValueError, "generate_kwargs is .1., expected a dict"),
        ({"generate_kwargs": {"lexicon": ["ab"]}}, ValueError, "lexicon is a list, expected a tensor"),
        ({"prompt": "read"}, ValueError, "does not support conditional text generation"),
        ({"return_box": "char"}, TypeError, "return_box"),
        ({"return_boxes": "line"}, ValueError, 'return_boxes is \'line\', expected "char", "word"'),
        ({"on_error": "ignore"}, ValueError, "on_error is 'ignore'"),
        ({"score_as": "max"}, ValueError, "score_as is 'max', expected 'product'"),
        ({"min_score": 90}, ValueError, "min_score is 90, expected 0"),
        ({"min_score": "0.5"}, ValueError, "min_score is '0.5', expected 0"),
        ({"timeout": "5"}, ValueError, "timeout is '5', expected seconds"),
        ({"timeout": float("nan")}, ValueError, "timeout is nan, expected seconds"),
        ({"num_workers": 1.5}, ValueError, "num_workers is 1.5, expected the number of threads"),
        ({"num_workers": -1}, ValueError, "num_workers is -1, expected the number of threads"),
        ({"images": "line.png"}, ValueError, "two names for one argument"),
        ({"inputs": {"crop": "line.png"}}, ValueError, "row with 'crop': has no image"),
        ({"inputs": memoryview(b"no image")}, ValueError, "bytes object"),
        ({"inputs": io.BytesIO(b"no image")}, ValueError, "image of type BytesIO"),
        ({"inputs": DatasetDict({"train": Dataset.from_dict({"image": ["a"]})})}, ValueError, "has the splits train"),
        ({"generate_kwargs": {"temperature": 2.0}}, ValueError, "no generation argument temperature"),
        ({"inputs": "missing.png"}, ValueError, "missing.png"),
        ({"inputs": 7}, ValueError, "type int"),
    ],
)
def test_wrong_calls_say_what_is_wrong(read, arguments, error, message):
    with pytest.raises(error, match=message):
        read(**{"inputs": lines(1)[0], **arguments})


def test_a_batch_of_none_is_refused_whoever_reads(recognizer, trocr):
    model, processor = recognizer
    for empty in (
        lambda image: trocr(image, batch_size=0),
        pipeline("image-to-text", model=model, processor=processor, device="cpu", batch_size=0),
    ):
        with pytest.raises(ValueError, match="batch_size is 0, expected at least 1"):
            empty(lines(1)[0])


def test_a_failing_image_takes_its_place_and_the_others_are_read(read, trocr, tmp_path):
    images = lines(4)
    files = {"empty.png": b"", "cut.jpg": b"", "text.png": b"just words"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    images[1].convert("RGB").save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:300])
    Image.new("1", (9500, 9500)).save(tmp_path / "bomb.png")
    bad = [*(str(tmp_path / name) for name in files), str(tmp_path / "bomb.png"), str(tmp_path / "missing"), tmp_path]
    tiny, wide, tall = Image.new("L", (1, 1)), Image.new("L", (50_000, 32)), Image.new("L", (10, 30_000))
    sources = [images[0], *bad, images[1], tiny, wide, tall, images[2]]
    with pytest.raises(ValueError, match=r"empty\.png"):
        read(sources)
    for batch_size in (1, 64):
        results = read(sources, on_error="skip", batch_size=batch_size)
        good = [results[0], results[7], results[11]]
        assert good == read(images[:3])
        for source, (result,) in zip(bad, results[1:7], strict=True):
            assert result["generated_text"] is None
            assert str(source) in result["error"]
        for size, (result,) in zip(["1 x 1", "50000 x 32", "10 x 30000"], results[8:11], strict=True):
            assert size in result["error"]
    # a model that scales every image to one size can take a wide one
    results = trocr([images[0], *bad, images[1]], on_error="skip", batch_size=3)
    assert texts(results) == [TEXTS[0], *[None] * 6, TEXTS[1]]
    with pytest.raises(ValueError, match="missing"):
        trocr([images[0], "missing"])


def test_a_cpu_reads_with_a_copy_and_the_model_stays_as_it_was(recognizer, tmp_path):
    model, processor = tiny_recognizer(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    read = pipeline("image-to-text", model=model, processor=processor, device="cpu")
    read(lines(2))
    assert read._reading_model() is not model
    assert read._reading_model().dtype == (torch.bfloat16 if cpu_computes_bfloat16() else torch.float32)
    assert read.model is model and model.training and model.dtype == torch.float32
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for dtype in (torch.float32, torch.bfloat16):
        asked = pipeline("image-to-text", model=model, processor=processor, device="cpu", dtype=dtype)
        assert asked._reading_model().dtype == dtype
    assert read._reading_model() is read._reading_model()


@pytest.mark.parametrize(
    ("dtype", "computed"),
    [
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("auto", torch.bfloat16 if cpu_computes_bfloat16() else torch.float32),
    ],
)
def test_a_dtype_may_be_given_by_its_name(recognizer, dtype, computed):
    model, processor = recognizer
    read = TextRecognitionPipeline(model, processor=processor, device="cpu", dtype=dtype)
    assert read._reading_model().dtype == computed


def test_a_dtype_that_does_not_exist_is_refused(recognizer):
    model, processor = recognizer
    with pytest.raises(ValueError, match="dtype is 'float33', expected a"):
        TextRecognitionPipeline(model, processor=processor, device="cpu", dtype="float33")


@pytest.mark.parametrize("change", ["step", "load", "to"])
def test_the_copy_follows_the_weights(change):
    model, processor = tiny_recognizer(seed=1)
    other, _ = tiny_recognizer(seed=2)
    images = lines(4)
    read = pipeline("image-to-text", model=model, processor=processor, device="cpu", dtype=torch.float32)
    before = read(images)
    if change == "step":
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        for parameter, target in zip(model.parameters(), other.parameters(), strict=True):
            parameter.grad = (parameter - target).detach()
        optimizer.step()
    elif change == "load":
        model.load_state_dict(other.state_dict())
    else:
        model.classifier = other.classifier
    assert read(images) != before
    expected = pipeline("image-to-text", model=model, processor=processor, device="cpu", dtype=torch.float32)
    assert read(images) == expected(images)


def test_parts_may_be_named_one_by_one_and_missing_ones_are_named(recognizer, read):
    model, processor = recognizer
    parts = {"tokenizer": processor.tokenizer, "image_processor": processor.image_processor}
    by_parts = TextRecognitionPipeline(model, **parts, device=torch.device("cpu"), dtype=torch.float32)
    assert by_parts(lines(3)) == read(lines(3))
    with pytest.raises(ValueError, match="the pipeline has no image_processor"):
        TextRecognitionPipeline(model, tokenizer=processor.tokenizer)
    with pytest.raises(ValueError, match="CrnnModel cannot read text"):
        TextRecognitionPipeline(model.crnn, **parts)


def test_an_alphabet_that_does_not_fit_is_refused(recognizer):
    model, processor = recognizer
    other = type(processor.tokenizer).from_alphabet("abc")
    with pytest.raises(ValueError, match=r"4 symbols in the tokenizer, 22 outputs in the head"):
        TextRecognitionPipeline(model, tokenizer=other, image_processor=processor.image_processor)


def test_a_saved_pipeline_reads_the_same(read, tmp_path):
    read.save_pretrained(tmp_path)
    again = pipeline("image-to-text", model=str(tmp_path), device="cpu", dtype=torch.float32)
    assert again(lines(3)) == read(lines(3))
    assert repr(again).startswith("TextRecognitionPipeline")


def test_a_damaged_part_of_a_folder_is_reported_with_its_cause(read, tmp_path):
    read.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(ValueError, match=r"vocab\.json: is not JSON"):
        pipeline("image-to-text", model=str(tmp_path))


# Stock encoder-decoders


def test_an_encoder_decoder_reads_with_the_same_shapes(trocr):
    images = lines(8)
    assert isinstance(trocr, TextRecognitionPipeline)
    assert trocr(images[1]) == [{"generated_text": "total 12"}]
    assert texts(trocr(images)) == TEXTS
    assert texts(trocr(image for image in images)) == TEXTS
    assert texts(trocr(images, batch_size=3, num_workers=1)) == TEXTS
    assert texts(trocr(images=[data_uri(image) for image in images])) == TEXTS


def test_an_encoder_decoder_gives_scores_and_several_answers(trocr):
    images = lines(8)[:3]
    two = {"num_beams": 3, "num_return_sequences": 2}
    for batch_size in (1, 3):
        results = trocr(images, batch_size=batch_size, generate_kwargs=two, return_scores=True)
        assert [len(result) for result in results] == [2, 2, 2]
        assert texts(results) == TEXTS[:3]
        for best, second in results:
            assert 1 >= best["score"] > second["score"] > 0


def test_the_score_of_an_encoder_decoder_is_the_probability_of_its_text(trocr):
    images = lines(8)
    for index, (result,) in enumerate(trocr(images, batch_size=8, return_scores=True)):
        inputs = trocr.image_processor(images[index].convert("RGB"), return_tensors="pt")
        labels = trocr.tokenizer(TEXTS[index] + "</s>", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = trocr.model(**inputs, labels=labels).logits
        steps = logits.log_softmax(-1).gather(-1, labels[:, :, None])[0, :, 0].exp().tolist()
        assert result["score"] == pytest.approx(np.prod(steps), rel=1e-3)
        for score_as in ("geometric_mean", "mean", "min"):
            (scored,) = trocr(images[index], return_scores=True, score_as=score_as)
            assert scored["score"] == pytest.approx(aggregate(steps, score_as), rel=1e-3)


def test_an_encoder_decoder_rejects_too(trocr):
    (result,) = trocr(lines(1)[0], min_score=1.0)
    assert list(result) == ["generated_text", "score"]
    assert (result["generated_text"], result["score"] > 0) == (None, True)


def test_the_length_of_an_encoder_decoder_is_bounded(trocr, tmp_path):
    image = lines(8)[5]
    assert trocr(image, max_new_tokens=4) == [{"generated_text": "long"}]
    assert trocr(image, max_new_tokens=500) == [{"generated_text": TEXTS[5]}]  # the decoder has 24 positions
    endless = {"suppress_tokens": [2]}
    assert len(trocr(image, generate_kwargs=endless)[0]["generated_text"]) == 22


def test_an_encoder_decoder_refuses_what_it_cannot_do(trocr):
    with pytest.raises(ValueError, match="vision-encoder-decoder does not support conditional text generation"):
        trocr(lines(1)[0], prompt="read")
    with pytest.raises(ValueError, match="cannot tell where its characters stand"):
        trocr(lines(1)[0], return_boxes="char")
