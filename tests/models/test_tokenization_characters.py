import copy
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedConfig

from hf_ocr.models.setting_checks import damage_named
from hf_ocr.models.tokenization_characters import CharacterTokenizer

ALPHABET = " <>adpeéßΩ."


@pytest.fixture
def tokenizer() -> CharacterTokenizer:
    return CharacterTokenizer.from_alphabet(ALPHABET)


def test_ids_follow_the_alphabet_behind_the_blank(tokenizer: CharacterTokenizer) -> None:
    assert tokenizer.pad_token_id == 0
    assert tokenizer.alphabet == list(ALPHABET)
    assert tokenizer.vocab_size == len(tokenizer) == len(ALPHABET) + 1
    assert tokenizer.get_vocab() == {"<pad>": 0, **{c: i + 1 for i, c in enumerate(ALPHABET)}}
    assert tokenizer("ad ")["input_ids"] == [4, 5, 1]
    assert list(tokenizer("ad ")) == ["input_ids"]
    assert CharacterTokenizer.from_alphabet(list(ALPHABET)).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("text", ["", "a", " a . a  ", "  ", "<pad>", "a<pad><pad>p", "eéßΩ."])
def test_every_text_comes_back_to_the_letter(tokenizer: CharacterTokenizer, text: str) -> None:
    ids = tokenizer.label_ids(text)
    assert len(ids) == len(text)
    assert 0 not in ids
    assert ids == tokenizer(text)["input_ids"] == tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.batch_decode([ids, ids]) == [text, text]
    assert tokenizer.decode(torch.tensor(ids, dtype=torch.int64)) == text


def test_decomposed_letters_are_read_as_composed_ones(tokenizer: CharacterTokenizer) -> None:
    for text in ("e\N{COMBINING ACUTE ACCENT}", "\N{OHM SIGN}"):
        composed = unicodedata.normalize("NFC", text)
        assert tokenizer.label_ids(text) == tokenizer(text)["input_ids"] == tokenizer.label_ids(composed)
        assert tokenizer.decode(tokenizer.label_ids(text)) == composed
    assert CharacterTokenizer.from_alphabet("\N{OHM SIGN}").alphabet == ["\N{GREEK CAPITAL LETTER OMEGA}"]


def test_an_alphabet_may_hold_a_letter_and_a_mark_beside_each_other() -> None:
    tokenizer = CharacterTokenizer.from_alphabet("x\N{COMBINING MACRON}e\N{COMBINING ACUTE ACCENT}")
    assert tokenizer.alphabet == ["x", "\N{COMBINING MACRON}", "e", "\N{COMBINING ACUTE ACCENT}"]
    assert tokenizer.label_ids("x\N{COMBINING MACRON}") == [1, 2]
    both = CharacterTokenizer.from_alphabet("e\N{COMBINING ACUTE ACCENT}é")
    assert both.label_ids("e\N{COMBINING ACUTE ACCENT}") == both("e\N{COMBINING ACUTE ACCENT}")["input_ids"] == [3]


@pytest.mark.parametrize("padding", [0, -100])
def test_padding_never_reaches_the_text(tokenizer: CharacterTokenizer, padding: int) -> None:
    rows = [[4, 5, padding, padding], [4, padding, padding, padding], [padding] * 4]
    for batch in (rows, np.array(rows), torch.tensor(rows)):
        assert tokenizer.batch_decode(batch) == tokenizer.decode(batch) == ["ad", "a", ""]
    assert tokenizer.batch_decode(torch.zeros(2, 0, dtype=torch.int64)) == ["", ""]
    assert tokenizer.batch_decode(torch.zeros(0, 5, dtype=torch.int64)) == []
    assert tokenizer.decode([4, 0, 5, -100], skip_special_tokens=False) == "a<pad>d"


def test_decoding_keeps_repeats(tokenizer: CharacterTokenizer) -> None:
    assert tokenizer.decode([4, 4, 5]) == "aad"


@pytest.mark.parametrize("index", [99, -1])
def test_an_id_outside_the_alphabet_is_an_error_not_a_gap(tokenizer: CharacterTokenizer, index: int) -> None:
    with pytest.raises(ValueError, match=f"id {index} is outside the alphabet"):
        tokenizer.decode([4, index])


def test_a_character_outside_the_alphabet_is_named(tokenizer: CharacterTokenizer) -> None:
    for encode in (tokenizer.label_ids, tokenizer, tokenizer.encode):
        with pytest.raises(ValueError, match=r"'€' \(U\+20AC\) of the text 'a€' is not in the alphabet of 11"):
            encode("a€")
    with pytest.raises(ValueError, match=r"U\+D800"):
        tokenizer.label_ids("a\ud800")
    with pytest.raises(ValueError, match="extend the alphabet"):
        tokenizer.label_ids("a\n")


def test_with_an_unknown_token_strange_characters_get_its_id() -> None:
    tokenizer = CharacterTokenizer.from_alphabet("ab", unk_token="<unk>")
    assert tokenizer.unk_token_id == 1
    assert tokenizer.label_ids("a€b") == tokenizer("a€b")["input_ids"] == [2, 1, 3]
    assert tokenizer.decode([2, 1, 3]) == "ab"
    assert tokenizer.decode([2, 1, 3], skip_special_tokens=False) == "a<unk>b"


def test_start_and_end_tokens_for_decoders() -> None:
    tokenizer = CharacterTokenizer.from_alphabet("ab", bos_token="<s>", eos_token="</s>")
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.alphabet == ["a", "b"]
    assert tokenizer.label_ids("ab") == tokenizer("ab")["input_ids"] == [3, 4, 2]
    assert tokenizer("ab", add_special_tokens=False)["input_ids"] == [3, 4]
    assert tokenizer.decode([1, 3, 4, 2, 0, -100]) == "ab"


def test_batches_pad_with_the_blank(tokenizer: CharacterTokenizer) -> None:
    batch = tokenizer(["ad", "a"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[4, 5], [4, 0]]


def test_special_tokens_are_arguments(tmp_path: Path) -> None:
    tokenizer = CharacterTokenizer.from_alphabet("ab", pad_token="[blank]", unk_token="[?]")
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, CharacterTokenizer.from_pretrained(tmp_path)):
        assert each.get_vocab() == {"[blank]": 0, "[?]": 1, "a": 2, "b": 3}
        assert each.decode(each.label_ids("[blank]a[?]")) == "baa"


def test_saving_and_loading_changes_nothing(tmp_path: Path) -> None:
    first = CharacterTokenizer.from_alphabet(ALPHABET + '"\\{\u2028', unk_token="<unk>", eos_token="</s>")
    first.save_pretrained(tmp_path / "one")
    second = CharacterTokenizer.from_pretrained(tmp_path / "one")
    second.save_pretrained(tmp_path / "two")
    third = CharacterTokenizer.from_pretrained(tmp_path / "two")
    for loaded in (second, third, copy.deepcopy(first)):
        assert loaded.get_vocab() == first.get_vocab()
        assert loaded.alphabet == first.alphabet
        assert loaded("é<pad>ß€")["input_ids"] == first("é<pad>ß€")["input_ids"] == first.label_ids("é<pad>ß€")
        assert loaded.decode(loaded.label_ids(' " a')) == ' " a'
    for name in ("vocab.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_text("utf-8") == (tmp_path / "two" / name).read_text("utf-8")
    assert json.loads((tmp_path / "one" / "vocab.json").read_text("utf-8"))["é"] == first.label_ids("é")[0]


def test_the_auto_class_finds_it_once_registered(tokenizer: CharacterTokenizer, tmp_path: Path) -> None:
    class AlphabetConfig(PreTrainedConfig):
        model_type = "alphabet-of-a-test"

    AutoTokenizer.register(AlphabetConfig, tokenizer_class=CharacterTokenizer, exist_ok=True)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is CharacterTokenizer
    assert loaded.get_vocab() == tokenizer.get_vocab()


def test_characters_added_later_are_part_of_the_alphabet(tokenizer: CharacterTokenizer, tmp_path: Path) -> None:
    tokenizer.add_tokens(["€"])
    assert tokenizer.alphabet == [*ALPHABET, "€"]
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, CharacterTokenizer.from_pretrained(tmp_path)):
        assert each.label_ids("a€") == each("a€")["input_ids"] == [4, 12]
        assert each.decode([4, 12]) == "a€"


@pytest.mark.parametrize(
    ("vocab", "words"),
    [
        ({"a": 0, "<pad>": 1}, "'<pad>' has id 1. Expected 0"),
        ({"a": 0, "b": 1}, "special tokens ['<pad>'] are not in it"),
        ({"<pad>": 0, "a": 2}, "ids 0 to n - 1"),
        ({"<pad>": 0, "a": 1, "b": 1}, "ids 0 to n - 1"),
        ({"<pad>": 0, "ab": 1}, "'ab' (U+0061 U+0062) is not one code point"),
        ({"<pad>": 0, "\N{OHM SIGN}": 1}, "U+2126"),
        ({"<pad>": 0, "": 1}, "not one code point"),
        ({"<pad>": 0, "\ud800": 1}, "U+D800"),
        ({"<pad>": 0, "a": True}, "ids 0 to n - 1"),
        ({"<pad>": 0, "a": 1.0}, "ids 0 to n - 1"),
        ({}, "ids 0 to n - 1"),
    ],
)
def test_vocabularies_that_cannot_work(vocab: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        CharacterTokenizer(vocab=vocab)
    assert words in str(caught.value)


@pytest.mark.parametrize("added", [{"3": "q"}, {"-1": "q"}, {"99": "q"}, {"5": "q", "7": "r"}])
def test_added_tokens_may_not_take_the_place_of_others(added: dict[str, str], tmp_path: Path) -> None:
    CharacterTokenizer.from_alphabet("abcd").save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    settings["added_tokens_decoder"].update({index: {"content": content} for index, content in added.items()})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    with pytest.raises(ValueError, match=r"added_tokens_decoder: is .* for a vocabulary of 5 symbols"):
        CharacterTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cls_token": "a"}, "special tokens: 'a' is one"),
        ({"extra_special_tokens": ["<tag>", "b"]}, "special tokens: 'b' is one"),
        ({"mask_token": ""}, "special tokens: '' is one"),
        ({"sep_token": "$"}, "special tokens: '$' is one"),
        ({"eos_token": "$"}, "the special token '$' is empty or a single character, which a text may hold"),
        ({"pad_token": "_"}, "the special token '_' is empty or a single character, which a text may hold"),
        ({"model_max_length": "512"}, "model_max_length is '512'"),
        ({"model_max_length": [1]}, "model_max_length is [1]"),
    ],
)
def test_settings_that_would_garble_readings(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        CharacterTokenizer.from_alphabet("abcd", **settings)
    assert words in str(caught.value)
    harmless = {"cls_token": "<cls>", "extra_special_tokens": ["<tag>"], "model_max_length": 512}
    assert CharacterTokenizer.from_alphabet("abcd", **harmless).decode([1, 2]) == "ab"


def test_a_space_before_a_full_stop_is_never_cleaned_up() -> None:
    tokenizer = CharacterTokenizer.from_alphabet(ALPHABET, clean_up_tokenization_spaces=True)
    assert tokenizer.decode(tokenizer.label_ids("a .")) == "a ."


def test_errors_quote_no_more_than_a_line(tokenizer: CharacterTokenizer) -> None:
    long = "ab" * 5_000
    for fault in (
        lambda: CharacterTokenizer(vocab={"<pad>": 0, long: 1}),
        lambda: CharacterTokenizer(vocab={"<pad>": 0}, eos_token=long),
        lambda: CharacterTokenizer(vocab={"a": 0, long: 1}, pad_token=long),
        lambda: tokenizer.label_ids("€" + long),
    ):
        with pytest.raises(ValueError) as caught:
            fault()
        assert len(str(caught.value)) < 500
    with pytest.raises(ValueError, match=r"^aba.*bab$") as caught, damage_named("a file"):
        raise ValueError(long)
    assert len(str(caught.value)) < 2_100


def test_faults_of_alphabets_and_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'a' \(U\+0061\) given more than once"):
        CharacterTokenizer.from_alphabet("aba")
    with pytest.raises(ValueError, match="more than once"):
        CharacterTokenizer.from_alphabet("\N{OHM SIGN}\N{GREEK CAPITAL LETTER OMEGA}")
    with pytest.raises(ValueError, match=r"U\+0915 U\+093C"):  # normal form C takes this letter apart
        CharacterTokenizer.from_alphabet("\N{DEVANAGARI LETTER QA}")
    with pytest.raises(ValueError, match=r"special tokens \['<s>'\]"):
        CharacterTokenizer(vocab={"<pad>": 0, "a": 1}, bos_token="<s>")
    with pytest.raises(ValueError, match="no vocabulary"):
        CharacterTokenizer()
    from_alphabet = CharacterTokenizer.from_alphabet("ab")
    from_alphabet.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(ValueError, match=rf"no vocabulary in {tmp_path}, vocab\.json is not there"):
        CharacterTokenizer.from_pretrained(tmp_path)
    broken = tmp_path / "vocab.json"
    broken.write_text('{"<pad>": 0')
    with pytest.raises(ValueError, match=r"vocab\.json: is not JSON"):
        CharacterTokenizer(broken)
    broken.write_text('["a"]')
    with pytest.raises(ValueError, match=r"expected .character: id."):
        CharacterTokenizer(broken)
