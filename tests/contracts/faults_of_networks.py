"""Faults of `forward` and of the state around a reading."""

import random

import pytest
import torch
from contracts import errors, invariance, tensors
from contracts.planting import around, fault, on_logits, on_recognition
from contracts.tiny_configs import TINY_CONFIGS
from torch import nn

# --- tensors


@fault(tensors.tiny_means_tiny, "parameters in its tiny configuration")
def a_large_tiny_configuration(patch, model_class):
    patch.setitem(TINY_CONFIGS, model_class.__name__, lambda vocab_size: model_class.config_class())


@fault(tensors.logits_are_finite_floats_before_the_softmax, "logits are probabilities")
def softmax(patch, model_class):
    on_logits(patch, model_class, lambda self, logits: logits.softmax(-1))


@fault(tensors.logits_are_finite_floats_before_the_softmax, "logits are log probabilities")
def log_softmax(patch, model_class):
    on_logits(patch, model_class, lambda self, logits: logits.log_softmax(-1))


@fault(tensors.logits_are_finite_floats_before_the_softmax, "white: logits are not finite")
def division_by_the_contrast(patch, model_class):
    def forward(original, self, pixel_values, *args, **kwargs):
        contrast = pixel_values.amax((1, 2, 3), keepdim=True) - pixel_values.amin((1, 2, 3), keepdim=True)
        return original(self, pixel_values / contrast, *args, **kwargs)

    around(patch, model_class, "forward", forward)


@fault(tensors.logit_lengths_count_the_valid_frames, "logit_lengths count padding")
def lengths_of_the_padded_images(patch, model_class):
    def forward(original, self, pixel_values, widths=None, **kwargs):
        output = original(self, pixel_values, widths, **kwargs)
        if widths is not None:
            output.logit_lengths = output.logit_lengths + (pixel_values.shape[-1] - widths) // 4
        return output

    around(patch, model_class, "forward", forward)


@fault(tensors.logit_lengths_count_the_valid_frames, "does not name the width")
def narrow_lines_fail_without_a_width(patch, model_class):
    def forward(original, self, pixel_values, *args, **kwargs):
        if pixel_values.shape[-1] < 8:
            raise ValueError("Kernel size can't be greater than actual input size")
        return original(self, pixel_values, *args, **kwargs)

    around(patch, model_class, "forward", forward)


@fault(tensors.loss_is_the_mean_of_its_lines, "not the mean")
def summed_loss(patch, model_class):
    def forward(original, self, pixel_values, *args, **kwargs):
        output = original(self, pixel_values, *args, **kwargs)
        output.loss = None if output.loss is None else output.loss * len(pixel_values)
        return output

    around(patch, model_class, "forward", forward)


@fault(tensors.padding_of_labels_changes_no_loss, "padding of labels")
def loss_by_the_width_of_labels(patch, model_class):
    def forward(original, self, *args, labels=None, **kwargs):
        output = original(self, *args, labels=labels, **kwargs)
        output.loss = None if labels is None else output.loss / labels.shape[1]
        return output

    around(patch, model_class, "forward", forward)


@fault(tensors.a_skipped_label_leaves_the_others_alone, "changes the loss or the gradients")
def infinite_loss_times_nothing(patch, model_class):
    def forward(original, self, *args, labels=None, **kwargs):
        output = original(self, *args, labels=labels, **kwargs)
        if labels is not None and output.skipped:
            output.loss = output.loss + output.logits.exp().sum() * float("inf") * 0
        return output

    around(patch, model_class, "forward", forward)


@fault(tensors.every_parameter_gets_a_gradient, "gets no gradient")
def detached_features(patch, model_class):
    def forward(original, self, *args, **kwargs):
        handle = self.base_model.register_forward_hook(
            lambda module, inputs, output: torch.utils._pytree.tree_map(lambda tensor: tensor.detach(), output)
        )
        try:
            return original(self, *args, **kwargs)
        finally:
            handle.remove()

    around(patch, model_class, "forward", forward)


@fault(tensors.every_parameter_gets_a_gradient, "no gradient but zeros")
def a_loss_without_effect(patch, model_class):
    def forward(original, self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        output.loss = output.loss * 0.0
        return output

    around(patch, model_class, "forward", forward)


# --- invariance


@fault(invariance.a_copy_for_reading_reads_the_same, "the copy differs")
def a_copy_of_rounded_weights(patch, model_class):
    def reading_copy(original, self, dtype):
        return original(self, torch.bfloat16).to(dtype)

    around(patch, model_class, "reading_copy", reading_copy)


@fault(invariance.padding_changes_no_logit, "padding changes logits")
def no_mask(patch, model_class):
    def forward(original, self, pixel_values, widths=None, **kwargs):
        output = original(self, pixel_values, None, **kwargs)
        output.logit_lengths = original(self, pixel_values, widths).logit_lengths
        return output

    around(patch, model_class, "forward", forward)


@fault(invariance.text_and_score_are_those_of_the_image_alone, "beams: the text depends on the batch")
def texts_of_the_wrong_rows(patch, model_class):
    def change(result):
        result.sequences = result.sequences.flip(0)
        return result

    on_recognition(patch, model_class, change)


@fault(invariance.text_and_score_are_those_of_the_image_alone, "the score depends on the batch")
def scores_relative_to_the_batch(patch, model_class):
    def change(result):
        result.scores = result.scores / result.scores.sum()
        return result

    on_recognition(patch, model_class, change)


@fault(invariance.eval_mode_is_deterministic, "two forward passes differ")
def dropout_without_end(patch, model_class):
    on_logits(patch, model_class, lambda self, logits: nn.functional.dropout(logits, 0.1, training=True))


@fault(invariance.training_differs_by_dropout_alone, "without dropout")
def noise_while_training(patch, model_class):
    on_logits(patch, model_class, lambda self, logits: logits + 1e-3 * self.training)


@fault(invariance.training_differs_by_dropout_alone, "dropout does nothing")
def dropout_forgotten(patch, model_class):
    def forward(original, self, *args, **kwargs):
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(nn.modules.dropout.F, "dropout", lambda hidden, *_, **__: hidden)
            return original(self, *args, **kwargs)

    around(patch, model_class, "forward", forward)


@fault(invariance.recognize_leaves_mode_random_state_and_weights, "changes the mode(?! of)")
def eval_for_good(patch, model_class):
    def recognize(original, self, *args, **kwargs):
        return original(self.eval(), *args, **kwargs)

    around(patch, model_class, "recognize", recognize)


@fault(invariance.recognize_leaves_mode_random_state_and_weights, "changes the mode of")
def frozen_layers_forgotten(patch, model_class):
    def recognize(original, self, *args, **kwargs):
        try:
            return original(self, *args, **kwargs)
        finally:
            self.train(self.training)

    around(patch, model_class, "recognize", recognize)


@fault(invariance.recognize_leaves_mode_random_state_and_weights, "changes the mode when it fails")
def mode_forgotten_after_an_error(patch, model_class):
    def recognize(original, self, *args, **kwargs):
        try:
            return original(self, *args, **kwargs)
        except ValueError:
            self.eval()
            raise

    around(patch, model_class, "recognize", recognize)


@fault(invariance.recognize_leaves_mode_random_state_and_weights, "draws random numbers")
def shuffled_reading(patch, model_class):
    def change(result):
        random.random()
        return result

    on_recognition(patch, model_class, change)


@fault(invariance.recognize_leaves_mode_random_state_and_weights, "changes weights or buffers")
def statistics_of_what_is_read(patch, model_class):
    def recognize(original, self, *args, **kwargs):
        with torch.no_grad():
            next(self.parameters()).mul_(0.999)
        return original(self, *args, **kwargs)

    around(patch, model_class, "recognize", recognize)


# --- errors


@fault(errors.wrong_pixel_values_are_named, "RuntimeError instead of a ValueError")
def shapes_unchecked(patch, model_class):
    def forward(original, self, pixel_values, *args, **kwargs):
        nn.functional.conv2d(pixel_values, torch.zeros(1, self.config.num_channels, 1, 1))
        return original(self, pixel_values, *args, **kwargs)

    around(patch, model_class, "forward", forward)


@fault(errors.wrong_widths_are_named, r"widths / \[64, 65\] / 64 px: accepted")
def widths_cut_to_the_image(patch, model_class):
    def forward(original, self, pixel_values, widths=None, *args, **kwargs):
        if widths is not None and widths.shape == pixel_values.shape[:1]:
            widths = widths.clamp(max=pixel_values.shape[-1])
        return original(self, pixel_values, widths, *args, **kwargs)

    around(patch, model_class, "forward", forward)


@fault(errors.wrong_labels_are_named, r"labels / row 1 / \[1, \d+\] / 1 to \d+: accepted")
def labels_cut_to_the_alphabet(patch, model_class):
    def forward(original, self, *args, labels=None, **kwargs):
        labels = None if labels is None else labels.clamp(max=self.config.vocab_size - 1)
        return original(self, *args, labels=labels, **kwargs)

    around(patch, model_class, "forward", forward)


@fault(errors.wrong_labels_are_named, "names no cure")
def an_error_without_a_cure(patch, model_class):
    def forward(original, self, *args, **kwargs):
        try:
            return original(self, *args, **kwargs)
        except ValueError as error:
            raise ValueError(str(error).split(". ")[0]) from error

    around(patch, model_class, "forward", forward)


@fault(errors.wrong_lexicons_are_named, "AttributeError instead of a ValueError")
def a_lexicon_moved_unchecked(patch, model_class):
    def recognize(original, self, *args, lexicon=None, **kwargs):
        return original(self, *args, lexicon=None if lexicon is None else lexicon.to(self.device), **kwargs)

    around(patch, model_class, "recognize", recognize)


@fault(errors.wrong_lexicons_are_named, r"the id -100 in row 1 / to \d+: accepted")
def a_lexicon_padded_as_labels(patch, model_class):
    def recognize(original, self, *args, lexicon=None, **kwargs):
        if isinstance(lexicon, torch.Tensor):
            lexicon = lexicon.masked_fill(lexicon == -100, 0)
        return original(self, *args, lexicon=lexicon, **kwargs)

    around(patch, model_class, "recognize", recognize)


@fault(errors.wrong_lexicons_are_named, "row 0, at position 1 / behind: accepted")
def words_end_at_a_gap(patch, model_class):
    def recognize(original, self, *args, lexicon=None, **kwargs):
        if isinstance(lexicon, torch.Tensor):
            lexicon = lexicon.masked_fill((lexicon == 0).cumsum(-1) > 0, 0)
        return original(self, *args, lexicon=lexicon, **kwargs)

    around(patch, model_class, "recognize", recognize)


@fault(errors.wrong_lexicons_are_named, r"allowed_ids / \[1\] / lexicon: accepted")
def allowed_ids_ignored_beside_a_lexicon(patch, model_class):
    def recognize(original, self, *args, lexicon=None, allowed_ids=None, **kwargs):
        return original(self, *args, lexicon=lexicon, allowed_ids=allowed_ids if lexicon is None else None, **kwargs)

    around(patch, model_class, "recognize", recognize)
