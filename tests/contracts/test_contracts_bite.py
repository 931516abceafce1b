"""Each contract finds the fault it is there for, planted into a real tiny model."""

import json
import random
from pathlib import Path

import pytest
import torch
from contracts import errors, invariance, learning, persistence, readings, tensors, travel
from contracts.test_model_contract import QUICK, SLOW, name
from contracts.tiny_configs import FEW, TINY_CONFIGS, tiny_model
from torch import nn
from transformers import AutoModelForTextRecognition

import hf_ocr.training
from hf_ocr import MODEL_CLASSES
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer

FAULTS = {}


def fault(contract, message):
    """The decorated function plants a fault into a class, which `contract` must find and say by `message`."""

    def register(plant):
        FAULTS[plant.__name__] = (plant, contract, message)
        return plant

    return register


def around(patch, owner, method, wrapper):
    """Replace `owner.method` by `wrapper(original, self, ...)`."""
    original = getattr(owner, method)

    def replaced(self, *args, **kwargs):
        return wrapper(original, self, *args, **kwargs)

    patch.setattr(owner, method, replaced)


def on_logits(patch, model_class, change):
    def forward(original, self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        output.logits = change(self, output.logits)
        return output

    around(patch, model_class, "forward", forward)


def on_recognition(patch, model_class, change):
    def recognize(original, self, *args, **kwargs):
        return change(original(self, *args, **kwargs))

    around(patch, model_class, "recognize", recognize)


def on_config_file(patch, model_class, change):
    def save_pretrained(original, self, folder, *args, **kwargs):
        original(self, folder, *args, **kwargs)
        path = Path(folder, "config.json")
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    around(patch, model_class, "save_pretrained", save_pretrained)


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
    def forward(original, self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        output.logit_lengths = torch.full_like(output.logit_lengths, output.logits.shape[1])
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
        output.loss = output.logits.sum() * 0.0
        return output

    around(patch, model_class, "forward", forward)


# --- invariance


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


# --- persistence


@fault(persistence.saved_and_loaded_is_the_same, "is not loaded as it was saved")
def weights_saved_in_half(patch, model_class):
    def save_pretrained(original, self, folder, *args, **kwargs):
        weights = {name: t.half().to(t) if t.is_floating_point() else t for name, t in self.state_dict().items()}
        original(self, folder, state_dict=weights)

    around(patch, model_class, "save_pretrained", save_pretrained)


@fault(persistence.saved_and_loaded_is_the_same, "CharacterTokenizer: no vocabulary")
def lost_tokenizer(patch, model_class):
    patch.setattr(CharacterTokenizer, "save_vocabulary", lambda self, *args, **kwargs: ())


@fault(persistence.weights_are_safetensors_alone, "pytorch_model.bin")
def a_pickle_beside(patch, model_class):
    def save_pretrained(original, self, folder, *args, **kwargs):
        original(self, folder, *args, **kwargs)
        Path(folder, "pytorch_model.bin").write_bytes(b"")

    around(patch, model_class, "save_pretrained", save_pretrained)


@fault(persistence.auto_classes_resolve, "AutoConfig gives|AutoModel gives")
def another_model_type(patch, model_class):
    on_config_file(patch, model_class, lambda config: {**config, "model_type": "vit"})


@fault(persistence.auto_classes_resolve, "AutoModelForTextRecognition gives")
def another_class_registered(patch, model_class):
    class Impostor(model_class):
        pass

    mapping = AutoModelForTextRecognition._model_mapping._extra_content
    patch.setitem(mapping, model_class.config_class, Impostor)


@fault(persistence.unknown_config_keys_survive, "lost by loading")
def strict_configuration(patch, model_class):
    config_class = model_class.config_class
    original = config_class.__post_init__
    patch.setattr(config_class, "__post_init__", lambda self, **unknown: original(self))


@fault(persistence.unknown_config_keys_survive, "lost by saving")
def known_keys_are_saved(patch, model_class):
    on_config_file(patch, model_class, lambda config: {key: config[key] for key in config if key != "a_note"})


@fault(persistence.bfloat16_loads_and_reads, "bfloat16 logits")
def logits_in_the_type_of_the_weights(patch, model_class):
    on_logits(patch, model_class, lambda self, logits: logits.to(self.dtype))


@fault(persistence.state_dict_keys_are_the_stored_ones, "is not as in")
def renamed_layer(patch, model_class):
    def state_dict(original, self, *args, **kwargs):
        return {f"new_{name}": tensor for name, tensor in original(self, *args, **kwargs).items()}

    around(patch, model_class, "state_dict", state_dict)


# --- readings


@fault(readings.encoding_and_decoding_is_the_identity, "decoding labels")
def stripped_texts(patch, model_class):
    def batch_decode(original, self, *args, **kwargs):
        return [text.strip() for text in original(self, *args, **kwargs)]

    around(patch, CharacterTokenizer, "batch_decode", batch_decode)


@fault(readings.blank_and_padding_never_appear, "greedy: a blank inside a text")
def padding_in_front(patch, model_class):
    def change(result):
        result.sequences = nn.functional.pad(result.sequences, (1, 0))
        return result

    on_recognition(patch, model_class, change)


@fault(readings.blank_and_padding_never_appear, "texts of other lengths")
def pad_token_decoded(patch, model_class):
    def batch_decode(original, self, *args, skip_special_tokens=True, **kwargs):
        return original(self, *args, skip_special_tokens=False, **kwargs)

    around(patch, TextRecognitionProcessor, "batch_decode", batch_decode)


@fault(readings.lexicon_and_allowed_ids_restrict, "is not in the lexicon")
def lexicon_ignored(patch, model_class):
    def recognize(original, self, *args, lexicon=None, **kwargs):
        return original(self, *args, **kwargs)

    around(patch, model_class, "recognize", recognize)


@fault(readings.lexicon_and_allowed_ids_restrict, "is not the best of the lexicon")
def first_word_of_the_lexicon(patch, model_class):
    def recognize(original, self, *args, lexicon=None, **kwargs):
        return original(self, *args, lexicon=None if lexicon is None else lexicon[:1], **kwargs)

    around(patch, model_class, "recognize", recognize)


@fault(readings.lexicon_and_allowed_ids_restrict, "4 beams: .* not allowed")
def beams_are_free(patch, model_class):
    def recognize(original, self, *args, num_beams=1, allowed_ids=None, **kwargs):
        return original(self, *args, num_beams=num_beams, allowed_ids=None if num_beams > 1 else allowed_ids, **kwargs)

    around(patch, model_class, "recognize", recognize)


@fault(readings.one_beam_is_greedy, "does not read the best path")
def swapped_blank(patch, model_class):
    """While it reads, the last symbol is the blank."""

    def recognize(original, self, *args, **kwargs):
        with pytest.MonkeyPatch.context() as inner:
            on_logits(inner, model_class, lambda self, logits: logits.roll(1, -1))
            return original(self, *args, **kwargs)

    around(patch, model_class, "recognize", recognize)


@fault(readings.a_wide_beam_reads_the_most_probable_text, "misses the best text")
def beams_ignored(patch, model_class):
    def recognize(original, self, *args, num_beams=1, **kwargs):
        return original(self, *args, **kwargs)

    around(patch, model_class, "recognize", recognize)


@fault(readings.a_wide_beam_reads_the_most_probable_text, "no probability of the text")
def score_a_character(patch, model_class):
    def change(result):
        result.scores = result.scores ** (1 / (result.sequences != 0).sum(-1).clamp(min=1))
        return result

    on_recognition(patch, model_class, change)


@fault(readings.loss_and_score_agree, "not that of what the score is of")
def loss_of_other_symbols(patch, model_class):
    def forward(original, self, *args, labels=None, **kwargs):
        if labels is not None:
            labels = torch.where(labels > 0, labels % (self.config.vocab_size - 1) + 1, labels)
        return original(self, *args, labels=labels, **kwargs)

    around(patch, model_class, "forward", forward)


@fault(readings.nothing_in_is_nothing_out, "expected a non-empty batch")
def an_empty_batch_fails(patch, model_class):
    def recognize(original, self, pixel_values, *args, **kwargs):
        if not len(pixel_values):
            raise ValueError("expected a non-empty batch")
        return original(self, pixel_values, *args, **kwargs)

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


# --- learning, travel


@fault(learning.eight_words_are_learnt, "the words read as")
def only_biases_learn(patch, model_class):
    def train(original, self, mode=True):
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.ndim < 2)
        return original(self, mode)

    around(patch, model_class, "train", train)


@fault(learning.a_resumed_run_ends_bit_for_bit_the_same, "tensors end differently")
def random_state_not_resumed(patch, model_class):
    original = hf_ocr.training.load_checkpoint

    def load_checkpoint(*args, **kwargs):
        state = torch.get_rng_state()
        result = original(*args, **kwargs)
        torch.set_rng_state(state)
        torch.rand(1)
        return result

    patch.setattr(hf_ocr.training, "load_checkpoint", load_checkpoint)


@fault(travel.a_folder_travels_without_the_package, "does not load without the package")
def no_pipeline_beside(patch, model_class):
    on_config_file(patch, model_class, lambda config: {k: v for k, v in config.items() if k != "custom_pipelines"})


def bites(planted, model_class):
    plant, contract, message = FAULTS[planted]
    tiny_model(model_class)  # built, and kept, before the fault is there
    tiny_model(model_class, vocab_size=FEW)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Exception, match=message):
        plant(patch, model_class)
        contract(model_class)


@pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=name)
@pytest.mark.parametrize("planted", [key for key, (_, contract, _) in FAULTS.items() if contract in QUICK])
def test_a_contract_bites(planted, model_class):
    bites(planted, model_class)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=name)
@pytest.mark.parametrize("planted", [key for key, (_, contract, _) in FAULTS.items() if contract in SLOW])
def test_a_slow_contract_bites(planted, model_class):
    bites(planted, model_class)


def test_every_contract_has_a_fault():
    contracts = {contract for _, contract, _ in FAULTS.values()}
    assert contracts == {*QUICK, *SLOW}
