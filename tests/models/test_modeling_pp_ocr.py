"""PP-OCR: the layers are transformers' own, the padding is the image's own, norms freeze, characters have places."""

import pytest
import torch
import torch.nn.functional as F
from contracts.tiny_configs import tiny_batch, tiny_config, tiny_lines, tiny_model, tiny_processor
from torch import nn
from transformers import PPOCRV6SmallRecConfig, PPOCRV6SmallRecForTextRecognition, pipeline

from hf_ocr.models.configuration_pp_ocr import PpOcrConfig
from hf_ocr.models.modeling_pp_ocr import PpOcrForTextRecognition, PpOcrModel
from hf_ocr.models.reading import read_images


def tiny(**kwargs) -> PpOcrForTextRecognition:
    config = tiny_config(PpOcrForTextRecognition)
    torch.manual_seed(0)
    return PpOcrForTextRecognition(PpOcrConfig(**{**config.to_dict(), **kwargs})).eval()


def stock(model) -> PPOCRV6SmallRecForTextRecognition:
    """transformers' class with the weights of ours."""
    config = PPOCRV6SmallRecConfig(
        **{**model.config.encoder_config().to_dict(), "head_out_channels": model.config.vocab_size}
    )
    theirs = PPOCRV6SmallRecForTextRecognition(config).eval()
    names = {"pp_ocr.backbone.": "model.backbone.", "pp_ocr.encoder.": "head.encoder.", "classifier.": "head.head."}
    state = {}
    for name, tensor in model.state_dict().items():
        ours = next(prefix for prefix in names if name.startswith(prefix))
        state[names[ours] + name.removeprefix(ours)] = tensor
    theirs.load_state_dict(state)
    for block in theirs.head.encoder.svtr_block:  # PaddleOCR's value, which transformers has not
        block.layer_norm1.eps = block.layer_norm2.eps = 1e-5
    return theirs


def test_the_defaults_are_the_small_recognizer_of_transformers():
    with torch.device("meta"):
        ours = PpOcrForTextRecognition(PpOcrConfig(vocab_size=18714))
        theirs = PPOCRV6SmallRecForTextRecognition(PPOCRV6SmallRecConfig())
    count = sum(parameter.numel() for parameter in ours.parameters())
    assert count == sum(parameter.numel() for parameter in theirs.parameters()) == 5_275_722
    assert sorted(tuple(p.shape) for p in ours.parameters()) == sorted(tuple(p.shape) for p in theirs.parameters())


def test_logits_are_before_the_softmax_of_transformers_class():
    model = tiny_model(PpOcrForTextRecognition)
    pixel_values = torch.rand(2, 3, 48, 96) * 2 - 1
    with torch.no_grad():
        expected = stock(model)(pixel_values).last_hidden_state
        torch.testing.assert_close(model(pixel_values).logits.softmax(-1), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("width", "padded_width"), [(1, 32), (33, 64), (64, 64), (300, 320), (530, 576)])
def test_an_image_is_padded_to_its_bucket_and_read_as_far_as_it_goes(width, padded_width):
    model = tiny_model(PpOcrForTextRecognition)
    pixel_values = torch.rand(1, 3, 48, width) * 2 - 1
    with torch.no_grad():
        output = model(pixel_values)
        expected = stock(model)(F.pad(pixel_values, (0, padded_width - width))).last_hidden_state
    frames = -(-width // 8)
    assert output.logit_lengths.tolist() == [frames]
    torch.testing.assert_close(output.logits.softmax(-1), expected[:, :frames], atol=1e-6, rtol=1e-5)


def test_images_of_one_bucket_are_computed_at_once_and_others_apart():
    model = tiny_model(PpOcrForTextRecognition)
    shapes = []
    handle = model.pp_ocr.backbone.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
    pixel_values = torch.rand(4, 3, 48, 120)
    model(pixel_values, torch.tensor([120, 60, 98, 33]))
    handle.remove()
    assert [tuple(shape) for shape in shapes] == [(2, 3, 48, 128), (2, 3, 48, 64)]


def test_gradients_are_those_of_the_lines_alone():
    """Training, too, sees each line as it is read, whatever else is in the batch."""
    inputs = tiny_batch(PpOcrForTextRecognition, count=3)
    labels = torch.tensor([[1, 2, 3], [4, 4, 5], [9, 8, 9]])

    def gradients(rows):
        model = tiny_model(PpOcrForTextRecognition)
        for row in rows:
            model(**{name: tensor[row] for name, tensor in inputs.items()}, labels=labels[row]).loss.backward()
        return {name: parameter.grad / len(rows) for name, parameter in model.named_parameters()}

    together, apart = gradients([slice(0, 3)]), gradients([slice(row, row + 1) for row in range(3)])
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, apart[name], atol=1e-5, rtol=1e-3)


def test_frozen_batch_norms_keep_their_statistics_and_learn():
    inputs = tiny_batch(PpOcrForTextRecognition, count=2)
    labels = torch.tensor([[1, 2], [3, 4]])
    for freeze in (False, True):
        model = tiny(freeze_batch_norm=freeze)
        before = {name: tensor.clone() for name, tensor in model.named_buffers()}
        model.train()
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms and all(norm.training is not freeze for norm in norms)
        assert model.training and model.dropout.training
        model(**inputs, labels=labels).loss.backward()
        unchanged = [torch.equal(before[name], tensor) for name, tensor in model.named_buffers()]
        assert all(unchanged) if freeze else not any(unchanged)
        assert all(norm.weight.grad.any() for norm in norms)


def test_fresh_convolutions_pass_something_on():
    model = tiny()
    depthwise = model.pp_ocr.backbone.encoder.blocks[1].blocks[0].token_conv.weight
    assert depthwise.shape == (16, 1, 3, 3)
    assert abs(float(depthwise.detach().std()) - (2 / 9) ** 0.5) < 0.1


def test_frame_to_pixel_is_the_middle_of_what_a_frame_sees():
    model = tiny().pp_ocr
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        if hasattr(module, "token_squeeze_excitation"):  # it sees the whole width
            module.token_squeeze_excitation = nn.Identity()
    image = torch.ones(1, 3, 48, 128, requires_grad=True)
    model.backbone(image).feature_maps[-1][..., 16:18].sum().backward()  # the two columns of frame 8
    columns = image.grad.sum((0, 1, 2))
    centre = float((columns * (torch.arange(128) + 0.5)).sum() / columns.sum())
    scale, offset = model.frame_to_pixel()
    assert scale == 8.0
    assert abs(centre - (scale * 8.5 + offset)) < 1.0


def test_characters_have_places_from_left_to_right():
    model, processor = tiny_model(PpOcrForTextRecognition), tiny_processor(PpOcrForTextRecognition)
    for image, reading in zip(
        tiny_lines(), read_images(model, processor, tiny_lines(), with_characters=True), strict=True
    ):
        boxes = [character.box for character in reading.characters]
        assert boxes and "".join(character.text for character in reading.characters) == reading.text
        assert all(0 <= left < right <= image.width for left, _, right, _ in boxes)
        assert [box[0] for box in boxes] == sorted(box[0] for box in boxes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_height": 64}, "64 px to 4 rows, expected 3"),
        ({"stages": [[[3, 96, 96, [1, 8], False]], *PpOcrConfig().stages[1:]]}, "a frame is 64 px wide"),
        ({"stages": [[[3, 96, 96, 1, True]]]}, "expected a list of 4"),
        ({"stages": [[[3, 95, 96, 1, True]], *PpOcrConfig().stages[1:]]}, "channels in is 95"),
        ({"hidden_size": 121}, "expected a multiple of num_attention_heads"),
        ({"mlp_ratio": float("inf")}, "mlp_ratio is inf"),
        ({"vocab_size": 200_000, "hidden_size": 2048}, "parameters, expected at most"),
        ({"invalid_labels": "drop"}, "drop"),
        ({"empty_labels": "drop"}, "drop"),
    ],
)
def test_configuration_names_what_does_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        PpOcrConfig(**settings)


def test_the_recognizer_of_transformers_is_refused_with_the_way_out():
    processor = tiny_processor(PpOcrForTextRecognition)
    for task in ("text-recognition", "image-to-text"):
        with pytest.raises(ValueError, match=r"PPOCRV6SmallRecForTextRecognition.*hf-ocr convert rapidocr FOLDER"):
            pipeline(
                task,
                model=stock(tiny()),
                tokenizer=processor.tokenizer,
                image_processor=processor.image_processor,
            )


def test_the_bare_model_gives_features_of_every_frame():
    model = PpOcrModel(tiny().config).eval()
    features, lengths = model(torch.zeros(2, 3, 48, 100), torch.tensor([100, 20]))
    assert features.shape == (2, 13, model.config.hidden_size)
    assert lengths.tolist() == [13, 3]
