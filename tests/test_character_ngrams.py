"""A language model fitted to texts, against probabilities computed from counts as its definition has them."""

import unicodedata
from collections import Counter

import pytest
import torch

from hf_ocr.character_ngrams import choose_language_model, fit_language_model
from hf_ocr.models.language_model import CharacterLanguageModel
from hf_ocr.models.tokenization_characters import CharacterTokenizer

ALPHABET = "abcABC012 é-–"
TOKENIZER = CharacterTokenizer.from_alphabet(ALPHABET)
TEXTS = [("abc", 2.0), ("cab a1", 1.0), ("Abba", 1.5), ("c22 ab", 1.0), ("b", 1.0)]
UNSEEN = ["", "a", "abc", "ccc", "é", "ABBA", "a1 c2", "bab ac", "é é é é é"]


def ids(*texts):
    rows = [torch.tensor([TOKENIZER.get_vocab()[c] for c in text], dtype=torch.int64) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def kind(character):
    return "0" if character.isdigit() else character.lower().replace("–", "-")


def reference(text, order):
    """log P of a text by the recursion of Witten and Bell, from the counts of every context, in float64."""
    followers = {}
    for known, weight in TEXTS:
        padded = [""] * (order - 1) + [kind(c) for c in known] + [""]
        for place in range(order - 1, len(padded)):
            for length in range(order):
                context = tuple(padded[place - length : place])
                followers.setdefault(context, Counter())[padded[place]] += weight
    symbols = {kind(c) for c in ALPHABET} | {""}
    for symbol in symbols:
        followers[()].setdefault(symbol, 0)

    def probability(character, context):
        shorter = probability(character, context[1:]) if context else 1 / len(symbols)
        if context not in followers:
            return shorter
        total, kinds = followers[context].total(), len(followers[context])
        return (followers[context][character] + kinds * shorter) / (total + kinds)

    padded = [""] * (order - 1) + [kind(c) for c in text] + [""]
    places = range(order - 1, len(padded))
    return sum(torch.tensor(probability(padded[p], tuple(padded[p - order + 1 : p]))).log().item() for p in places)


def test_signs_are_what_is_no_letter_digit_or_mark_of_a_letter():
    tokenizer = CharacterTokenizer.from_alphabet("aé1²ا -€हिं्")
    model = fit_language_model(tokenizer, [("a1", 1.0)])
    vocab = tokenizer.get_vocab()
    assert {symbol for symbol in vocab if model.signs[vocab[symbol]]} == {" ", "-", "€"}
    texts = torch.tensor([[vocab[symbol] for symbol in text] for text in ("a-1 a€", "aaaaa-", "aaaaaa")])
    assert model.signs_of(texts).tolist() == [
        [vocab[symbol] for symbol in signs] + [0] * (6 - len(signs)) for signs in ("- €", "-", "")
    ]


@pytest.mark.parametrize("order", [2, 3, 6, 7])
def test_probabilities_are_those_of_the_counts(order):
    model = fit_language_model(TOKENIZER, TEXTS, order=order)
    texts = [text for text, _ in TEXTS] + UNSEEN
    # The tables hold thousandths of a nat, and a text has up to twelve characters.
    assert model(ids(*texts)).tolist() == pytest.approx([reference(text, order) for text in texts], abs=0.05)


def test_a_texts_probability_does_not_depend_on_those_beside_it_nor_on_the_dtype():
    model = fit_language_model(TOKENIZER, TEXTS)
    together = model(ids(*UNSEEN))
    assert together.dtype == torch.float32
    assert [model(ids(text))[0] for text in UNSEEN] == together.tolist()
    assert torch.equal(model.half()(ids(*UNSEEN)), together)
    assert model(torch.zeros(0, 3, dtype=torch.int64)).shape == (0,)


def test_case_and_digits_are_left_to_the_image():
    model = fit_language_model(TOKENIZER, TEXTS)
    scores = model(ids("ab1", "AB2", "aB0", "ba1"))
    assert scores[0] == scores[1] == scores[2] != scores[3]
    dashes = model(ids("a-b", "a–b", "a b"))
    assert dashes[0] == dashes[1] != dashes[2]


def test_the_rarest_of_the_longer_ones_are_left_out():
    whole = fit_language_model(TOKENIZER, TEXTS)
    least = min(len(whole.keys) - 10, 60)
    small = fit_language_model(TOKENIZER, TEXTS, at_most=least)
    assert len(small.keys) <= least < len(whole.keys)
    common, rare = ids("abc"), ids("c22 ab")
    assert small(common)[0] == pytest.approx(whole(common)[0].item(), abs=2)
    assert small(rare)[0] < whole(rare)[0] - 2
    every = sum(small(ids(first + second)).exp() for first in ALPHABET for second in ALPHABET)
    assert 0 < every < 1


def test_characters_outside_the_alphabet_end_a_text():
    apart = fit_language_model(TOKENIZER, [("ab", 1.0), ("ca", 1.0)])
    joined = fit_language_model(TOKENIZER, [("ab√√ca", 1.0), ("√", 1.0), ("", 5.0)])
    assert torch.equal(joined(ids(*UNSEEN)), apart(ids(*UNSEEN)))


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="no texts"):
        fit_language_model(TOKENIZER, [("√", 1.0)])
    with pytest.raises(ValueError, match="order is 8"):
        fit_language_model(TOKENIZER, TEXTS, order=8)
    han = CharacterTokenizer.from_alphabet([chr(0x4E00 + index) for index in range(600)])
    with pytest.raises(ValueError, match=r"600 classes.*at most 255"):
        fit_language_model(han, [("一", 1.0)], order=7)
    assert isinstance(fit_language_model(han, [("一", 1.0)], order=6), CharacterLanguageModel)


@pytest.mark.parametrize("at_most", [0, 40, 100, 400])
@pytest.mark.parametrize("texts", [[("abc cab a1 é-b2" * 200, 1.0)], TEXTS], ids=["one long text", "texts"])
def test_however_much_is_left_out_what_stays_has_probabilities(texts, at_most):
    model = fit_language_model(TOKENIZER, texts, at_most=at_most)
    shortest = fit_language_model(TOKENIZER, texts, order=2, at_most=0)
    assert len(model.keys) <= max(at_most, len(shortest.keys))
    assert model.order == model.order_of_tables()
    assert (model(ids(*UNSEEN)) < 0).all()
    if at_most == 0:
        torch.testing.assert_close(model(ids(*UNSEEN)), shortest(ids(*UNSEEN)))


def test_texts_are_composed_as_labels_are():
    text = "é ab é"
    for form in ("NFC", "NFD"):
        model = fit_language_model(TOKENIZER, [(unicodedata.normalize(form, text), 50.0)])
        assert model(ids(text)) > -1


class Recognizer:
    def set_language_model(self, language_model):
        self.language_model = language_model


@pytest.mark.parametrize(("symbols", "order"), [(1_023, 6), (1_024, 5), (5_000, 4), (40_000, None)])
def test_an_alphabet_of_many_characters_has_a_lower_order_or_none(symbols, order):
    characters = [chr(0x20000 + i) for i in range(symbols)]
    tokenizer, model = CharacterTokenizer.from_alphabet(characters), Recognizer()
    texts = ["".join(characters[:9])] * 3
    better = choose_language_model(model, tokenizer, texts, lambda model: model.language_model is None)
    assert better == (order is not None) and (model.language_model.order if better else None) == order


def test_of_texts_without_a_character_there_is_none():
    model = Recognizer()
    assert not choose_language_model(model, TOKENIZER, ["", "xyz"], lambda model: 0.0)
    assert model.language_model is None
