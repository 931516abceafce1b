"""Contract: what `forward` returns. Each function takes a class of `MODEL_CLASSES`, and fails where it breaks it."""

from typing import Any

import torch
from contracts.tiny_configs import tiny_batch, tiny_config, tiny_model

# Equal lengths: the mean over lines (CTC) and the mean over tokens (decoders) are then the same.
LABELS = torch.tensor([[1, 2, 3], [4, 4, 5], [9, 8, 9]])


def logits_are_finite_floats_before_the_softmax(model_class: Any) -> None:
    model = tiny_model(model_class)
    shape = (1, model.config.num_channels, model.config.image_height, 80)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, pixel_values in {"white": torch.ones(shape), "black": -torch.ones(shape), "noise": noise}.items():
        with torch.no_grad():
            output = model(pixel_values, labels=LABELS[:1])
        logits = output.logits
        assert logits.dtype == torch.float32, f"{name}: logits are {logits.dtype}"
        assert logits.shape == (1, int(output.logit_lengths[0]), model.config.vocab_size), f"{name}: shape of logits"
        assert logits.isfinite().all(), f"{name}: logits are not finite"
        assert output.loss.isfinite(), f"{name}: the loss is not finite"
        assert (logits.sum(-1) - 1).abs().max() > 1e-3, f"{name}: logits are probabilities"
        assert logits.logsumexp(-1).abs().max() > 1e-3, f"{name}: logits are log probabilities"


def logit_lengths_count_the_valid_frames(model_class: Any) -> None:
    """From 1 px to wider than any line: it works, or one error names the width."""
    model = tiny_model(model_class)
    image = torch.rand(1, model.config.num_channels, model.config.image_height, 72)
    frames = {}
    with torch.no_grad():
        for width in range(1, image.shape[-1] + 1):
            try:
                output = model(image[..., :width])
            except ValueError as error:
                assert f"{width} px" in str(error), f"the error does not name the width: {error}"
                continue
            assert output.logits.shape[1] == output.logit_lengths.tolist()[0], f"a line of {width} px alone"
            frames[width] = output.logits.shape[1]
        assert frames and max(frames) == 72, "no line of 72 px can be read"
        together = model(image.expand(len(frames), -1, -1, -1), widths=torch.tensor(list(frames)))
        assert together.logit_lengths.dtype == torch.int64, "dtype of logit_lengths"
        assert together.logit_lengths.tolist() == list(frames.values()), "logit_lengths count padding"
        wide = model(torch.zeros(1, *image.shape[1:3], 4096))
        assert wide.logits.shape[1] == wide.logit_lengths.tolist()[0] >= max(frames.values()), "a line of 4096 px"


def loss_is_the_mean_of_its_lines(model_class: Any) -> None:
    model = tiny_model(model_class)
    inputs = tiny_batch(model_class, count=3)
    with torch.no_grad():
        assert model(**inputs).loss is None, "a loss without labels"
        loss = model(**inputs, labels=LABELS).loss
        single = [
            model(**{name: tensor[row : row + 1] for name, tensor in inputs.items()}, labels=LABELS[row : row + 1]).loss
            for row in range(3)
        ]
    assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite(), "the loss is no finite float32 scalar"
    torch.testing.assert_close(loss, sum(single) / 3, msg="the loss is not the mean of the lines")


def padding_of_labels_changes_no_loss(model_class: Any) -> None:
    model = tiny_model(model_class)
    inputs = tiny_batch(model_class, count=3)
    labels = LABELS.clone()
    labels[0, 2:] = -100
    padded = torch.nn.functional.pad(labels, (0, 7), value=-100)
    with torch.no_grad():
        losses = [model(**inputs, labels=these).loss for these in (labels, padded)]
    assert losses[0] == losses[1], "the padding of labels changes the loss"


def a_skipped_label_leaves_the_others_alone(model_class: Any) -> None:
    """Loss and gradients are those of the lines that are not skipped."""
    inputs = tiny_batch(model_class, count=3)
    outside = LABELS.clone()
    outside[1, 2] = 99
    long = torch.nn.functional.pad(LABELS, (0, 400), value=-100)
    long[1] = 1
    found = []
    for rows, labels in ([0, 2], LABELS), ([0, 1, 2], outside), ([0, 1, 2], long):
        model = tiny_model(model_class)
        model.config.invalid_labels = "skip"
        output = model(**{name: tensor[rows] for name, tensor in inputs.items()}, labels=labels[rows])
        assert int(output.skipped) == len(rows) - 2, f"{int(output.skipped)} lines are skipped"
        output.loss.backward()
        found.append([output.loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for with_skipped in found[1:]:
        torch.testing.assert_close(
            with_skipped, found[0], atol=1e-4, rtol=1e-3, msg="a skipped line changes the loss or the gradients"
        )


def every_parameter_gets_a_gradient(model_class: Any) -> None:
    inputs = tiny_batch(model_class, count=3)
    for training in (True, False):
        model = tiny_model(model_class).train(training)
        model(**inputs, labels=LABELS).loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), f"{name}: the gradient is not finite"
            # Not while training: the bias of a convolution before a batch norm is then without effect.
            assert training or parameter.grad.any(), f"{name} gets no gradient but zeros"


def tiny_means_tiny(model_class: Any) -> None:
    """So that the suite stays fast; the limit counts every parameter."""
    count = sum(parameter.numel() for parameter in model_class(tiny_config(model_class)).parameters())
    assert count < 50_000, f"{model_class.__name__}: {count} parameters in its tiny configuration"


CONTRACTS = (
    tiny_means_tiny,
    logits_are_finite_floats_before_the_softmax,
    logit_lengths_count_the_valid_frames,
    loss_is_the_mean_of_its_lines,
    padding_of_labels_changes_no_loss,
    a_skipped_label_leaves_the_others_alone,
    every_parameter_gets_a_gradient,
)
