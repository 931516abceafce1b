"""What the family states: its size, its positions, reading by drafts, lines longer than any in training."""

import random

import pytest
import torch
from contracts.tiny_configs import tiny_batch, tiny_config, tiny_model, tiny_processor
from PIL import Image, ImageDraw, ImageFont
from rapidfuzz.distance import Levenshtein

from hf_ocr import CrnnConfig, CrnnForTextRecognition, VisionTextConfig, VisionTextForTextRecognition
from hf_ocr.models import vision_text_search
from hf_ocr.models.beam_search import beam_search, with_the_end
from hf_ocr.models.modeling_vision_text import VisionTextModel
from hf_ocr.models.reading import read_images
from hf_ocr.models.vision_text_search import DecoderSteps

LABELS = torch.tensor([[1, 2, 3], [4, 4, -100], [9, 8, 9]])


def model_and_inputs(count=3):
    return tiny_model(VisionTextForTextRecognition), tiny_batch(VisionTextForTextRecognition, count)


def test_the_small_network_has_its_stated_size():
    with torch.device("meta"):
        model = VisionTextForTextRecognition(VisionTextConfig.small(vocab_size=330))
        assert sum(parameter.numel() for parameter in model.parameters()) == 6_342_452
        crnn = CrnnForTextRecognition(CrnnConfig.small(vocab_size=330)).crnn.convolutions.state_dict()
    own = model.vision_text.convolutions.state_dict()
    assert {name: tensor.shape for name, tensor in crnn.items()} == {name: own[name].shape for name in own}


def test_a_crnn_gives_its_convolutions():
    crnn = CrnnForTextRecognition(CrnnConfig.small(vocab_size=5, image_height=32))
    model = VisionTextForTextRecognition.from_crnn(crnn, encoder_layers=1, decoder_layers=1, empty_labels="blank")
    assert (model.config.vocab_size, model.config.image_height, model.config.empty_labels) == (5, 32, "blank")
    for name, tensor in crnn.crnn.convolutions.state_dict().items():
        assert torch.equal(model.vision_text.convolutions.state_dict()[name], tensor), name


def test_a_crnn_gives_kernels_in_two_as_one():
    crnn = CrnnForTextRecognition(CrnnConfig.small(vocab_size=5, image_height=32, conv_ranks=[None, *[8] * 7]))
    model = VisionTextForTextRecognition.from_crnn(crnn, encoder_layers=1, decoder_layers=1)
    hidden, widths = torch.randn(1, 32, 16, 20), torch.tensor([20])
    expected, _, _ = crnn.eval().crnn.convolutions[1](hidden, widths, 20)
    answers, _, _ = model.eval().vision_text.convolutions[1](hidden, widths, 20)
    torch.testing.assert_close(answers, expected, atol=1e-5, rtol=0)


def test_a_crnn_with_residual_blocks_has_other_layers():
    config = CrnnConfig.small(vocab_size=5, image_height=32, residual_blocks=[0, 1, 0, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"residual_blocks=\[0, 1, 0.*expected none"):
        VisionTextForTextRecognition.from_crnn(CrnnForTextRecognition(config))


@pytest.mark.parametrize("height", [32, 40, 48])
def test_frames_cover_the_image(height):
    config = VisionTextConfig.small(image_height=height, encoder_layers=1)
    encoder = VisionTextModel(config).eval()
    for width in (1, 4, 5, 101):
        output = encoder(torch.zeros(1, 1, height, width))
        assert output.last_hidden_state.shape == (1, -(-width // 4), 256)
        assert output.lengths.tolist() == [encoder.frame_count(width)]
    # The frame in the middle of a dark column is the one that feels it most.
    image = torch.zeros(1, 1, height, 161)
    image[..., 80] = 1.0
    felt = (
        encoder.convolutions[0](image, torch.tensor([161]), 161)[0]
        - encoder.convolutions[0](0 * image, torch.tensor([161]), 161)[0]
    )
    scale, offset = encoder.frame_to_pixel()
    assert (20.5 * scale + offset, int(felt.abs().sum((0, 1, 2)).argmax())) == (80.5, 40)


def test_what_is_far_away_does_not_reach_a_frame():
    """The windows end: a change at one end of a long line leaves the other end as it was."""
    config = VisionTextConfig.small(
        vocab_size=9, image_height=32, stem_channels=[4, 4, 8, 8, 8, 8, 8], hidden_size=16, num_attention_heads=2,
        encoder_layers=2, attention_window=8,
    )  # fmt: skip
    model = VisionTextForTextRecognition(config).eval()
    images = torch.rand(1, 1, 32, 400)
    changed = images.clone()
    changed[..., 300:] = 0.0
    with torch.no_grad():
        before, after = model(images).logits, model(changed).logits
    torch.testing.assert_close(before[:, :45], after[:, :45], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, 80:], after[:, 80:], atol=1e-3)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model, inputs = model_and_inputs()
        if checkpointing:
            model.gradient_checkpointing_enable()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model.train()(**inputs, labels=LABELS).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_a_step_of_blank_lines_alone_is_learnt():
    """transformers' Trainer counts no characters then."""
    model, inputs = model_and_inputs()
    model.config.empty_labels = "blank"
    labels = torch.full_like(LABELS, -100)
    loss = model(**inputs, labels=labels, num_items_in_batch=torch.tensor(0)).loss
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_parts_of_a_step_add_up_to_the_whole_with_num_items_in_batch():
    model, inputs = model_and_inputs()
    items = int((LABELS != -100).sum())
    with torch.no_grad():
        whole = model(**inputs, labels=LABELS, num_items_in_batch=items).loss
        parts = [
            model(
                **{name: tensor[rows] for name, tensor in inputs.items()},
                labels=LABELS[rows],
                num_items_in_batch=items,
            ).loss
            for rows in (slice(0, 1), slice(1, 3))
        ]
    torch.testing.assert_close(sum(parts), whole)


def test_both_heads_share_the_loss():
    model, inputs = model_and_inputs()
    losses = {}
    for weight in (0.0, 0.3, 1.0):
        model.config.ctc_weight = weight
        with torch.no_grad():
            losses[weight] = float(model(**inputs, labels=LABELS).loss)
    assert losses[0.3] == pytest.approx(0.7 * losses[0.0] + 0.3 * losses[1.0], rel=1e-5)


def read_by_steps(model, inputs, allowed=None):
    with torch.no_grad():
        output = model(**inputs)
        start = model.start(output.encoder_last_hidden_state, output.logits, output.logit_lengths)
        return beam_search(DecoderSteps(start(texts=1), 1), output.logit_lengths, 1, allowed)


@pytest.mark.parametrize("allowed_ids", [None, [1, 2, 5, 7]])
@pytest.mark.parametrize(
    ("weight", "window", "cells"), [(0.0, 32, 1 << 25), (0.3, 3, 1 << 25), (0.3, 32, 2000), (0.95, 32, 1 << 25)]
)
def test_looking_ahead_changes_nothing_that_is_read(weight, window, cells, allowed_ids, monkeypatch):
    """With drafts that are seldom right, sometimes, and nearly always; texts end at different steps, some at once."""
    monkeypatch.setattr(vision_text_search, "MOST_CELLS", cells)
    model, inputs = model_and_inputs(12)
    model.config.ctc_weight = weight
    model.config.decoder_window = window
    with torch.no_grad():
        model.decoder.classifier.bias[0] += 1.5
    allowed = None
    if allowed_ids is not None:
        allowed = torch.zeros(model.config.vocab_size, dtype=torch.bool)
        allowed[allowed_ids] = True
    found = model.recognize(**inputs, allowed_ids=allowed_ids)
    expected = read_by_steps(model, inputs, allowed)
    assert len({int(row.count_nonzero()) for row in expected.sequences}) > 2
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(found.scores.log(), expected.log_scores, atol=1e-3, rtol=1e-4)
    steps = with_the_end(expected.sequences, expected.step_scores, expected.log_scores)
    torch.testing.assert_close(found.character_scores, steps, atol=1e-4, rtol=1e-3)


def test_the_decoder_looks_seldom_where_ctc_is_right():
    """Once where it is right to the end; else each look brings a character at least, and none looks far ahead."""
    model, inputs = model_and_inputs()
    with torch.no_grad():
        model.classifier.weight.mul_(50.0)
        model.classifier.bias.mul_(50.0)
    looks = []
    model.decoder.register_forward_hook(lambda module, args, output: looks.append(args[0].shape[2]))
    model.config.ctc_weight = 1.0
    model.recognize(**inputs, with_characters=False)
    sure = len(looks)
    model.config.ctc_weight = 0.0
    looks.clear()
    longest = model.recognize(**inputs, with_characters=False).sequences.shape[1]
    assert sure == 1 < longest / 2 < len(looks) <= longest + 1
    assert sum(looks[1:]) <= 3 * longest


def test_the_search_of_transformers_finds_the_same():
    model, inputs = model_and_inputs()
    greedy, beams = model.recognize(**inputs), model.recognize(**inputs, num_beams=3)
    for found, settings in ((greedy, {}), (beams, {"num_beams": 3, "length_penalty": 0.0, "early_stopping": False})):
        length = found.sequences.shape[1]
        generated = model.generate(**inputs, max_new_tokens=length, **settings)[:, 1:]
        assert torch.equal(generated[:, :length], found.sequences)


def test_the_ctc_head_reads_alone():
    model, inputs = model_and_inputs()
    found = model.recognize(**inputs, decoder="ctc")
    with torch.no_grad():
        output = model(**inputs)
    best = output.logits[0, : int(output.logit_lengths[0])].argmax(-1).unique_consecutive()
    assert found.sequences[0][found.sequences[0] != 0].tolist() == best[best != 0].tolist()
    with pytest.raises(ValueError, match=r"decoder is 'both', expected"):
        model.recognize(**inputs, decoder="both")


@pytest.mark.slow
def test_lines_six_times_as_long_as_any_in_training_are_read():
    """And nothing is read from a long white image. With absolute positions in place of frames this is noise."""
    words = ["noon", "banana", "102", "edge", "hand", "a", "220", "no", "bean", "0000"]
    font = ImageFont.load_default(24)

    def drawn(text):
        image = Image.new("L", (round(font.getlength(text)) + 16, 32), 255)
        ImageDraw.Draw(image).text((8, 0), text, fill=0, font=font)
        return image

    processor = tiny_processor(VisionTextForTextRecognition, "abdeghno 012")
    config = tiny_config(VisionTextForTextRecognition, len(processor.tokenizer))
    # Windows no longer than the lines of the training: what lies in them has then been seen.
    config.attention_window, config.decoder_window, config.dropout, config.empty_labels = 12, 6, 0.0, "blank"
    draw = random.Random(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTextForTextRecognition(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, 400)
        for _ in range(400):
            texts = ["", *(" ".join(draw.choices(words, k=draw.randint(1, 2))) for _ in range(15))]
            images = [drawn(text) if text else Image.new("L", (draw.randint(40, 200), 32), 255) for text in texts]
            optimizer.zero_grad()
            model(**processor(images=images, text=texts, return_tensors="pt")).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(6)]
    for settings in ({}, {"num_beams": 3}):
        read = [reading.text for reading in read_images(model, processor, [drawn(text) for text in texts], **settings)]
        errors = sum(Levenshtein.distance(one, text) for one, text in zip(read, texts, strict=True))
        assert errors < 0.25 * len("".join(texts)), read
    assert [reading.text for reading in read_images(model, processor, [Image.new("L", (1500, 32), 255)])] == [""]
    inputs = processor(images=[drawn(text) for text in texts], return_tensors="pt")
    assert torch.equal(model.eval().recognize(**inputs).sequences, read_by_steps(model, inputs).sequences)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden_size", 250),
        ("hidden_size", 10**9),
        ("stem_strides", [[1, 1]]),
        ("stem_channels", [-1] * 7),
        ("ctc_weight", 1.5),
        ("ctc_weight", 0),
        ("conv_kernel_size", 4),
        ("eos_token_id", 1),
        ("decoder_layers", "2"),
    ],
)
def test_settings_that_make_no_network_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        VisionTextConfig(**{setting: value})


def test_the_count_of_parameters_that_bounds_a_file_is_that_of_the_network():
    model = VisionTextForTextRecognition(VisionTextConfig.small(vocab_size=341))
    assert model.config._parameter_count() == pytest.approx(model.num_parameters(), rel=0.02)
