"""Width buckets: a pure function of (seed, chunk), every line once, equal cost."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from hf_ocr.data.augmentation import augment
from hf_ocr.data.batches import ChunkSequence, LineChunks, Source
from hf_ocr.data.lines import read_lines
from hf_ocr.models.image_loading import load_image
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def processor():
    return TextRecognitionProcessor(
        image_processor=TextLineImageProcessor(height=16, min_width=16),
        tokenizer=CharacterTokenizer.from_alphabet(ALPHABET),
    )


def rows(count, width=None, text="{:03d}"):
    return [
        {"image": Image.new("L", (width or 20 + 3 * index, 16), index % 256), "text": text.format(index)}
        for index in range(count)
    ]


class Rows(list):
    """Rows of which some cannot be loaded: they are the error."""

    def __getitem__(self, index):
        row = super().__getitem__(index)
        if isinstance(row, Exception):
            raise row
        return row


def texts(batches, tokenizer):
    return [tokenizer.decode(label[label != -100]) for batch in batches for label in batch["labels"]]


def jitter(image, generator):
    return Image.fromarray(generator.integers(0, 256, (16, image.width), dtype=np.uint8))


def test_a_pass_takes_every_line_once_in_a_new_order():
    chunks = LineChunks([Source(rows(48))], processor(), lines_per_chunk=16, batches_per_chunk=4)
    passes = []
    for number in range(2):
        read = [t for k in range(3) for t in texts(chunks[3 * number + k], chunks.processor.tokenizer)]
        assert sorted(read) == [f"{index:03d}" for index in range(48)]
        passes.append(read)
    assert passes[0] != passes[1]


def test_batches_are_of_like_width_and_cost():
    chunks = LineChunks([Source(rows(64))], processor(), lines_per_chunk=64, batches_per_chunk=8)
    batches = chunks[0]
    assert len(batches) == 8
    columns = [int(batch["widths"].sum()) for batch in batches]
    assert max(columns) - min(columns) <= 2 * max(int(batch["widths"].max()) for batch in batches)
    ranges = sorted((int(batch["widths"].min()), int(batch["widths"].max())) for batch in batches)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(ranges))


def test_a_chunk_depends_on_seed_and_number_alone():
    def chunk(seed, number):
        source = Source(rows(40, width=32), augment=jitter)
        return LineChunks([source], processor(), lines_per_chunk=8, batches_per_chunk=2, seed=seed)[number]

    first, again = chunk(1, 3), chunk(1, 3)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(first, again, strict=True) for name in a)
    for other in (chunk(2, 3), chunk(1, 4)):
        assert not torch.equal(first[0]["pixel_values"], other[0]["pixel_values"])


def test_shares_hold_in_every_chunk():
    sources = [Source(rows(30, text="a{}"), share=3), Source(rows(30, text="b{}"), share=1)]
    chunks = LineChunks(sources, processor(), lines_per_chunk=16, batches_per_chunk=2)
    for number in range(3):
        read = texts(chunks[number], chunks.processor.tokenizer)
        assert sum(text.startswith("a") for text in read) == 12


def test_ranks_share_the_chunks():
    one = LineChunks([Source(rows(64))], processor(), lines_per_chunk=16, batches_per_chunk=2)
    two = [
        LineChunks([Source(rows(64))], processor(), lines_per_chunk=16, batches_per_chunk=2, rank=rank, world=2)
        for rank in range(2)
    ]
    assert torch.equal(two[1][1][0]["labels"], one[3][0]["labels"])
    read = [t for part in two for k in range(2) for t in texts(part[k], one.processor.tokenizer)]
    assert len(set(read)) == 64


@pytest.mark.parametrize("kind", [None, "line", "word"])
def test_bad_rows_are_replaced_by_the_next(kind):
    """Before augmentation makes more of them than there is."""
    image = Image.new("L", (30, 16))
    found = Rows(
        [
            {"image": image, "text": "good"},
            {"image": image, "text": "a!"},
            OSError("image file is truncated"),
            {"image": Image.new("L", (1, 16)), "text": "1"},
            {"image": Image.new("L", (2, 16)), "text": "2"},
        ]
    )
    source = Source(found, augment=kind and partial(augment, kind=kind))
    chunks = LineChunks([source], processor(), lines_per_chunk=5, batches_per_chunk=1)
    for chunk in range(8):
        assert texts(chunks[chunk], chunks.processor.tokenizer) == ["good"] * 5


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!", b"II*\0"])
def test_a_line_with_damaged_exif_is_learnt(tmp_path, exif):
    """Its pixels are good; the decoding of datasets fails at them."""
    for name, extra in (("1", {"exif": exif}), ("2", {})):
        Image.new("L", (30, 16)).save(tmp_path / f"{name}.png", **extra)
        (tmp_path / f"{name}.gt.txt").write_text(name)
    chunks = LineChunks([Source(read_lines(tmp_path))], processor(), lines_per_chunk=2, batches_per_chunk=1)
    assert sorted(texts(chunks[0], chunks.processor.tokenizer)) == ["1", "2"]


def test_the_next_row_is_one_of_the_same_pass():
    found = Rows([SyntaxError("broken PNG file"), {"image": Image.new("L", (30, 16)), "text": "good"}])
    chunks = LineChunks([Source(found)], processor(), lines_per_chunk=2, batches_per_chunk=1)
    for chunk in range(8):
        assert texts(chunks[chunk], chunks.processor.tokenizer) == ["good"] * 2


@pytest.mark.parametrize("lines_per_batch", [1, 2])
def test_small_batches_are_never_empty(lines_per_batch):
    widths = np.random.default_rng(0).lognormal(4, 1, 200).astype(int) + 20
    uneven = [{"image": Image.new("L", (int(width), 16)), "text": "a"} for width in widths]
    sources = [Source(uneven, 0.8), Source(rows(9), 0.2)]
    chunks = LineChunks(sources, processor(), lines_per_chunk=16 * lines_per_batch, batches_per_chunk=16)
    for chunk in range(10):
        assert len(chunks[chunk]) == 16
        assert min(len(batch["labels"]) for batch in chunks[chunk]) >= 1


def test_few_shapes_are_multiples_and_keep_every_line():
    lines = rows(150)
    chunks = LineChunks([Source(lines)], processor(), lines_per_chunk=150, batches_per_chunk=4, few_shapes=True)
    batches = chunks[0]
    assert {len(batch["labels"]) % 4 for batch in batches} == {0}  # an eighth of 150 / 4
    assert {batch["pixel_values"].shape[-1] % 64 for batch in batches} == {0}
    read = texts(batches, chunks.processor.tokenizer)
    assert set(read) == {row["text"] for row in lines} and len(read) < 150 + 4
    for batch in batches:
        padding = torch.arange(batch["pixel_values"].shape[-1]) >= batch["widths"].max()
        assert not batch["pixel_values"][..., padding].any()
    columns = [int(batch["widths"].sum()) for batch in batches]
    assert max(columns) - min(columns) <= 8 * max(int(batch["widths"].max()) for batch in batches)


def test_few_shapes_leave_images_of_one_size_as_they_are():
    one = processor()
    one.image_processor = TextLineImageProcessor(height=16, min_width=100, max_width=100)
    chunks = LineChunks([Source(rows(40))], one, lines_per_chunk=40, batches_per_chunk=2, few_shapes=True)
    assert {batch["pixel_values"].shape[-1] for batch in chunks[0]} == {100}


def test_an_image_is_learnt_as_it_is_read():
    clear = Image.new("RGBA", (40, 16))
    clear.paste((0, 0, 0, 255), (8, 4, 30, 12))
    deep = Image.fromarray(np.linspace(0, 65535, 640, dtype=np.uint16).reshape(16, 40))
    for image in (clear, deep):
        one = processor()
        chunks = LineChunks([Source([{"image": image, "text": "a"}])], one, lines_per_chunk=1, batches_per_chunk=1)
        expected = one(images=[load_image(image)], return_tensors="pt")["pixel_values"]
        assert torch.equal(chunks[0][0]["pixel_values"], expected)


def test_useless_sources_are_an_error():
    with pytest.raises(ValueError, match="source 0 has 0 rows"):
        LineChunks([Source([])], processor())
    chunks = LineChunks([Source(rows(3, text="!{}"))], processor(), lines_per_chunk=4, batches_per_chunk=1)
    with pytest.raises(ValueError, match=r"none of its 3 rows .* 3 with characters outside the alphabet"):
        chunks[0]
    bad = [*rows(1, text="!{}"), *rows(2, width=90), {"image": b"", "text": "a"}]
    chunks = LineChunks([Source(bad)], processor(), lines_per_chunk=4, batches_per_chunk=1, max_width=80)
    with pytest.raises(ValueError, match="none of its 4 rows can be learnt: ") as raised:
        chunks[0]
    for cause in ("1 with characters outside", "2 wider than max_width, 80 px", "1 unreadable"):
        assert cause in str(raised.value)


def test_an_error_of_an_augmentation_is_no_fault_of_the_image():
    """It would be counted as one that cannot be read, and the line be lost without a word."""

    def augment(image, generator):
        raise ValueError("kind is 'lines'")

    chunks = LineChunks([Source(rows(3), augment=augment)], processor(), lines_per_chunk=4, batches_per_chunk=1)
    with pytest.raises(ValueError, match="kind is 'lines'"):
        chunks[0]


def test_an_image_that_an_augmentation_makes_too_wide_is_left_out():
    one = processor()

    def augment(image, generator):
        return image.resize((one.image_processor.max_width + 50, 16)) if image.width == 44 else image

    wide, narrow = rows(1, width=44), rows(1, width=40)
    chunks = LineChunks([Source([*wide, *narrow], augment=augment)], one, lines_per_chunk=4, batches_per_chunk=1)
    assert chunks[0][0]["widths"].tolist() == [40] * 4


def test_a_sequence_switches_the_mix_at_its_chunk():
    first, second = (
        LineChunks([Source(rows(16, text=text))], processor(), lines_per_chunk=4, batches_per_chunk=2)
        for text in ("a{}", "b{}")
    )
    both = ChunkSequence(first, second, switch=2)
    read = [texts(both[number], first.processor.tokenizer)[0][0] for number in range(4)]
    assert read == ["a", "a", "b", "b"]
    assert torch.equal(both[3][0]["labels"], second[3][0]["labels"])
    other = LineChunks([Source(rows(16))], processor(), lines_per_chunk=4, batches_per_chunk=1)
    with pytest.raises(ValueError, match="chunks of 2 and of 1"):
        ChunkSequence(first, other, switch=2)
