import unicodedata

import pytest

from hf_ocr.text import (
    CHARSET_36,
    CHARSET_62,
    CHARSET_94,
    LATIN_ALPHABET,
    PROTOCOLS,
    alphanumerics,
    fold_accents,
    graphemes,
    ignore_case,
    lower_alphanumerics,
    nfc,
    normalise,
    parseq_36,
    parseq_62,
    parseq_94,
    printable_ascii,
    script,
    without_punctuation,
)


def test_the_alphabet_holds_what_it_promises_once_in_nfc_and_sorted():
    assert list(LATIN_ALPHABET) == sorted(set(LATIN_ALPHABET))
    assert all(unicodedata.normalize("NFC", character) == character for character in LATIN_ALPHABET)
    assert LATIN_ALPHABET.isprintable()
    promised = [chr(code) for code in range(0x20, 0x7F)]
    promised += [chr(code) for code in range(0xC0, 0x180)]
    promised += "€“”‘’„‚«»‹›–—…•†‡™£§°ßẞȚț"
    assert not set(promised) - set(LATIN_ALPHABET)
    assert len(LATIN_ALPHABET) == 340


def test_the_alphabet_leaves_out_what_an_image_cannot_tell():
    assert not {"\u00a0", "\u00ad", "\u2003", "\u2011"} & set(LATIN_ALPHABET)


def test_normalise_composes_and_collapses_white_space():
    assert normalise("  Cafe\u0301\u00a0 au\tlait\n") == "Caf\u00e9 au lait"


def test_ignoring_case_keeps_the_length():
    assert ignore_case("STRASSE  Straße É") == "strasse straße é"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("protocol", "expected"),
    [(lower_alphanumerics, "rm1290cafs"), (alphanumerics, "RM1290Cafs"), (printable_ascii, "RM12.90Caf,s!")],
)
def test_charset_protocols_drop_accents_in_every_form(protocol, expected, form):
    text = unicodedata.normalize(form, "RM 12.90\u00a0Caf\u00e9, s! \u00a3")
    assert protocol(text) == expected


@pytest.mark.parametrize(
    ("protocol", "charset"),
    [(lower_alphanumerics, CHARSET_36), (alphanumerics, CHARSET_62), (printable_ascii, CHARSET_94)],
)
def test_charset_protocols_give_their_charset(protocol, charset):
    everything = "".join(map(chr, range(0x20, 0x3000)))
    assert set(protocol(everything)) == set(charset)
    assert protocol(charset) == charset
    assert len(charset) == len(set(charset))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("protocol", "expected"), [(parseq_36, "cafe12x"), (parseq_62, "Cafe12X"), (parseq_94, "Cafe,$12X!")]
)
def test_parseq_protocols_fold_accents_and_compatible_forms(protocol, expected, form):
    assert protocol(unicodedata.normalize(form, "Caf\u00e9, $\u00a0\u2460\uff12X! \u0142")) == expected


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (nfc, " Caf\u00e9  \u201cNo\u201d-5 $\n"),
        (fold_accents, "Cafe \u201cNo\u201d-5 $"),
        (without_punctuation, "Caf\u00e9 No5 $"),
    ],
)
def test_protocols_for_whole_texts(protocol, expected):
    assert protocol(" Cafe\u0301  \u201cNo\u201d-5 $\n") == expected


def test_folding_leaves_letters_that_are_no_accented_ones():
    assert fold_accents("Stra\u00dfe s\u00f8t \u0141\u00f3d\u017a") == "Stra\u00dfe s\u00f8t \u0141odz"


def test_graphemes_are_what_a_reader_takes_for_a_character():
    assert graphemes("e\u0301क्षि👩\u200d👧a") == ["e\u0301", "क्षि", "👩\u200d👧", "a"]
    assert graphemes("") == []


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_change_nothing_when_applied_again(name):
    protocol = PROTOCOLS[name][0]
    text = protocol(" R\u00c9SUM\u00c9 \u2013  \u00bd\u00a0ﬁn, Cafe\u0301! \u0130 ")
    assert protocol(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Total 5", "Latin"), ("12.90 €", "no letters"), ("", "no letters"), ("кот a", "Cyrillic"), ("漢字 ab1", "Latin"),
     ("हिन्दी", "Devanagari"), ("ᚠᚢᚦ", "other"), ("e\u0301", "Latin")],
)  # fmt: skip
def test_the_script_is_that_of_most_letters(text, expected):
    # 漢字 and ab are equally many: of equals the later name, always the same.
    assert script(text) == expected
