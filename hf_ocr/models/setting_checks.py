"""What a setting may be: a file from elsewhere can hold anything, and must not get further than the class it is for.

Each check raises a ValueError that names the setting, the value seen and what was expected.
"""

import math
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# Unicode has about 155,000 characters; a recognizer of all of them would have this many symbols.
MAX_SYMBOLS = 200_000
# 512 MB in float32: what transformers may fill with random numbers before it finds that the weights do not fit.
MAX_PARAMETERS = 1 << 27
CURE = "Change it, or copy the checkpoint again, whole."
MAX_MESSAGE = 2_000  # characters; an error may quote a file


@contextmanager
def damage_named(where: str) -> Iterator[None]:
    """What transformers trips over, in a file that does not hold what it expects, becomes a ValueError too.

    ValueError and OSError (no such file) go through as they are, but for a ValueError that quotes too much.
    """
    try:
        yield
    except OSError:
        raise
    except ValueError as error:
        if len(message := str(error)) <= MAX_MESSAGE:
            raise
        raise ValueError(f"{message[: MAX_MESSAGE // 2]} ... {message[-MAX_MESSAGE // 2 :]}") from error
    except (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, RuntimeError) as error:
        raise ValueError(
            f"{where} is not what it should be ({type(error).__name__}: {reprlib.repr(str(error))}). Expected a file "
            "as save_pretrained writes it; copy the checkpoint again, whole."
        ) from error


def check_integer(name: str, value: Any, least: int, most: int) -> None:
    """A whole number, as int and not as bool, within both bounds."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected a whole number from {least} to {most:,}. {CURE}")


def check_number(name: str, value: Any, least: float, most: float) -> None:
    """A finite number within both bounds."""
    if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected a number from {least:g} to {most:g}. {CURE}")


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """One of a few values, of the same type."""
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected one of {tuple(allowed)}. {CURE}")


def check_list(name: str, value: Any, least: int, most: int) -> None:
    """A list or tuple whose length is within both bounds."""
    if not isinstance(value, list | tuple) or not least <= len(value) <= most:
        count = f"{least}" if least == most else f"{least} to {most}"
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected a list of {count} entries. {CURE}")


def check_pair(name: str, value: Any, least: int, most: int) -> None:
    """(vertical, horizontal), both whole numbers within the bounds."""
    check_list(name, value, 2, 2)
    for entry in value:
        check_integer(name, entry, least, most)


def check_parameters(name: str, parameters: int) -> None:
    """A network that a file of settings may ask for; the smallest of numbers can do so when multiplied."""
    if parameters > MAX_PARAMETERS:
        raise ValueError(
            f"{name}: the network would have about {parameters:,} parameters, expected at most {MAX_PARAMETERS:,}. "
            "Take fewer channels, units or layers, or a smaller alphabet."
        )


def check_no_overrides(owner: type, names: Iterable[str]) -> None:
    """Unknown settings become attributes: none may take the place of something the class defines."""
    for name in names:
        if hasattr(owner, name):
            raise ValueError(f"{owner.__name__}: {name!r} is no setting, the class needs it itself. Leave it out.")
