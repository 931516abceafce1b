"""Fits the language model of a recognizer: how often each character follows those before it, in texts like its own."""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch

from hf_ocr.models.language_model import KEY_BITS, NATS, CharacterLanguageModel
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.text import nfc

__all__ = ["choose_language_model", "fit_language_model"]

ORDER = 6
MOST_CLASSES = torch.iinfo(torch.int16).max
LEAST_PRUNED = 3  # n-grams shorter than these stay however rare they are
# Signs that stand for each other, and differ by the hand of the compositor.
ALIKE = {sign: signs[0] for signs in ("-–—−‐‑", "'’‘‚‛`´′", '"“”„‟″«»', "([{⟨", ")]}⟩") for sign in signs}
END = 0
LEARNT = 3.0  # weight of a text that a recognizer learns from: less smoothed than what occurs once
LEAST = -32_000  # thousandths of a nat; that an empty text follows many others may be less probable still


def fit_language_model(
    tokenizer: CharacterTokenizer, texts: Iterable[tuple[str, float]], order: int = ORDER, at_most: int = 350_000
) -> CharacterLanguageModel:
    """Count the n-grams of texts and smooth them (Witten, Bell 1991, method C, interpolated).

    A letter counts whatever its case, a digit whatever it is, and so do dashes, quotes and brackets: no number is more
    likely than another.

    Args:
        tokenizer: of the recognizer; characters that it has not end a text and begin another.
        texts: each with its weight: how many times it counts.
        order: n, the characters looked at, the one in question included.
        at_most: entries of the table, 12 bytes each: the rarest n-grams are left out, but those of 1 and 2 characters
            always stay.

    Returns:
        The language model; its order is that of the longest n-grams that were left.

    Raises:
        ValueError: no texts, an order that is not 2 to 7, or an alphabet with more classes than its keys can hold.
    """
    if not 2 <= order <= 7:
        raise ValueError(f"order is {order}, expected 2 to 7.")
    classes = _classes(tokenizer)
    most = min((1 << KEY_BITS // order) - 1, MOST_CLASSES)
    if max(classes) > most:
        raise ValueError(
            f"the alphabet has {max(classes)} classes of characters, expected at most {most} with order {order}. Take "
            "a lower order, if that can hold more."
        )
    counts = [Counter[tuple[int, ...]]() for _ in range(order)]  # by length - 1
    vocab = tokenizer.get_vocab()
    for text, weight in texts:
        for part in _known(text, vocab):
            padded = [END] * (order - 1) + [classes[index] for index in part] + [END]
            for position in range(order - 1, len(padded)):
                for length in range(order):
                    counts[length][tuple(padded[position - length : position + 1])] += weight  # type: ignore[assignment]
    if not counts[0]:
        raise ValueError("no texts with characters of the alphabet. Expected some thousand lines like those to read.")
    for present in set(classes):  # whatever can be read has a probability
        counts[0].setdefault((present,), 0)
    _prune(counts, at_most)
    counts = [each for each in counts if each]
    order = max(len(counts), 2)
    bits = KEY_BITS // order
    log_probs, backoffs = _smoothed(counts)
    keys = {ngram: _key(ngram, bits) for ngram in log_probs}
    ordered = sorted(keys, key=keys.__getitem__)
    model = CharacterLanguageModel(len(tokenizer), order, len(ordered))
    model.classes = torch.tensor(classes, dtype=torch.int16)
    for symbol in tokenizer.alphabet:
        model.signs[vocab[symbol]] = unicodedata.category(symbol)[0] not in "LMN"  # a letter's mark is no sign
    model.keys = torch.tensor([keys[ngram] for ngram in ordered])
    for table, values in ((model.log_probs, log_probs), (model.backoffs, backoffs)):
        nats = torch.tensor([values.get(ngram, 0.0) for ngram in ordered], dtype=torch.float64)
        table.copy_((nats * NATS).round().clamp(min=LEAST))
    return model


def choose_language_model(
    model: Any, tokenizer: CharacterTokenizer, texts: Iterable[str], error_rate: Callable[[Any], float]
) -> bool:
    """Have a recognizer read with a language model of the texts that it learnt, if it errs less with that than without.

    Args:
        model: with `set_language_model`; the one that it has is taken away.
        tokenizer: of the model.
        texts: of its training lines; where none has a character of the alphabet, or that has too many, there is none.
        error_rate: of the model on validation lines.

    Returns:
        Whether it has one now.
    """
    model.set_language_model(None)
    texts, vocab = list(texts), tokenizer.get_vocab()
    classes = max(_classes(tokenizer))
    if classes > MOST_CLASSES or not any(character in vocab for text in texts for character in nfc(text)):
        return False
    by_itself = error_rate(model)
    order = min(ORDER, KEY_BITS // classes.bit_length())
    model.set_language_model(fit_language_model(tokenizer, ((text, LEARNT) for text in texts), order))
    better = error_rate(model) < by_itself
    if not better:
        model.set_language_model(None)
    return better


def _classes(tokenizer: CharacterTokenizer) -> list[int]:
    """Of each symbol; those that are no character have that of the ends."""
    names: dict[str, int] = {}
    alphabet = set(tokenizer.alphabet)
    classes = [END] * len(tokenizer)
    for symbol, index in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if symbol in alphabet:
            name = ALIKE.get(symbol, "0" if symbol.isdecimal() else symbol.lower())
            classes[index] = names.setdefault(name, len(names) + 1)
    return classes


def _known(text: str, vocab: dict[str, int]) -> Iterable[list[int]]:
    part: list[int] = []
    for character in nfc(text):  # as labels are
        if character in vocab:
            part.append(vocab[character])
        elif part:
            yield part
            part = []
    if part:
        yield part


def _prune(counts: list[Counter[tuple[int, ...]]], at_most: int) -> None:
    """Leave out the rarest of the longer ones: with one stay those that it begins and ends with, which are no rarer."""
    short = sum(len(each) for each in counts[: LEAST_PRUNED - 1])
    longer = sorted((count for each in counts[LEAST_PRUNED - 1 :] for count in each.values()), reverse=True)
    room = max(at_most - short - len(counts), 0)
    if len(longer) <= room:
        return
    least = longer[room]
    for each in counts[LEAST_PRUNED - 1 :]:
        for ngram in [ngram for ngram, count in each.items() if count <= least]:
            del each[ngram]


def _smoothed(
    counts: list[Counter[tuple[int, ...]]],
) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], float]]:
    """log-probabilities of the last character, and log of the share that contexts leave to shorter ones."""
    log_probs: dict[tuple[int, ...], float] = {}
    backoffs: dict[tuple[int, ...], float] = {}
    uniform = 1 / len(counts[0])
    for length, each in enumerate(counts, 1):
        totals, kinds = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
        for ngram, count in each.items():
            totals[ngram[:-1]] += count
            kinds[ngram[:-1]] += 1
        for ngram, count in each.items():
            context = ngram[:-1]
            shorter = math.exp(log_probs[ngram[1:]]) if length > 1 else uniform
            total, left = totals[context], kinds[context]
            log_probs[ngram] = math.log((count + left * shorter) / (total + left))
        for context, total in totals.items():
            backoffs[context] = math.log(kinds[context] / (total + kinds[context]))
        # Of ends alone, which are in front of every text: in the table for what follows them, whether or not a text was
        # ever empty.
        start = (END,) * length
        if length > 1:
            log_probs.setdefault(start, log_probs[start[1:]] + backoffs.get(start[1:], 0.0))
    return log_probs, backoffs


def _key(ngram: tuple[int, ...], bits: int) -> int:
    """The last character in the lowest bits, the length above all."""
    key = len(ngram) << KEY_BITS
    for distance, value in enumerate(reversed(ngram)):
        key |= value << bits * distance
    return key
