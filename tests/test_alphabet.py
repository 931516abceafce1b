"""An alphabet that changes: what was known reads as before, whatever its id has become."""

import copy

import pytest
import torch

from hf_ocr.alphabet import resize_alphabet
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
