"""An alphabet that changes: what was known reads as before, whatever its id has become."""

import copy

import pytest
import torch
from transformers import BertConfig, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

from hf_ocr.alphabet import resize_alphabet
from hf_ocr.encoder_decoder import EncoderDecoderRecognizer, check_special_tokens
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.tokenization_characters import CharacterTokenizer

OLD = "zsa b"


@pytest.fixture
def parts():
    torch.manual_seed(0)
    tokenizer = CharacterTokenizer.from_alphabet(OLD)
    config = CrnnConfig.small(
        vocab_size=len(tokenizer), image_height=32, conv_channels=[4, 4, 4, 4, 8, 8, 8, 8], lstm_hidden_size=8
    )
    return CrnnForTextRecognition(config).eval(), tokenizer


def logits(model):
    with torch.no_grad():
        return model(torch.linspace(-1, 1, 2 * 32 * 64).view(2, 1, 32, 64)).logits


def test_union_keeps_ids_and_logits_and_puts_what_is_new_behind(parts):
    model, tokenizer = parts
    before = logits(model)
    resized = resize_alphabet(model, tokenizer, ["ſ", "aß", "s"])
    assert resized.alphabet == [*OLD, "ß", "ſ"]
    after = logits(model)
    assert after.shape[-1] == len(resized) == model.config.vocab_size == model.classifier.out_features
    assert torch.allclose(after[..., : len(tokenizer)], before, atol=1e-6)
    # The long s begins as a less likely "s"; "ß" resembles nothing and begins as the mean of all characters.
    vocab = resized.get_vocab()
    assert torch.allclose(after[..., vocab["ſ"]], before[..., vocab["s"]] - 1.0, atol=1e-6)
    assert torch.allclose(after[..., vocab["ß"]], before[..., 1:].mean(-1) - 1.0, atol=1e-6)


def test_new_matches_by_character_and_not_by_id(parts):
    model, tokenizer = parts
    before = logits(model)
    resized = resize_alphabet(model, tokenizer, "sb", mode="new")
    assert resized.alphabet == ["b", "s"]
    old, after = tokenizer.get_vocab(), logits(model)
    for symbol, index in resized.get_vocab().items():
        assert torch.allclose(after[..., index], before[..., old[symbol]], atol=1e-6), symbol


def test_a_resized_model_learns_and_is_saved(parts, tmp_path):
    model, tokenizer = parts
    resize_alphabet(model, tokenizer, "ſ")
    loss = model(torch.randn(1, 1, 32, 64), labels=torch.tensor([[6, 1]])).loss
    loss.backward()
    assert model.classifier.weight.grad[6].abs().sum() > 0
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(CrnnForTextRecognition.from_pretrained(tmp_path).eval()), logits(model.eval()))


def test_special_tokens_stay(parts):
    tokenizer = CharacterTokenizer.from_alphabet("ab", unk_token="<unk>")
    model = CrnnForTextRecognition(
        CrnnConfig.small(
            vocab_size=len(tokenizer), image_height=32, conv_channels=[4, 4, 4, 4, 8, 8, 8, 8], lstm_hidden_size=8
        )
    )
    row = model.classifier.weight[1].clone()
    resized = resize_alphabet(model, tokenizer, "cb", mode="new")
    assert resized.get_vocab() == {"<pad>": 0, "<unk>": 1, "b": 2, "c": 3}
    assert torch.equal(model.classifier.weight[1], row)


@pytest.fixture
def bert():
    """A decoder whose special tokens do not all stand in front, and whose head shares weight and bias."""
    torch.manual_seed(0)
    vocab = {"<pad>": 0, "a": 1, "b": 2, "<s>": 3, "</s>": 4}
    tokenizer = CharacterTokenizer(vocab=vocab, bos_token="<s>", eos_token="</s>")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    encoder = ViTConfig(image_size=8, patch_size=8, **sizes)
    decoder = BertConfig(
        vocab_size=5, pad_token_id=0, bos_token_id=3, eos_token_id=4, max_position_embeddings=8, **sizes
    )
    model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id = 3, 0, 4
    torch.nn.init.normal_(model.decoder.cls.predictions.bias)
    return EncoderDecoderRecognizer(model, tokenizer).eval(), tokenizer


def decoder_logits(model, ids):
    with torch.no_grad():
        return model.model(pixel_values=torch.ones(1, 3, 8, 8), decoder_input_ids=torch.tensor([ids])).logits


def test_union_keeps_ids_wherever_special_tokens_stand_and_a_shared_bias_grows(bert):
    model, tokenizer = bert
    before = decoder_logits(model, [3, 1, 2])
    resized = resize_alphabet(model, tokenizer, "cä")
    assert resized.get_vocab() == {**tokenizer.get_vocab(), "c": 5, "ä": 6}
    after = decoder_logits(model, [3, 1, 2])
    assert after.shape[-1] == model.config.decoder.vocab_size == 7
    assert torch.allclose(after[..., :5], before, atol=1e-6)
    assert torch.allclose(after[..., 6], before[..., 1] - 1.0, atol=1e-6)
    predictions = model.decoder.cls.predictions
    assert predictions.bias is predictions.decoder.bias
    assert predictions.decoder.weight is model.decoder.get_input_embeddings().weight


def test_new_moves_the_ids_of_special_tokens_in_the_configs(bert):
    model, tokenizer = bert
    before = decoder_logits(model, [3, 2])
    resized = resize_alphabet(model, tokenizer, "b", mode="new")
    assert resized.get_vocab() == {"<pad>": 0, "<s>": 1, "</s>": 2, "b": 3}
    assert torch.allclose(decoder_logits(model, [1, 3]), before[..., [0, 3, 4, 2]], atol=1e-6)
    for settings in (model.config, model.generation_config):
        assert (settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id) == (1, 0, 2)
    assert (model.config.decoder.bos_token_id, model.config.decoder.eos_token_id) == (1, 2)
    check_special_tokens(model.model, resized)


def test_texts_are_normalised_one_by_one(parts):
    model, tokenizer = parts
    assert resize_alphabet(model, tokenizer, ["e", "\u0301"]).alphabet == [*OLD, "e", "\u0301"]


def test_nothing_new_changes_nothing(parts):
    model, tokenizer = parts
    before = copy.deepcopy(model.state_dict())
    assert resize_alphabet(model, tokenizer, "a s", mode="fail") is tokenizer
    assert resize_alphabet(model, tokenizer, "a s", mode="union") is tokenizer
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())


def test_errors_name_what_was_seen(parts):
    model, tokenizer = parts
    with pytest.raises(ValueError, match=r"2 characters are not in the alphabet of 5: 'q' \(U\+0071\)"):
        resize_alphabet(model, tokenizer, "qr", mode="fail")
    with pytest.raises(ValueError, match="expected 'union', 'new' or 'fail'"):
        resize_alphabet(model, tokenizer, "q", mode="merge")
    with pytest.raises(ValueError, match="needs at least one"):
        resize_alphabet(model, tokenizer, "", mode="new")
    with pytest.raises(ValueError, match="do not belong together"):
        resize_alphabet(model, CharacterTokenizer.from_alphabet("abc"), "q")
