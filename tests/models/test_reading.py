"""Order, buckets, turned lines and boxes, with a recognizer whose right answer is known, and with a real one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_recognizer import lines, tiny_recognizer

from hf_ocr.models.confidence import aggregate
from hf_ocr.models.image_loading import ImageError
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.line_preparation import STRETCHES, bucket_width
from hf_ocr.models.modeling_outputs import Recognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.reading import iterate_readings, read_images
from hf_ocr.models.reading_threads import ReadingThreads
from hf_ocr.models.tokenization_characters import CharacterTokenizer

ALPHABET = "abcdefgh"
SHADES = {character: 16 * (index + 1) for index, character in enumerate(ALPHABET)}


class BarReader(torch.nn.Module):
    """Reads vertical bars: a run of columns of one dark shade is the character of that shade.

    It is sure of lines whose bars fill the middle half of their columns and whose last is not darker than the first.
    """

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.batches = []

    def recognize(self, pixel_values, widths, num_beams=1, with_characters=True):
        self.batches.append((tuple(pixel_values.shape), widths.tolist()))
        grey = (pixel_values[:, 0] * 127.5 + 127.5).round()
        rows = []
        for image, width in zip(grey, widths.tolist(), strict=True):
            columns = image[:, :width]
            middle = columns[len(columns) // 4 : 3 * len(columns) // 4]
            even = (middle.amax(0) - middle.amin(0)) < 40
            shades = (columns.median(0).values / 16).round().long().tolist()
            bars, start = [], 0
            for x in range(1, width + 1):
                if x == width or shades[x] != shades[start]:
                    if shades[start] <= len(ALPHABET) and x - start >= 6:
                        bars.append((shades[start], start, x))
                    start = x
            rising = not bars or bars[0][0] <= bars[-1][0]
            score = 0.96 if even.float().mean() > 0.8 and rising else 0.5
            rows.append((bars, score ** max(len(bars), 1)))
        longest = max(len(bars) for bars, _ in rows)
        sequences = torch.zeros(len(rows), longest, dtype=torch.long)
        spans = torch.zeros(len(rows), longest, 2)
        for row, (bars, _) in enumerate(rows):
            for place, (index, start, end) in enumerate(bars):
                sequences[row, place] = index
                spans[row, place] = torch.tensor([start, end])
        return Recognition(
            sequences=sequences,
            scores=torch.tensor([score for _, score in rows]),
            character_scores=(sequences != 0).float() * 0.9 if with_characters else None,
            character_spans=spans if with_characters else None,
        )


def bar_processor(alphabet=ALPHABET):
    return TextRecognitionProcessor(TextLineImageProcessor(height=32), CharacterTokenizer.from_alphabet(alphabet))


def bars(text, height=32, bar=20, gap=12):
    """The image of a text, and the (left, top, right, bottom) of its characters."""
    image = Image.new("L", (gap + len(text) * (bar + gap), height), 255)
    pen = ImageDraw.Draw(image)
    boxes = []
    for place, character in enumerate(text):
        left = gap + place * (bar + gap)
        pen.rectangle((left, 0, left + bar - 1, height - 1), fill=SHADES[character])
        boxes.append((left, 0, left + bar, height))
    return image, boxes


def close(boxes, expected, tolerance=1.5):
    return len(boxes) == len(expected) and all(
        abs(a - b) <= tolerance
        for box, other in zip(boxes, expected, strict=True)
        for a, b in zip(box, other, strict=True)
    )


def test_a_line_is_read_with_score_and_boxes_in_px_of_the_given_image():
    image, boxes = bars("abcde", height=64, bar=40, gap=24)  # read at half this size
    (reading,) = read_images(BarReader(), bar_processor(), [image], with_characters=True)
    assert reading.text == "abcde"
    assert reading.score == pytest.approx(0.96**5)
    assert "".join(character.text for character in reading.characters) == "abcde"
    assert all(character.score == pytest.approx(0.9) for character in reading.characters)
    assert close([character.box for character in reading.characters], boxes, tolerance=3)


@pytest.mark.parametrize("score_as", ["product", "geometric_mean", "mean", "min"])
def test_outer_spaces_are_left_out_and_count_for_their_neighbours(score_as):
    image, boxes = bars("hhabhch")
    nothing, _ = bars("hh")
    spaced, blank = read_images(
        BarReader(), bar_processor("abcdefg "), [image, nothing], with_characters=True, score_as=score_as
    )
    scores = [character.score for character in spaced.characters]
    assert (spaced.text, "".join(character.text for character in spaced.characters)) == ("ab c", "ab c")
    assert close([character.box for character in spaced.characters], boxes[2:6])
    assert scores == pytest.approx([0.9**3, 0.9, 0.9, 0.9**2])
    if score_as != "product":  # that of this reader is not of its characters
        assert spaced.score == pytest.approx(aggregate(scores, score_as))
    assert (blank.text, blank.characters, blank.score) == ("", [], pytest.approx(0.96**2))


@pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270])
def test_a_turned_line_is_read_in_the_turn_with_the_best_score_and_its_boxes_turn_back(turn):
    line, boxes = bars("abcdef")
    image = line.transpose(turn)
    (reading,) = read_images(BarReader(), bar_processor(), [image], with_characters=True)
    assert reading.text == "abcdef"
    # The truth: paint each box white in the line, turn that, and see where the paint is.
    expected = []
    for box in boxes:
        marked = Image.new("1", line.size)
        ImageDraw.Draw(marked).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=1)
        expected.append(marked.transpose(turn).getbbox())
    assert close([character.box for character in reading.characters], expected)


@pytest.mark.parametrize("turn", [None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270])
def test_a_loose_crop_has_its_boxes_in_px_of_the_given_image(turn):
    line, boxes = bars("abcdefgh")
    sheet = Image.new("L", (400, 150), 255)
    sheet.paste(line, (70, 40))
    image = sheet if turn is None else sheet.transpose(turn)
    (reading,) = read_images(BarReader(), bar_processor(), [image], with_characters=True)
    assert reading.text == "abcdefgh"
    expected = []
    for left, _, right, _ in boxes:
        marked = Image.new("1", sheet.size)
        ImageDraw.Draw(marked).rectangle((70 + left, 40 - 8, 70 + right - 1, 72 + 8 - 1), fill=1)
        expected.append((marked if turn is None else marked.transpose(turn)).getbbox())
    assert close([character.box for character in reading.characters], expected, tolerance=3)


def test_a_long_turned_line_is_not_beaten_by_a_short_doubtful_reading():
    text = "a" * 8 + "b" * 8 + "c" * 9  # 0.96 ** 25 is below the 0.5 of an upright guess at one character
    (reading,) = read_images(BarReader(), bar_processor(), [bars(text)[0].transpose(Image.Transpose.ROTATE_90)])
    assert reading.text == text
    assert reading.score == pytest.approx(0.96**25)
    assert reading.score < 0.5


def test_a_wide_line_is_read_once_and_a_tall_one_three_times():
    model = BarReader()
    read_images(model, bar_processor(), [bars("abc", height=32)[0]])
    assert sum(len(widths) for _, widths in model.batches) == 1
    model = BarReader()
    read_images(model, bar_processor(), [Image.new("L", (40, 61), 255)])
    assert sum(len(widths) for _, widths in model.batches) == 3
    model = BarReader()
    read_images(model, bar_processor(), [Image.new("L", (40, 60), 255)])
    assert sum(len(widths) for _, widths in model.batches) == 1


class SureOfWideBars(BarReader):
    """Doubts every line in which no bar is wider than `sure_from` px."""

    sure_from = 21

    def recognize(self, pixel_values, widths, num_beams=1, with_characters=True):
        result = super().recognize(pixel_values, widths, num_beams, True)
        wide = (result.character_spans[..., 1] - result.character_spans[..., 0]).amax(1) > self.sure_from
        result.scores = torch.where(wide, result.scores, result.scores * 0.5)
        return result


def test_a_doubtful_line_is_read_at_other_widths_until_it_is_not_and_the_best_kept():
    image, expected = bars("abcd")
    model = SureOfWideBars()
    (reading,) = read_images(model, bar_processor(), [image], with_characters=True)
    tried = [1, *STRETCHES[: next(place for place, stretch in enumerate(STRETCHES) if stretch > 1.05) + 1]]
    assert len(tried) > 2
    assert [width for _, widths in model.batches for width in widths] == [round(image.width * s) for s in tried]
    assert reading.text == "abcd"
    assert reading.score == pytest.approx(0.96**4)
    assert close([character.box for character in reading.characters], expected)


def test_a_line_that_stays_doubtful_is_read_at_every_width():
    model = SureOfWideBars()
    model.sure_from = 1000
    read_images(model, bar_processor(), [bars("abcd")[0]])
    assert len(model.batches) == 1 + len(STRETCHES)


def test_where_nothing_is_read_no_other_width_is_tried():
    class Blind(BarReader):
        def recognize(self, pixel_values, widths, **settings):
            self.batches.append(widths.tolist())
            return Recognition(sequences=torch.zeros(1, 0, dtype=torch.long), scores=torch.tensor([0.1]))

    model = Blind()
    (reading,) = read_images(model, bar_processor(), [bars("abcd")[0]])
    assert (reading.text, reading.score) == ("", pytest.approx(0.1))
    assert len(model.batches) == 1


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(("sure", "widths"), [(0.98, [240]), (0.96, [240, 480]), (0.5, [240, 480, 336, 648])])
def test_a_tilted_line_is_read_level_and_that_at_other_widths(monkeypatch, sure, widths, fixed):
    """Only where it is doubtful. The level one is better, and the one that is stretched then."""
    model, asked = BarReader(), []

    def recognize(pixel_values, widths, **settings):
        asked.extend(widths.tolist())
        result = BarReader.recognize(model, pixel_values, widths)
        result.scores = torch.full((1,), sure + 0.001 * (widths[0] > 240))
        return result

    def level_line(line):
        assert line.shape == (1, 32, 240)
        return np.repeat(line, 2, axis=2)

    monkeypatch.setattr(model, "recognize", recognize)
    monkeypatch.setattr("hf_ocr.models.reading.level_line", level_line)
    if fixed:
        model.config, widths = SimpleNamespace(image_width=240), widths[:1]
    read_images(model, bar_processor(), [Image.new("L", (240, 32), SHADES["a"])])
    assert asked == widths


class SureOfNarrowImages(BarReader):
    """Doubts every image, and less the narrower it is."""

    def recognize(self, pixel_values, widths, num_beams=1, with_characters=True):
        result = super().recognize(pixel_values, widths, num_beams, True)
        result.scores = 0.5 - widths / 10_000
        return result


def test_what_is_stretched_is_the_line_as_it_was():
    image, model = bars("abcd")[0], SureOfNarrowImages()
    read_images(model, bar_processor(), [image])
    assert [width for _, widths in model.batches for width in widths] == [
        image.width,
        *(round(image.width * stretch) for stretch in STRETCHES),
    ]


@pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270])
def test_a_turned_line_is_stretched_once_all_its_turns_are_read(turn):
    """By then the best is known: not the upright one, which comes first and is the narrowest."""
    image, model = bars("abcdefgh")[0], SureOfWideBars()
    model.sure_from = 1000
    read_images(model, bar_processor(), [image.transpose(turn)])
    widths = [width for _, widths in model.batches for width in widths]
    assert len(widths) == 3 + len(STRETCHES)
    assert widths[3:] == [round(image.width * stretch) for stretch in STRETCHES]


def test_readers_read_several_images_and_the_calling_thread_a_single_one():
    class Where(BarReader):
        def recognize(self, *args, **kwargs):
            threads.add(threading.get_ident())
            return super().recognize(*args, **kwargs)

    image, before = bars("abcd")[0], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for count, in_calling_thread in ((1, True), (6, False)):
            threads: set[int] = set()
            with ReadingThreads(torch.device("cpu")) as readers:
                read_images(Where(), bar_processor(), [image] * count, readers=readers)
            assert (threading.get_ident() in threads) == in_calling_thread
    finally:
        torch.set_num_threads(before)


class CoolReader(SureOfWideBars):
    """Its scores say the contrary of what it thinks."""

    def recognize(self, *args, **kwargs):
        result = super().recognize(*args, **kwargs)
        result.raw_scores, result.scores = result.scores, 1 - result.scores
        return result


def test_a_temperature_neither_chooses_a_reading_nor_calls_for_another():
    image = bars("abcd")[0]
    warm, cool = SureOfWideBars(), CoolReader()
    (expected,) = read_images(warm, bar_processor(), [image], with_characters=True)
    (reading,) = read_images(cool, bar_processor(), [image], with_characters=True)
    assert cool.batches == warm.batches
    assert (reading.text, reading.characters) == (expected.text, expected.characters)
    assert reading.score == pytest.approx(1 - expected.score)


@pytest.mark.parametrize("score_as", ["geometric_mean", "mean", "min"])
def test_the_score_is_made_of_the_characters_as_asked(score_as):
    model, processor = tiny_recognizer()
    given = read_images(model, processor, lines(6), score_as=score_as)
    asked = read_images(model, processor, lines(6), with_characters=True)
    for reading, full in zip(given, asked, strict=True):
        assert (reading.text, reading.characters) == (full.text, None)
        scores = [character.score for character in full.characters]
        assert reading.score == pytest.approx(aggregate(scores, score_as))
        assert full.score == pytest.approx(aggregate(scores, "product"), rel=1e-3)
    blank = Image.new("RGB", (200, 40), "white")
    (reading,) = read_images(BarReader(), bar_processor(), [blank], score_as=score_as)
    assert (reading.text, reading.score) == ("", pytest.approx(0.96))
    with pytest.raises(ValueError, match="score_as is 'max'"):
        read_images(model, processor, [], score_as="max")


def test_a_blank_image_reads_as_nothing_with_a_score():
    (reading,) = read_images(BarReader(), bar_processor(), [Image.new("RGB", (200, 40), "white")], with_characters=True)
    assert (reading.text, reading.characters, reading.error) == ("", [], None)
    assert reading.score == pytest.approx(0.96)


def test_batches_hold_one_bucket_padded_to_its_width_whatever_else_is_read():
    images = [bars("abcdefgh"[: 1 + i % 8] * (1 + i % 3))[0] for i in range(40)]
    model = BarReader()
    read_images(model, bar_processor(), images, batch_size=8)
    assert sum(len(widths) for _, widths in model.batches) == 40
    assert any(len(widths) > 1 for _, widths in model.batches)
    for shape, widths in model.batches:
        assert len(widths) <= 8
        assert {bucket_width(width) for width in widths} == {shape[-1]}


def test_bucket_width_holds_the_image_and_wastes_little():
    for width in range(1, 5000):
        assert 0 <= bucket_width(width) - width < (32 if width < 256 else width / 8 + 1)
        assert bucket_width(bucket_width(width)) == bucket_width(width)


def test_the_order_is_kept():
    texts = ["abcdefgh", "a", "hgfe", "bb" * 9, "cd", "efga" * 4] * 6
    images = [bars(text)[0] for text in texts]
    assert [reading.text for reading in read_images(BarReader(), bar_processor(), images, batch_size=4)] == texts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_does_not_depend_on_the_neighbours(dtype):
    model, processor = tiny_recognizer()
    model = model.reading_copy(dtype)
    images = lines(24)
    together = read_images(model, processor, images, batch_size=8, with_characters=True)
    backwards = read_images(model, processor, images[::-1], batch_size=3, with_characters=True)[::-1]
    assert len({reading.text for reading in together}) > 12, "the model reads everything alike: nothing is tested"
    for index, image in enumerate(images):
        (alone,) = read_images(model, processor, [image], with_characters=True)
        for other in (together[index], backwards[index]):
            assert other.text == alone.text
            assert other.score == pytest.approx(alone.score, rel=1e-3)
            assert close([c.box for c in other.characters], [c.box for c in alone.characters], 1e-3)


def test_readings_equal_what_the_model_recognizes(monkeypatch):
    monkeypatch.setattr("hf_ocr.models.reading.DOUBTFUL", 0.0)
    model, processor = tiny_recognizer()
    for image in lines(5):
        inputs = processor(images=[image], return_tensors="pt")
        recognition = model.recognize(**inputs)
        (reading,) = read_images(model, processor, [image])
        assert reading.text == processor.batch_decode(recognition.sequences)[0]
        assert reading.score == pytest.approx(recognition.scores.item(), rel=1e-3)


def test_further_arguments_reach_the_model():
    model, processor = tiny_recognizer()
    allowed = processor.tokenizer.convert_tokens_to_ids(list("ab"))
    texts = [reading.text for reading in read_images(model, processor, lines(6), allowed_ids=allowed)]
    assert set("".join(texts)) <= set("ab")
    assert texts != [reading.text for reading in read_images(model, processor, lines(6))]


def test_windows_are_taken_as_they_are_needed():
    model, processor = tiny_recognizer()
    taken = []

    def source():
        for index, image in enumerate(lines(200)):
            taken.append(index)
            yield image

    readings = iterate_readings(model, processor, source(), batch_size=2)
    assert taken == []
    next(readings)
    assert len(taken) == 32
    one_by_one = iterate_readings(model, processor, source(), batch_size=1)
    taken.clear()
    next(one_by_one)
    assert len(taken) == 1


def test_an_image_that_cannot_be_read_stops_the_reading_or_takes_its_place():
    model, processor = tiny_recognizer()
    images = lines(3)
    sources = [images[0], "no such file.png", images[1], Image.new("L", (1, 1)), images[2]]
    with pytest.raises(ImageError, match=r"no such file\.png"):
        read_images(model, processor, sources)
    readings = read_images(model, processor, sources, on_error="skip")
    assert "no such file.png" in readings[1].error
    assert "1 x 1 px" in readings[3].error
    assert [readings[i].text for i in (0, 2, 4)] == [reading.text for reading in read_images(model, processor, images)]
    assert (readings[1].text, readings[1].score, readings[0].error) == ("", 0.0, None)


def test_threads_change_nothing():
    model, processor = tiny_recognizer()
    sources = [*lines(9), "no such file.png"]
    with ThreadPoolExecutor(3) as executor:
        threaded = read_images(model, processor, sources, on_error="skip", executor=executor)
    assert threaded == read_images(model, processor, sources, on_error="skip")


def test_no_images_and_no_batch():
    model, processor = tiny_recognizer()
    assert read_images(model, processor, []) == []
    with pytest.raises(ValueError, match="batch_size is 0"):
        read_images(model, processor, lines(1), batch_size=0)


def test_boxes_of_a_model_that_gives_none_are_an_error():
    class Blind(BarReader):
        def recognize(self, *args, **kwargs):
            recognition = super().recognize(*args, **kwargs)
            return Recognition(sequences=recognition.sequences, scores=recognition.scores)

    with pytest.raises(ValueError, match="cannot tell where"):
        read_images(Blind(), bar_processor(), [bars("ab")[0]], with_characters=True)
