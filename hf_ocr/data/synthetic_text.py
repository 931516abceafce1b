"""Texts for synthetic lines: words, phrases, amounts, dates, codes, addresses and what else is printed.

Every text is in NFC, of characters of LATIN_ALPHABET, not empty, single spaces inside, none at the ends.
"""

import random
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from hf_ocr.data import vocabulary
from hf_ocr.text import CHARSET_94, LATIN_ALPHABET

__all__ = ["KIND_SHARES", "TextSampler"]

KIND_SHARES: dict[str, dict[str, float]] = {
    style: {kind: float(share) for kind, share in (part.split("=") for part in shares.split())}
    for style, shares in {
        "receipt": "word=11 phrase=14 price=17 number=5 date=9 code=9 phone=7 address=7 item=7 heading=6 "
        "labelled=8 url=2 random=2 accented=1",
        "document": "sentence=34 phrase=14 word=12 price=5 number=4 date=5 code=4 phone=3 address=4 name=5 heading=5 "
        "labelled=4 url=2 random=3 accented=4",
        "form": "labelled=16 phrase=16 word=12 name=10 date=10 number=9 heading=8 sentence=7 code=7 address=7 price=5 "
        "phone=5 random=2 accented=3 url=2",
        "screen": "sentence=18 phrase=16 word=18 price=6 number=6 date=6 code=8 url=7 labelled=7 name=4 heading=4 "
        "phone=2 random=4 accented=3",
        "scene": "word=61 phrase=7 name=7 number=8 price=4 code=4 phone=2 url=2 date=2 heading=1 random=3 accented=2",
    }.items()
}
"""Shares of the text kinds of each style of line; they need not sum to 100."""

_CASES = {  # as it is, UPPER, Title, lower
    "receipt": (45, 37, 12, 6),
    "document": (72, 12, 8, 8),
    "form": (55, 22, 15, 8),
    "screen": (62, 14, 14, 10),
    "scene": (28, 42, 22, 8),
}

_ALPHABET = frozenset(LATIN_ALPHABET)
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS = "0123456789"
_SIGNS = ("&", "-", "–", "+", "/", "@", "No.", "w/", "x", "#", "·", "—", "|")
_PHONE_GROUPS = ((2, 8), (3, 7), (2, 4, 4), (3, 3, 4), (3, 4, 4), (4, 6), (2, 3, 3, 3), (1, 3, 3, 4), (12,), (5, 5))
_PHONE_LABELS = "Tel|TEL|Fax|FAX|Phone|GST No|GST ID|GST Reg No|GST REG NO|Co No|VAT|Reg No|HP|ID|No|Hotline".split("|")
# Letters that Unicode does not take apart into a base and an accent, after the base that they look like.
_UNDIVIDED = dict(zip("øØłŁđĐßæÆœŒıħĦŧŦþÞðÐŋŊĳĲĸŀĿŉſẞ", "oOlLdDsaAoOihHtTpPdDnNiIklLnsS", strict=True))


class TextSampler:
    """Draws texts; every method is a function of the generator it is given.

    Args:
        words: {name: list of words}; a list whose name holds "english" counts as many times as all others together.

    Raises:
        ValueError: no words.
    """

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        lists = [(name, list(entries)) for name, entries in sorted(words.items()) if entries]
        if not lists:
            raise ValueError("words is empty, expected {name: words}. Use hf_ocr.data.fonts.load_words().")
        english = [entries for name, entries in lists if "english" in name.lower()]
        others = [entries for name, entries in lists if "english" not in name.lower()]
        self._lists = (english or others, others or english)
        self._characters = "".join(c for c in LATIN_ALPHABET if c != " ")
        self._variants: dict[str, list[str]] = {}
        for character in self._characters:
            base = _UNDIVIDED.get(character, unicodedata.normalize("NFD", character)[0])
            if base != character and base.isascii() and base.isalpha():
                self._variants.setdefault(base, []).append(character)
        self._kinds = {
            style: (list(shares), list(_cumulative(shares.values()))) for style, shares in KIND_SHARES.items()
        }

    def sample(self, draw: random.Random, style: str = "document") -> str:
        """One text of a kind drawn by the shares of the style ("document", "form", "receipt", "scene" or "screen")."""
        if style not in self._kinds:
            raise ValueError(f"style is {style!r}, expected one of {sorted(self._kinds)}.")
        names, weights = self._kinds[style]
        while True:
            kind = draw.choices(names, cum_weights=weights)[0]
            text = " ".join(unicodedata.normalize("NFC", getattr(self, "_" + kind)(draw, style)).split())
            longest = 24 if style == "scene" else 64
            if len(text) > longest:
                text = text[:longest].rsplit(" ", 1)[0] if " " in text[:longest] else text[:longest]
            if text and _ALPHABET.issuperset(text):
                return text

    # Parts

    def _plain_word(self, draw: random.Random, style: str) -> str:
        chance = draw.random()
        if chance < (0.35 if style == "receipt" else 0.06):
            return draw.choice(vocabulary.RECEIPT)
        if chance < (0.5 if style == "receipt" else 0.34):
            return draw.choice(vocabulary.FREQUENT)
        scene = style == "scene"
        word = draw.choice(draw.choice(self._lists[draw.random() > (0.75 if scene else 0.6)]))
        if scene and len(word) > 6:  # signs have short words
            other = draw.choice(draw.choice(self._lists[0]))
            word = other if len(other) < len(word) else word
        return word

    def _cased(self, text: str, draw: random.Random, style: str) -> str:
        as_is, upper, title, _ = _CASES[style]
        chance = draw.random() * 100
        if chance < as_is:
            return text
        if chance < as_is + upper:
            return text.upper()
        if chance < as_is + upper + title:
            return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
        return text.lower()

    def _amount(self, draw: random.Random) -> str:
        value = draw.choice((9.99, 99.99, 99.99, 999.99, 9999.99, 99999.99)) * draw.random()
        if draw.random() < 0.35:  # prices end in 0 and 5
            value = round(value * 20) / 20
        chance = draw.random()
        if chance < 0.68:
            return f"{value:.2f}"
        if chance < 0.8:
            return f"{value:,.2f}"
        if chance < 0.92:
            return f"{value:,.2f}".replace(",", " ").replace(".", ",").replace(" ", draw.choice(("", ".", " ")))
        return f"{value:.0f}" if chance < 0.97 else f"{value:.{draw.choice((1, 3))}f}"

    def _digits(self, draw: random.Random, count: int) -> str:
        return str(draw.randrange(10**count)).zfill(count)

    # Kinds

    def _word(self, draw: random.Random, style: str) -> str:
        word = self._cased(self._plain_word(draw, style), draw, style)
        chance = draw.random()
        if chance < 0.04:
            return word + draw.choice(".,:;!?…")
        if chance < 0.05:
            return word + draw.choice(("'s", "’s", "'S"))
        if chance < 0.06:
            opening, closing = draw.choice(vocabulary.QUOTES)
            return opening + word + closing
        if chance < 0.07:
            return word + draw.choice(("®", "™", "©", "*", "!", "+", "†", "²"))
        if chance < 0.085:
            return word + draw.choice("-/&+") + self._plain_word(draw, style)
        return word

    def _words(self, draw: random.Random, style: str, count: int) -> str:
        words = [self._plain_word(draw, style) for _ in range(count)]
        if draw.random() < 0.3 and count > 1:
            words[draw.randrange(count - 1)] += draw.choice((",", ",", ",", ";", ":", "."))
        if draw.random() < 0.12 and count > 1:
            words[draw.randrange(count)] = draw.choice((*_SIGNS, self._digits(draw, draw.randint(1, 3))))
        if draw.random() < 0.08:
            at = draw.randrange(count)
            opening, closing = draw.choice(vocabulary.QUOTES)
            words[at] = opening + words[at] + closing
        return " ".join(words)

    def _phrase(self, draw: random.Random, style: str) -> str:
        count = draw.randint(2, 3 if style == "scene" else 6)
        text = self._cased(self._words(draw, style, count), draw, style)
        if draw.random() < 0.2:
            text += draw.choice((".", "!", "?", ":", " :", "…", "...", ",", "*", "."))
        if draw.random() < 0.03:
            mark = draw.choice(("*", "**", "***", "-", "•", ">", "#", "="))
            text = f"{mark} {text} {mark}" if draw.random() < 0.6 else f"{mark} {text}"
        return text

    def _sentence(self, draw: random.Random, style: str) -> str:
        count = draw.randint(4, 11)
        words = [
            draw.choice(vocabulary.FREQUENT) if draw.random() < 0.5 else self._plain_word(draw, style)
            for _ in range(count)
        ]
        for at in range(count - 1):
            chance = draw.random()
            if chance < 0.08:
                words[at] += ","
            elif chance < 0.1:
                words[at] += draw.choice((";", ":", ".", " –", " —"))
            elif chance < 0.12:
                opening, closing = draw.choice(vocabulary.QUOTES)
                words[at] = opening + words[at] + closing
            elif chance < 0.13:
                words[at] += f" {draw.randint(1, 2030)}"
        text = " ".join(words)
        if draw.random() < 0.6:
            text = text[:1].upper() + text[1:]
        if draw.random() < 0.4:
            text += draw.choice((".", ".", ".", "?", "!", "-", ","))
        return text.upper() if draw.random() < 0.05 else text

    def _heading(self, draw: random.Random, style: str) -> str:
        text = self._words(draw, style, draw.randint(1, 5)).upper()
        if draw.random() < 0.15:
            text = f"{draw.randint(1, 20)}{draw.choice(('.', ')', '', '.1', '.2'))} {text}"
        return text

    def _name(self, draw: random.Random, style: str) -> str:
        first, last = draw.choice(vocabulary.FIRST_NAMES), draw.choice(vocabulary.SURNAMES)
        chance = draw.random()
        if chance < 0.4:
            text = f"{first} {last}"
        elif chance < 0.6:
            text = last
        else:
            text = first if chance < 0.75 else draw.choice(vocabulary.CITIES)
        if chance > 0.95:
            text = f"{draw.choice(('Mr.', 'Mrs', 'Dr.', 'Ms.'))} {first[0]}. {last}"
        return text.upper() if draw.random() < 0.35 else text

    def _price(self, draw: random.Random, style: str) -> str:
        amount = self._amount(draw)
        chance = draw.random()
        if chance < 0.5:
            text = amount
        elif chance < 0.72:
            text = draw.choice(vocabulary.CURRENCIES) + draw.choice(("", "", " ")) + amount
        elif chance < 0.8:
            text = amount + draw.choice(("", " ")) + draw.choice(vocabulary.CURRENCIES)
        elif chance < 0.86:
            text = "-" + amount
        elif chance < 0.92:
            text = amount + draw.choice((" SR", "SR", " ZR", "ZRL", " T", "*", " S", "-", "%", " A", " B", " Z"))
        elif chance < 0.95:
            text = f"({amount})"
        elif chance < 0.98:
            text = f"{draw.randint(1, 20)}{draw.choice((' x ', ' X ', 'x', ' @ ', ' × ', '*'))}{amount}"
        else:
            text = draw.choice(("½", "¼", "¾", "±", "+", "×", "÷", "<", ">", "=", "~")) + amount
        return text

    def _number(self, draw: random.Random, style: str) -> str:
        chance = draw.random()
        if chance < 0.6:
            return self._digits(draw, draw.randint(1, 4)) if draw.random() < 0.5 else str(draw.randint(0, 2100))
        if chance < 0.7:
            return f"{draw.randint(0, 100)}{draw.choice(('%', ' %', '%', '‰', '+', '.', ')', '#'))}"
        if chance < 0.85:
            number = draw.choice((str(draw.randint(1, 999)), f"{draw.random() * 100:.1f}", f"{draw.random() * 10:.2f}"))
            return number + draw.choice(("", " ")) + draw.choice(vocabulary.UNITS)
        if chance < 0.9:
            sign = draw.choice(("No.", "No. ", "#", "№", "№ ", "Nr. ", "N° ", "nº ", "§ ", "§", "§§ "))
            return sign + str(draw.randint(1, 999))
        if chance < 0.94:
            sign = draw.choice(("/", "-", ":", "–", " / ", " - ", "×", "x", " x "))
            return f"{draw.randint(1, 99)}{sign}{draw.randint(1, 99)}"
        if chance < 0.97:
            return draw.choice(("±", "½", "¼", "¾", "1½", "10²", "x³", "20°", "37 °C", "µ", "Ø", "1ª", "2º"))
        return str(draw.randint(1, 31)) + draw.choice(("st", "nd", "rd", "th", "TH", "ST"))

    def _date(self, draw: random.Random, style: str) -> str:
        day, month, year = draw.randint(1, 31), draw.randint(1, 12), draw.randint(1985, 2030)
        hour, minute, second = draw.randint(0, 23), draw.randint(0, 59), draw.randint(0, 59)
        name = vocabulary.MONTHS[month - 1]
        date = draw.choice(vocabulary.DATES).format(
            d=day,
            m=month,
            y=year,
            yy=year % 100,
            month=name,
            mon=name[:3],
            day=draw.choice(vocabulary.DAYS),
            s=draw.choice("//--.."),
        )
        suffix = draw.choice((" AM", " PM", "AM", "PM", " am", " p.m.", "", "", "", ""))
        time = f"{hour % 12 or 12}:{minute:02}{suffix}" if suffix else f"{hour:02}:{minute:02}"
        if draw.random() < 0.4:
            time = f"{hour:02}:{minute:02}:{second:02}{suffix}"
        chance = draw.random()
        text = date if chance < 0.55 else time if chance < 0.75 else f"{date} {time}"
        return text.upper() if draw.random() < 0.4 else text

    def _code(self, draw: random.Random, style: str) -> str:
        chance = draw.random()
        if chance < 0.3:
            return self._digits(draw, draw.randint(4, 14))
        if chance < 0.55:
            letters = "".join(draw.choices(_UPPER, k=draw.randint(1, 4)))
            return letters + self._digits(draw, draw.randint(1, 8))
        if chance < 0.8:
            groups = []
            for _ in range(draw.randint(2, 4)):
                symbols = draw.choice((_DIGITS, _DIGITS, _UPPER, _UPPER + _DIGITS))
                groups.append("".join(draw.choices(symbols, k=draw.randint(1, 5))))
            return draw.choice(("-", "-", "/", " ", ".", ":", "#", "_")).join(groups)
        if chance < 0.9:
            return "".join(draw.choices(_UPPER + _DIGITS, k=draw.randint(2, 12)))
        if chance < 0.96:
            opening, closing = (
                draw.choice(("#", "*", "(", "[", "<", "№", "@")),
                draw.choice(("", "*", ")", "#", "]", ">")),
            )
            return opening + self._digits(draw, draw.randint(2, 8)) + closing
        return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz" + _UPPER + _DIGITS + "_-.", k=draw.randint(3, 12)))

    def _phone(self, draw: random.Random, style: str) -> str:
        lengths = draw.choice(_PHONE_GROUPS)
        number = draw.choice(("-", "-", " ", " ", ".", "")).join(self._digits(draw, n) for n in lengths)
        chance = draw.random()
        if chance < 0.12:
            number = f"+{draw.randint(1, 99)}{draw.choice((' ', '-', ' (0) ', ''))}{number}"
        elif chance < 0.2:
            number = f"({self._digits(draw, draw.randint(2, 4))}) {number}"
        elif chance < 0.27:
            number = f"({self._digits(draw, draw.randint(5, 7))}-{draw.choice(_UPPER)})"
        if draw.random() < 0.5:
            label = draw.choice(_PHONE_LABELS)
            number = label + draw.choice((": ", " : ", ":", ". ", " ", ".: ", " No: ")) + number
        return number

    def _address(self, draw: random.Random, style: str) -> str:
        house = draw.choice(vocabulary.HOUSES).format(
            a=draw.randint(1, 999), b=draw.randint(1, 99), c=draw.choice("ABCG")
        )
        city = draw.choice(vocabulary.CITIES)
        text = draw.choice(vocabulary.ADDRESSES).format(
            house=house,
            street=draw.choice(vocabulary.STREETS),
            word=self._plain_word(draw, "document").capitalize(),
            code=self._digits(draw, draw.choice((4, 5, 5, 5, 6))),
            city=city,
            other=draw.choice(vocabulary.CITIES),
            state=city[:2].upper(),
            a=draw.randint(1, 40),
            b=draw.randint(1, 60),
        )
        return text.upper() if draw.random() < (0.6 if style == "receipt" else 0.2) else text

    def _item(self, draw: random.Random, style: str) -> str:
        text = draw.choice(vocabulary.ITEMS).format(
            n=draw.randint(1, 24),
            name=self._words(draw, style, draw.randint(1, 4)),
            price=self._amount(draw),
            sum=self._amount(draw),
            code=self._digits(draw, draw.randint(4, 13)),
            size=f"{draw.randint(1, 999)}{draw.choice(('G', 'ML', 'KG', 'L', 'PCS', 'S', 'CM', 'MM'))}",
            unit=draw.choice(("PCS", "UNIT", "EA", "X", "x", "@")),
            dots="." * draw.randint(3, 12),
        )
        return self._cased(text, draw, style)

    def _labelled(self, draw: random.Random, style: str) -> str:
        label = draw.choice(vocabulary.LABELS)
        if draw.random() < 0.35:
            label = label.upper()
        colon = draw.choice((":", ":", " :", "", " ", ".:", " (RM):", " ="))
        if draw.random() < 0.3:
            return label + colon.rstrip() if colon.strip() else label
        value = draw.choice((self._price, self._price, self._number, self._date, self._code, self._word))(draw, style)
        return f"{label}{colon}{draw.choice((' ', ' ', ' ', ''))}{value}" if colon.strip() else f"{label} {value}"

    def _url(self, draw: random.Random, style: str) -> str:
        text = draw.choice(vocabulary.ADDRESSES_OF_NETS).format(
            a=_plain(self._plain_word(draw, "document")),
            b=_plain(self._plain_word(draw, "document")),
            net=draw.choice(vocabulary.DOMAINS),
            n=draw.randint(0, 99),
            s=draw.choice(("", ".", "_", "-")),
            kind=draw.choice(("pdf", "txt", "py", "jpg", "html", "exe")),
        )
        return text.upper() if draw.random() < 0.15 else text

    def _random(self, draw: random.Random, style: str) -> str:
        count = draw.randint(1, 10 if style == "scene" else 14)
        symbols = draw.choice((self._characters, self._characters, self._characters, CHARSET_94, _UPPER + _DIGITS))
        text = "".join(draw.choices(symbols, k=count))
        if count > 4 and draw.random() < 0.3:
            at = draw.randrange(1, count - 1)
            text = text[:at] + " " + text[at:]
        return text

    def _accented(self, draw: random.Random, style: str) -> str:
        """A word with accents put on at random: letters that no word list of ours has, among letters."""
        word = self._cased(self._plain_word(draw, style), draw, style)
        return "".join(
            draw.choice(self._variants[c]) if c in self._variants and draw.random() < 0.35 else c for c in word
        )


def _cumulative(weights: Iterable[float]) -> list[float]:
    return np.cumsum(list(weights)).tolist()


def _plain(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word.lower()) if c.isascii() and c.isalnum()) or "info"
