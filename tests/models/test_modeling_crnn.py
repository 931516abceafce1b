"""CRNN: what the paper states, padding, labels, reading."""

import pytest
import torch
from torch import nn

from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.modeling_crnn import CrnnBidirectionalLstm, CrnnForTextRecognition, CrnnModel


def tiny(**kwargs) -> CrnnForTextRecognition:
    torch.manual_seed(0)
    settings = {"vocab_size": 7, "image_height": 32, "conv_channels": [4] * 8, "lstm_hidden_size": 6} | kwargs
    model = CrnnForTextRecognition(CrnnConfig.small(**settings)).eval()
    for module in model.modules():  # fresh statistics would hide a wrong order of norm and mask
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return model


def test_paper_configuration_has_the_papers_parameters():
    model = CrnnForTextRecognition(CrnnConfig(vocab_size=37))
    # 7 convolutions with bias, batch norm on 5 and 6, BiLSTM 256, linear, BiLSTM 256, linear. The paper says 8.3 M; the
    # LSTM of PyTorch has two biases a gate.
    assert sum(p.numel() for p in model.parameters()) == 8_330_789


@pytest.mark.parametrize(("width", "frames"), [(100, 26), (128, 33), (320, 81)])
def test_paper_configuration_has_the_papers_output_length(width, frames):
    model = CrnnModel(CrnnConfig()).eval()
    features, lengths = model(torch.zeros(1, 1, 32, width))
    assert features.shape == (1, frames, 512)
    assert lengths.tolist() == [frames]
    assert model.frame_count(torch.tensor([width])).tolist() == [frames]


def test_kernels_in_two_are_the_whole_kernel_of_a_layer():
    model, whole = tiny(conv_ranks=[None, *range(2, 9)]), tiny()
    layer = model.crnn.convolutions[4]  # which strides
    hidden, widths = torch.randn(2, 4, 8, 20), torch.tensor([20, 20])
    expected = nn.functional.conv2d(hidden, layer.whole_kernel(), layer.convolution.bias, stride=(2, 1), padding=(1, 1))
    answers, _, _ = layer(hidden, widths, 20)
    torch.testing.assert_close(answers, layer.norm(expected).relu(), atol=1e-5, rtol=0)
    saved = [sum(p.numel() for p in network.parameters()) for network in (whole, model)]
    assert whole.config._parameter_count() - model.config._parameter_count() == saved[0] - saved[1]


@pytest.mark.parametrize("height", [32, 40, 48])
def test_small_configuration_is_small_with_horizontal_stride_4(height):
    model = CrnnForTextRecognition(CrnnConfig.small(vocab_size=341, image_height=height))
    assert sum(p.numel() for p in model.parameters()) < 4_000_000
    logits = model.eval()(torch.zeros(1, 1, height, 320)).logits
    assert logits.shape == (1, 80, 341)


@pytest.mark.parametrize(
    "model",
    [
        CrnnForTextRecognition(CrnnConfig(vocab_size=7, lstm_hidden_size=8)).eval(),
        tiny(),
        tiny(conv_ranks=[None, *range(2, 9)], lstm_projection=True),
        tiny(lstm_projection=True, lstm_input_size=5),
    ],
    ids=["vgg", "small", "low rank", "few features"],
)
@pytest.mark.parametrize("padding", [1, 3, 4, 37])
def test_padding_changes_no_logit(model, padding):
    torch.manual_seed(1)
    image = torch.randn(1, 1, 32, 70)
    alone = model(image)
    padded = torch.cat([image, torch.randn(1, 1, 32, padding)], dim=-1)
    batch = torch.cat([padded, torch.randn(1, 1, 32, 70 + padding)])
    together = model(batch, widths=torch.tensor([70, 70 + padding]))
    frames = int(alone.logit_lengths)
    assert together.logit_lengths[0] == frames
    torch.testing.assert_close(together.logits[0, :frames], alone.logits[0], atol=1e-5, rtol=0)


def test_reversed_rows_equal_a_packed_lstm():
    torch.manual_seed(0)
    ours = CrnnBidirectionalLstm(5, 3)
    packed = nn.LSTM(5, 3, bidirectional=True)
    packed.load_state_dict(
        {
            **ours.forward_lstm.state_dict(),
            **{f"{name}_reverse": value for name, value in ours.backward_lstm.state_dict().items()},
        }
    )
    hidden, lengths = torch.randn(9, 3, 5), torch.tensor([9, 4, 1])
    frames = torch.arange(9)[:, None]
    out = ours(hidden, torch.where(frames < lengths, lengths - 1 - frames, frames))
    expected = nn.utils.rnn.pack_padded_sequence(hidden, lengths, enforce_sorted=True)
    expected = nn.utils.rnn.pad_packed_sequence(packed(expected)[0], total_length=9)[0]
    valid = (frames < lengths)[:, :, None]
    torch.testing.assert_close(out * valid, expected * valid, atol=1e-6, rtol=0)


def test_frame_to_pixel_follows_a_stroke():
    """A stroke moved by whole frames moves the response by the scale; its centre lies where the offset says."""
    model = CrnnModel(CrnnConfig.small(vocab_size=7, image_height=32))
    scale, offset = model.frame_to_pixel()
    assert scale == 4.0
    # Convolutions of ones only: the response is symmetric about the frames that see the stroke.
    response = torch.ones(1, 1, 32, 128, requires_grad=True)
    hidden, widths, least = response, torch.tensor([128]), 128
    for layer in model.convolutions:
        nn.init.ones_(layer.convolution.weight)
        layer.norm = nn.Identity()
        hidden, widths, least = layer(hidden, widths, least)
    hidden[0, 0, 0, 16].backward()
    columns = response.grad[0, 0].sum(0)
    centre = float((columns * (torch.arange(128) + 0.5)).sum() / columns.sum())
    assert abs(centre - (scale * 16.5 + offset)) < 0.01


def test_a_copy_for_reading_may_have_residual_blocks():
    model = tiny(residual_blocks=[0, 0, 1, 0, 0, 0, 0, 0])
    image = torch.randn(2, 1, 32, 80)
    torch.testing.assert_close(
        model.reading_copy(torch.float32)(image).logits, model(image).logits, atol=1e-5, rtol=1e-5
    )


def test_loss_is_the_stated_mean_and_ignores_label_padding():
    model = tiny()
    images = torch.randn(2, 1, 32, 80)
    labels = torch.tensor([[1, 2, 2], [3, -100, -100]])
    loss = model(images, labels=labels).loss
    single = [model(images[i : i + 1], labels=labels[i : i + 1]).loss for i in range(2)]
    torch.testing.assert_close(loss, sum(single) / 2)
    output = model(images[:1])
    nll = nn.functional.ctc_loss(
        output.logits.log_softmax(-1).transpose(0, 1), labels[:1], (20,), (3,), reduction="sum"
    )
    torch.testing.assert_close(single[0], nll / 3**0.5)
    longer = torch.cat([labels, torch.full((2, 4), -100)], dim=1)
    torch.testing.assert_close(model(images, labels=longer).loss, loss)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([1, 1, 1, 1, 1, 1, 1, 1, 1], "frames"),
        ([1, 7], "outside the alphabet"),
        ([0, 1], "outside"),
        ([], "no characters"),
    ],
    ids=["unalignable", "id", "blank", "empty"],
)
def test_bad_labels_are_an_error_or_counted_and_skipped(label, message):
    good = [1, 2, 3]
    rows = [good + [-100] * 6, label + [-100] * (9 - len(label))]
    labels = torch.tensor(rows)
    images = torch.randn(2, 1, 32, 64)  # 16 frames; nine equal characters need 17
    with pytest.raises(ValueError, match=message):
        tiny()(images, labels=labels)
    model = tiny(invalid_labels="skip", empty_labels="skip")
    output = model(images, labels=labels)
    assert output.skipped == 1
    torch.testing.assert_close(output.loss, model(images[:1], labels=labels[:1]).loss)
    alone = model(images[1:], labels=labels[1:])
    assert alone.loss == 0 and alone.skipped == 1
    alone.loss.backward()


def test_blank_lines_can_be_trained():
    model = tiny(empty_labels="blank")
    output = model(torch.randn(1, 1, 32, 64), labels=torch.full((1, 2), -100))
    assert output.skipped == 0
    log_blank = model(torch.randn(1, 1, 32, 64)).logits.log_softmax(-1)[..., 0]
    assert torch.isfinite(output.loss) and output.loss > 0 and log_blank.shape == (1, 16)


@pytest.mark.parametrize(
    ("pixel_values", "widths", "message"),
    [
        (torch.zeros(1, 3, 32, 64), None, "shape"),
        (torch.zeros(1, 1, 40, 64), None, "shape"),
        (torch.zeros(1, 1, 32, 64, dtype=torch.uint8), None, "dtype"),
        (torch.zeros(1, 1, 32, 64), torch.tensor([65]), "widths"),
        (torch.zeros(1, 1, 32, 1), torch.tensor([0]), "too narrow"),
    ],
)
def test_wrong_tensors_are_named(pixel_values, widths, message):
    with pytest.raises(ValueError, match=message):
        tiny()(pixel_values, widths)


def test_recognize_gives_spans_inside_the_image_and_keeps_the_mode():
    model = tiny().train()
    result = model.recognize(torch.randn(3, 1, 32, 90), widths=torch.tensor([90, 64, 70]))
    assert model.training
    valid = result.sequences != 0
    assert valid.any()
    starts, ends = result.character_spans[..., 0], result.character_spans[..., 1]
    assert (ends[valid] > starts[valid]).all()
    assert (ends <= torch.tensor([90.0, 64.0, 70.0])[:, None]).all() and (starts >= 0).all()
    assert ((result.scores > 0) & (result.scores <= 1)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_height": 64}, "reduces"),
        ({"conv_channels": [4] * 6}, "one entry"),
        ({"invalid_labels": "drop"}, "drop"),
        ({"vocab_size": 10**6}, "vocab_size is 1000000, expected a whole number from 2 to 200,000"),
        ({"vocab_size": "37"}, "vocab_size is '37'"),
        ({"num_lstm_layers": True}, "num_lstm_layers is True"),
        ({"lstm_input_size": 0}, "lstm_input_size is 0"),
        ({"lstm_input_size": 64, "lstm_projection": False}, "without lstm_projection"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"conv_strides": [[-1, 1]] * 7}, r"conv_strides\[0\] is -1"),
        ({"conv_kernels": [3] * 7}, r"conv_kernels\[0\] is 3, expected a list of 2"),
        ({"conv_ranks": [None] * 6 + [0]}, r"conv_ranks\[6\] is 0"),
        ({"conv_ranks": [8] * 6}, "one entry"),
        ({"pool_paddings": [[0, 2]] * 7}, r"pool_paddings\[0\] is 2"),
        ({"lstm_hidden_size": 4096}, "parameters, expected at most"),
        (
            {
                "image_height": 32,
                "conv_channels": [64] * 6 + [2400],
                "conv_ranks": [None] * 6 + [4096],
                "residual_blocks": [0] * 6 + [1],
            },
            "parameters, expected at most",
        ),
        ({"pad_token_id": 3}, "pad_token_id is 3"),
        ({"dtype": "load"}, "dtype is 'load'"),
        ({"downsampling": 1}, "'downsampling' is no setting"),
    ],
)
def test_configuration_names_what_does_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        CrnnConfig(**settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": 2.5}, "num_beams is 2.5, expected a whole number"),
        ({"allowed_ids": []}, "allowed_ids"),
        ({"allowed_ids": [1, 7]}, "1 to 6"),
        ({"allowed_ids": [1.5]}, "allowed_ids is .1.5., expected a list of whole numbers"),
        ({"allowed_ids": "12"}, "allowed_ids is '12', expected a list"),
        ({"allowed_ids": 5}, "allowed_ids is 5, expected a list"),
    ],
)
def test_recognize_names_a_wrong_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny().recognize(torch.zeros(1, 1, 32, 64), **arguments)
