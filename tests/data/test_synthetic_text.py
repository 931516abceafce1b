import random
import re
import unicodedata
from collections import Counter

import pytest

from hf_ocr.data.synthetic_text import KIND_SHARES, TextSampler
from hf_ocr.text import LATIN_ALPHABET

WORDS = {"american-english": ["house", "Garden", "o'clock", "lamp", "window"], "french": ["été", "garçon", "œuvre"]}


@pytest.fixture(scope="module")
def sampler() -> TextSampler:
    return TextSampler(WORDS)


@pytest.fixture(scope="module")
def texts(sampler) -> dict[str, list[str]]:
    return {style: [sampler.sample(random.Random(n), style) for n in range(3000)] for style in KIND_SHARES}


@pytest.mark.parametrize("style", KIND_SHARES)
def test_every_text_is_a_clean_label(texts, style):
    alphabet = set(LATIN_ALPHABET)
    for text in texts[style]:
        assert text and text == " ".join(text.split())
        assert text == unicodedata.normalize("NFC", text)
        assert alphabet.issuperset(text)
        assert len(text) <= (24 if style == "scene" else 64)


@pytest.mark.parametrize("style", KIND_SHARES)
def test_every_kind_of_a_style_makes_texts(sampler, style):
    for kind in KIND_SHARES[style]:
        drawn = {getattr(sampler, f"_{kind}")(random.Random(n), style) for n in range(60)}
        assert len(drawn) > 5, kind


def test_a_text_depends_on_the_generator_alone(sampler, texts):
    again = TextSampler(dict(reversed(WORDS.items())))
    assert [again.sample(random.Random(n), "document") for n in range(50)] == texts["document"][:50]
    assert len(set(texts["document"][:50])) > 40


def test_words_are_composed_and_spaces_closed_up():
    sampler = TextSampler({"english": ["cafe\u0301  noir "]})
    texts = [sampler.sample(random.Random(n), "scene") for n in range(200)]
    assert any("café noir" in text.lower() for text in texts)
    assert all(text == " ".join(text.split()) for text in texts)


def test_rare_characters_keep_a_floor(sampler):
    draw = random.Random(0)
    seen = Counter("".join(sampler.sample(draw, "document") for _ in range(40_000)))
    assert min(seen[c] for c in LATIN_ALPHABET) >= 5  # some 500 in two million lines


def test_shares_follow_the_style(texts):
    single = {style: sum(" " not in text for text in texts[style]) / len(texts[style]) for style in texts}
    assert single["scene"] > 0.75 > 0.6 > single["document"]
    prices = {style: sum(bool(re.search(r"\d[.,]\d\d", text)) for text in texts[style]) / 3000 for style in texts}
    assert prices["receipt"] > 0.19 > 0.12 > prices["document"]
    upper = {style: sum(text.isupper() for text in texts[style]) / 3000 for style in texts}
    assert upper["scene"] > 0.3 > upper["document"]


def test_english_words_outnumber_others(sampler):
    draw = random.Random(1)
    words = Counter(sampler._plain_word(draw, "document") for _ in range(4000))
    assert sum(words[w] for w in WORDS["american-english"]) > sum(words[w] for w in WORDS["french"]) > 400


def test_wrong_use_is_named(sampler):
    with pytest.raises(ValueError, match="load_words"):
        TextSampler({"empty": []})
    with pytest.raises(ValueError, match="'poster'"):
        sampler.sample(random.Random(0), "poster")
