import random

import jiwer
import pytest

from hf_ocr.metrics import (
    blank_insertions,
    character_edits,
    character_error_rate,
    count_confusions,
    exact_match,
    normalised_edit_distance,
    normalised_edits,
    space_edits,
    space_error_rate,
    word_edits,
    word_error_rate,
)
from hf_ocr.text import ignore_case, lower_alphanumerics, normalise

# By hand: "kitten" > "sitting" 3 edits; "Total 5" > "total  5" 2 (a case, a space); "ab" > "" 2; "" > "x" 1.
REFERENCES = ["kitten", "Total 5", "ab", ""]
PREDICTIONS = ["sitting", "total  5", "", "x"]


def test_character_edits_are_those_counted_by_hand():
    edits, lengths = character_edits(PREDICTIONS, REFERENCES)
    assert edits.tolist() == [3, 2, 2, 1]
    assert lengths.tolist() == [6, 7, 2, 0]


def test_cer_sums_edits_over_summed_lengths():
    assert character_error_rate(PREDICTIONS, REFERENCES) == 8 / 15
    assert character_error_rate(PREDICTIONS, REFERENCES, normalise) == 7 / 15
    assert character_error_rate(PREDICTIONS, REFERENCES, ignore_case) == 6 / 15


def test_cer_may_exceed_one():
    assert character_error_rate(["abcd"], ["x"]) == 4.0


def test_wer_counts_words():
    edits, words = word_edits(["the cat sat", "one"], ["the bat  sat down", "one two"])
    assert edits.tolist() == [2, 1]
    assert words.tolist() == [4, 2]
    assert word_error_rate(["the cat sat", "one"], ["the bat  sat down", "one two"]) == 0.5
    assert word_error_rate(["THE BAT"], ["the bat"]) == 1.0
    assert word_error_rate(["THE BAT"], ["the bat"], ignore_case) == 0.0


def test_exact_match_counts_lines_that_the_protocol_empties():
    predictions, references = ["RM 5.00", "***", "x", "A"], ["rm5:00", "%", ":", "B"]
    assert exact_match(predictions, references) == 0.0
    assert exact_match(predictions, references, lower_alphanumerics) == 0.5


def test_confusions_tell_the_printed_from_the_read():
    confusions = count_confusions(["RM12,9O", "ab", "xx"], ["RM12.90", "abc", "x"])
    assert confusions.substitutions == {(".", ","): 1, ("0", "O"): 1}
    assert confusions.insertions == {"x": 1}
    assert confusions.deletions == {"c": 1}


@pytest.mark.parametrize("rate", [character_error_rate, word_error_rate])
def test_rates_without_a_reference_are_refused(rate):
    with pytest.raises(ValueError, match="length 0 in all"):
        rate(["x", ""], ["", ""])
    with pytest.raises(ValueError, match="length 0 in all"):
        rate(["1"], ["?"], lower_alphanumerics)


@pytest.mark.parametrize("rate", [character_error_rate, word_error_rate, exact_match])
def test_bad_lists_are_refused_by_name(rate):
    with pytest.raises(ValueError, match="No lines"):
        rate([], [])
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        rate(["a", "b"], ["a"])
    with pytest.raises(TypeError, match="predictions is one string"):
        rate("abc", ["a", "b", "c"])
    with pytest.raises(TypeError, match=r"references\[1\] is None"):
        rate(["a", "b"], ["a", None])


# Where an edit distance goes wrong: surrogate pairs, marks, joiners, spaces of other kinds, other directions.
SYMBOLS = [
    *"aab  bé0",
    "e\u0301",
    "\u0301",
    "ß",
    "\u05d0",
    "\u0628\u064e",
    "क्षि",
    "\u200d",
    "\u200b",
    "漢",
    "😀",
    "👩\u200d👧",
]


def random_texts(seed, count=400):
    draw = random.Random(seed)
    texts = ["".join(draw.choices(SYMBOLS, k=draw.randint(0, 12))) for _ in range(count)]
    edited = [text[: draw.randint(0, 3)] + text[draw.randint(0, 5) :] + draw.choice(["", "a b", "é"]) for text in texts]
    return edited, texts


@pytest.mark.parametrize("seed", range(3))
def test_rates_are_those_of_jiwer_on_random_unicode(seed):
    predictions, references = random_texts(seed)
    as_they_are = jiwer.ReduceToListOfListOfChars()
    expected = jiwer.process_characters(references, predictions, as_they_are, as_they_are)
    edits, lengths = character_edits(predictions, references)
    assert edits.sum() == expected.substitutions + expected.deletions + expected.insertions
    assert lengths.sum() == expected.hits + expected.substitutions + expected.deletions
    assert character_error_rate(predictions, references) == pytest.approx(expected.cer)
    words = jiwer.Compose([jiwer.RemoveMultipleSpaces(), jiwer.Strip(), jiwer.ReduceToListOfListOfWords()])
    assert word_error_rate(predictions, references) == pytest.approx(jiwer.wer(references, predictions, words, words))


def test_macro_is_the_mean_of_the_rates_of_the_lines():
    # 3/6, 2/7, 2/2; the empty reference, at which something was read, counts 1.
    assert character_error_rate(PREDICTIONS, REFERENCES, average="macro") == pytest.approx((1 / 2 + 2 / 7 + 1 + 1) / 4)
    assert character_error_rate(["ab", ""], ["ax", ""], average="macro") == 1 / 4
    assert word_error_rate(["the bat", "x"], ["the cat", "x"], average="macro") == 1 / 4
    with pytest.raises(ValueError, match="average is 'mean'"):
        character_error_rate(["a"], ["a"], average="mean")
    with pytest.raises(ValueError, match="length 0 in all"):
        character_error_rate(["a"], [""], average="macro")


def test_grapheme_clusters_count_once():
    # A family of emoji and a conjunct with its vowel sign: one character each to whoever reads them.
    prediction, reference = ["e\u0301x"], ["👩\u200d👧क्षि"]
    edits, lengths = character_edits(prediction, reference, graphemes=True)
    assert (edits.tolist(), lengths.tolist()) == ([2], [2])
    assert character_edits(prediction, reference)[1].tolist() == [7]
    assert character_error_rate(prediction, reference, graphemes=True) == 1.0
    assert count_confusions(prediction, reference, graphemes=True).substitutions == {
        ("👩\u200d👧", "e\u0301"): 1,
        ("क्षि", "x"): 1,
    }


@pytest.mark.parametrize(
    ("reference", "prediction", "edits"),
    [
        ("to tal 5", "total 5", 1),  # missed
        ("total 5", "to tal 5", 1),  # invented
        ("a b", "axb", 1),  # another character in its place
        ("axb", "a b", 1),
        ("total 5", "totel 6", 0),
        ("a b", "a\u00a0b", 0),  # a space for a space
        ("", " ", 1),
        ("a b", "", 1),
    ],
)
def test_space_edits_are_those_that_touch_white_space(reference, prediction, edits):
    found, spaces = space_edits([prediction], [reference])
    assert (found.tolist(), spaces.tolist()) == ([edits], [reference.count(" ")])


def test_space_error_rate_is_over_the_spaces_of_the_references():
    assert space_error_rate(["ab c", "d e"], ["a b c", "d e"]) == 1 / 3
    with pytest.raises(ValueError, match="length 0 in all"):
        space_error_rate(["a b"], ["ab"])


def test_normalised_edit_distance_is_over_the_longer_text():
    lengths = normalised_edits(PREDICTIONS, REFERENCES)[1]
    assert lengths.tolist() == [7, 8, 2, 1]
    assert normalised_edit_distance(PREDICTIONS, REFERENCES) == pytest.approx((3 / 7 + 2 / 8 + 1 + 1) / 4)
    assert normalised_edit_distance(PREDICTIONS, REFERENCES, average="micro") == 8 / 18
    assert normalised_edit_distance(["", "a"], ["", "a"]) == 0.0
    assert normalised_edit_distance([""], [""]) == 0.0
    assert normalised_edit_distance(["x"], [""]) == 1.0
    assert normalised_edit_distance(["e\u0301"], ["e"], graphemes=True) == 1.0


def test_insertions_on_blank_images_are_counted():
    assert blank_insertions(["abc", "", "x"], ["", "", "x"]).tolist() == [3, 0]
    assert blank_insertions([" a "], ["\n"], normalise).tolist() == [1]
    assert blank_insertions(["a"], ["a"]).tolist() == []
