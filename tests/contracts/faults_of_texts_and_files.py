"""Faults of what is read, saved, learnt and carried elsewhere."""

from pathlib import Path

import torch
from contracts import learning, persistence, readings, travel
from contracts.planting import around, fault, on_config_file, on_logits, on_recognition
from torch import nn
from transformers import AutoModelForTextRecognition

import hf_ocr.training
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer

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
def a_character_short(patch, model_class):
    def change(result):
        result.sequences = result.sequences[:, 1:]
        return result

    on_recognition(patch, model_class, change)


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


@fault(readings.characters_multiply_to_the_text, "do not multiply to that of the text")
def posteriors_of_the_alignment(patch, model_class):
    """Near 1 for whatever was read."""

    def change(result):
        result.character_scores = result.character_scores.clamp(min=0.99) * (result.sequences != 0)
        return result

    on_recognition(patch, model_class, change)


@fault(readings.temperature_changes_scores_alone, "no scores at temperature 1 beside")
def temperature_ignored(patch, model_class):
    def recognize(original, self, *args, **kwargs):
        temperature, self.config.temperature = self.config.temperature, 1.0
        result = original(self, *args, **kwargs)
        self.config.temperature = temperature
        return result

    around(patch, model_class, "recognize", recognize)


@fault(readings.temperature_changes_scores_alone, "the raw scores are not those at temperature 1")
def raw_scores_of_another_temperature(patch, model_class):
    def change(result):
        result.raw_scores = result.scores
        return result

    on_recognition(patch, model_class, change)


@fault(readings.temperature_changes_scores_alone, "the temperature is loaded as 1.0")
def temperature_left_behind(patch, model_class):
    on_config_file(patch, model_class, lambda config: {k: v for k, v in config.items() if k != "temperature"})


@fault(readings.autocast_reads_too, "Expected self.dtype to be equal to src.dtype")
def types_that_autocast_parts(patch, model_class):
    def recognize(original, self, *args, **kwargs):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        product.scatter_(0, torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2))
        return original(self, *args, **kwargs)

    around(patch, model_class, "recognize", recognize)


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


# --- learning, travel


@fault(learning.eight_words_are_learnt, "the words read as")
def only_the_last_bias_learns(patch, model_class):
    """All biases and norms together are enough for eight words, where a transformer has them."""

    def train(original, self, mode=True):
        for parameter in list(self.parameters())[:-1]:
            parameter.requires_grad_(False)
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


@fault(travel.a_published_folder_stands_alone, "does not load without hf_ocr")
def no_base_class_beside(patch, model_class):
    def without_base(config):
        config["auto_map"].pop("AutoModel")
        return config

    on_config_file(patch, model_class, without_base)


@fault(travel.a_folder_travels_without_the_package, "does not load without the package")
def no_pipeline_beside(patch, model_class):
    on_config_file(patch, model_class, lambda config: {k: v for k, v in config.items() if k != "custom_pipelines"})
