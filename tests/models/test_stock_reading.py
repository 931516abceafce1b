"""Donut and MGP-STR, as transformers builds them, through the pipeline."""

import pytest
import torch
from PIL import Image
from tiny_recognizer import lines
from tiny_stock_models import tiny_donut, tiny_mgp_str
from transformers import AutoProcessor, AutoTokenizer, MgpstrConfig, MgpstrForSceneTextRecognition, pipeline
from transformers.models.mgp_str.processing_mgp_str import MgpstrProcessor

import hf_ocr  # noqa: F401  registers the tasks
from hf_ocr.evaluation import evaluate

TEXTS = ["a", "total 12", "x y z", "invoice"]
WORDS = ["a", "total12", "invoice", "xyz"]


def texts(results):
    return [result[0]["generated_text"] for result in results]


# Donut


@pytest.fixture(scope="module")
def donut(tmp_path_factory):
    return tiny_donut(tmp_path_factory.mktemp("donut"), lines(4), TEXTS)


@pytest.fixture(scope="module")
def read(donut):
    return pipeline("image-to-text", model=str(donut))


def test_a_donut_starts_from_the_task_that_its_checkpoint_names(read, donut):
    assert texts(read(lines(4))) == TEXTS
    assert texts(read(lines(4), batch_size=3)) == TEXTS
    objects = pipeline("image-to-text", model=read.model, processor=AutoProcessor.from_pretrained(donut))
    assert texts(objects(lines(4))) == TEXTS


def test_another_task_is_a_prompt_and_tags_are_no_text(read, donut):
    parts = ["a", "tota l 12", "x y z", "inv oice"]
    for batch_size in (1, 4):
        results = read(lines(4), prompt="<s_parts>", batch_size=batch_size, return_scores=True)
        assert texts(results) == parts
        assert all(0.3 < result["score"] <= 1 for (result,) in results)
    assert texts(pipeline("image-to-text", model=str(donut), prompt="<s_parts>")(lines(4))) == parts
    processor = AutoProcessor.from_pretrained(donut)
    for image, text in zip(lines(4), parts, strict=True):
        prompt = processor.tokenizer("<s_parts>", add_special_tokens=False, return_tensors="pt")["input_ids"]
        pixel_values = processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
        (sequence,) = processor.batch_decode(read.model.generate(pixel_values, decoder_input_ids=prompt))
        fields = processor.token2json(sequence.removeprefix("<s_parts>").replace("</s>", ""))
        assert " ".join(field for field in fields.values() if field) == text


def test_what_was_given_is_not_read(read):
    assert read(lines(2)[1], prompt="<s_parts><s_head>to") == [{"generated_text": "ta l 12"}]
    beams = {"num_beams": 2, "num_return_sequences": 2}
    results = read(lines(4)[1:3], prompt="<s_parts>", generate_kwargs=beams, return_scores=True, batch_size=2)
    assert texts(results) == ["tota l 12", "x y z"]
    assert all(1 >= best["score"] > second["score"] > 0 for best, second in results)


ENDLESS = {"suppress_tokens": [2], "forced_eos_token_id": None}


def test_a_long_prompt_leaves_fewer_positions(read):
    (result,) = read(lines(1)[0], prompt="<s_parts>" + "a" * 35, generate_kwargs=ENDLESS)  # the decoder has 40
    assert len(result["generated_text"]) <= 4
    with pytest.raises(ValueError, match=r"prompt has 39 tokens, expected at most 38: .* 40 positions.* Shorten it"):
        read(lines(1)[0], prompt="<s_parts>" + "a" * 38)


def test_whoever_bounds_the_length_the_decoder_has_positions_for_it(read, monkeypatch):
    image = lines(1)[0]
    longest = read(image, generate_kwargs=ENDLESS)
    assert len(longest[0]["generated_text"]) > 30
    for name in ("max_new_tokens", "max_length"):
        assert read(image, generate_kwargs={**ENDLESS, name: 100}) == longest
        with monkeypatch.context() as patch:
            patch.setattr(read.model.generation_config, name, 100)
            assert read(image, generate_kwargs=ENDLESS) == longest
    assert len(read(image, generate_kwargs={**ENDLESS, "max_length": 6})[0]["generated_text"]) <= 5


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<s_cord-v2>", "starts with no task of the tokenizer. Pass prompt= .* has <s_head>, <s_ocr>, <s_parts>"),
        ("", "starts with no task"),
        ("total", "starts with no task"),
        (["<s_ocr>"], "expected one string"),
    ],
)
def test_a_prompt_that_names_no_task_is_refused(read, prompt, message):
    with pytest.raises(ValueError, match=message):
        read(lines(1)[0], prompt=prompt)


@pytest.mark.parametrize(
    ("in_config", "in_generation_config", "message"),
    [
        (None, None, "does not say with which task its decoder starts.* Pass prompt= with .*<s_ocr>"),
        (1, 3, "is 3 in generation_config and 1 in config. Expected one id in both: .* Set both"),
        (3, None, "is None in generation_config and 3 in config"),
        (9, 9, "is 9, which in the tokenizer is 'e'. Expected a special token"),
        (99, 99, "is 99, which in the tokenizer is None"),
    ],
)
def test_a_start_that_is_missing_or_another_is_refused_with_the_cure(donut, in_config, in_generation_config, message):
    read = pipeline("image-to-text", model=str(donut))
    read.model.config.decoder_start_token_id = in_config
    read.model.generation_config.decoder_start_token_id = in_generation_config
    with pytest.raises(ValueError, match=message):
        read(lines(1)[0])
    assert texts([read(lines(2)[1], prompt="<s_ocr>")]) == TEXTS[1:2]
    assert texts([read(lines(2)[1], generate_kwargs={"decoder_start_token_id": 3})]) == TEXTS[1:2]


# MGP-STR


@pytest.fixture(scope="module")
def mgp_str(tmp_path_factory):
    return tiny_mgp_str(tmp_path_factory.mktemp("mgp-str"), lines(4), WORDS)


@pytest.fixture
def fused(mgp_str, monkeypatch):
    """With the tokenizers of all three heads."""
    monkeypatch.chdir(mgp_str.parent)
    return pipeline("image-to-text", model=str(mgp_str))


def test_the_surest_head_is_read_as_the_stock_processor_does(fused, mgp_str):
    images = lines(40)
    processor = MgpstrProcessor(fused.image_processor, AutoTokenizer.from_pretrained(mgp_str))
    pixel_values = processor(images=[image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = processor.batch_decode(fused.model(pixel_values).logits)
    results = fused(images, return_scores=True)
    whole = [index for index, score in enumerate(expected["scores"]) if score > 0]  # a head that came to an end
    assert len(whole) > 20
    for name in ("char_preds", "bpe_preds", "wp_preds"):
        assert any(expected[name][index] != expected["generated_text"][index] for index in whole)
    for index in whole:
        (result,) = results[index]
        assert result["generated_text"] == expected["generated_text"][index]
        assert result["score"] == pytest.approx(float(expected["scores"][index]), rel=1e-3)
    assert texts(results[:4]) == WORDS
    for parts in (
        {"processor": processor},
        {"tokenizer": processor.tokenizer, "image_processor": fused.image_processor},
    ):
        assert pipeline("image-to-text", model=fused.model, **parts)(images) == fused(images)


def test_without_the_tokenizers_of_others_the_characters_are_read_and_it_is_said(mgp_str):
    with pytest.warns(UserWarning, match=r"characters alone.* openai-community/gpt2 .*Download both once"):
        read = pipeline("image-to-text", model=str(mgp_str))
    for image, word in zip(lines(4), WORDS, strict=True):
        (result,) = read(image, return_scores=True)
        with torch.no_grad():
            logits = read.model(**read.image_processor(image.convert("RGB"), return_tensors="pt")).logits[0][0]
        ids = [*read.tokenizer(word, add_special_tokens=False)["input_ids"], 1]
        steps = logits.softmax(-1)[range(1, len(ids) + 1), ids]
        assert result == {"generated_text": word, "score": pytest.approx(float(steps.prod()), rel=1e-3)}
        assert read(image, score_as="min", min_score=0)[0]["score"] == pytest.approx(float(steps.min()), rel=1e-3)


def test_no_batch_changes_a_text_and_one_bad_image_nobody_else(fused, tmp_path):
    images = lines(12)
    alone = [fused(image) for image in images]
    assert fused(images) == fused(images, batch_size=5, num_workers=1) == alone
    modes = [images[1].convert(mode) for mode in ("RGB", "RGBA", "P", "CMYK", "I;16", "1")]
    assert texts(fused(modes))[:4] == [WORDS[1]] * 4
    (tmp_path / "bad.png").write_bytes(b"no image")
    mixed = [images[0], str(tmp_path / "bad.png"), Image.new("L", (1, 1)), images[1]]
    results = fused(mixed, on_error="skip")
    assert texts(results)[::3] == WORDS[:2]
    assert results[1][0]["generated_text"] is None and "bad.png" in results[1][0]["error"]
    with pytest.raises(ValueError, match=r"bad\.png"):
        fused(mixed)


def test_mgp_str_refuses_what_it_cannot_do(fused):
    image = lines(2)[1]
    assert fused(image, max_new_tokens=3) == [{"generated_text": "tot"}]
    with pytest.raises(ValueError, match="no generation argument num_beams; expected some of max_new_tokens"):
        fused(image, generate_kwargs={"num_beams": 2})
    with pytest.raises(ValueError, match="cannot tell where its characters stand"):
        fused(image, return_boxes="char")
    with pytest.raises(ValueError, match="mgp-str does not support conditional text generation"):
        fused(image, prompt="<s_ocr>")


@pytest.mark.parametrize("outputs", ["num_character_labels", "num_bpe_labels", "num_wordpiece_labels"])
def test_a_tokenizer_of_another_head_is_refused(fused, outputs):
    config = MgpstrConfig(**{**fused.model.config.to_dict(), outputs: 30})
    with pytest.raises(ValueError, match=r"does not fit the model: \d+ symbols in .*, 30 outputs in head"):
        pipeline("image-to-text", model=MgpstrForSceneTextRecognition(config), tokenizer=fused.tokenizer,
                 image_processor=fused.image_processor)  # fmt: skip


def test_the_evaluation_reads_as_the_pipeline(fused, mgp_str, read, donut):
    rows = [{"image": image, "text": text} for image, text in zip(lines(4), TEXTS, strict=True)]
    processor = MgpstrProcessor(fused.image_processor, AutoTokenizer.from_pretrained(mgp_str))
    assert [line.prediction for line in evaluate(fused.model, processor, rows).predictions] == WORDS
    report = evaluate(read.model, AutoProcessor.from_pretrained(donut), rows)
    assert report.exact_raw.value == 1.0 and min(line.score for line in report.predictions) > 0
