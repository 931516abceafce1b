"""Good files made bad, for the readers of what others publish: strategies of hypothesis."""

import copy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# The same examples in every run: what is found once is found on every machine.
fuzzed = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**31, 10**9, 10**40]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["1", "float32", "<pad>", "__class__", "\ud800", "x" * 10_000]),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, entry in inside for place in ((*path, key), *_places(entry, (*path, key)))]


@st.composite
def mutated_json(draw: st.DrawFn, good: Any, names: list[str]) -> Any:
    """`good` with up to three entries replaced, left out, or put in under one of `names` or any other name."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        change = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        places = _places(value)
        if change == "add" or not places:
            value[draw(st.sampled_from(names) | st.text(max_size=8))] = draw(JSON)
            continue
        *path, last = draw(st.sampled_from(places))
        owner = value
        for key in path:
            owner = owner[key]
        if change == "remove":
            del owner[last]
        else:
            owner[last] = draw(JSON)
    return value


@st.composite
def mutated_bytes(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """One of the files with up to eight bytes changed, pieces cut out or doubled, or its end cut off."""
    content = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 8))):
        # Most of what a reader decides on stands in the first bytes.
        place = draw(st.integers(0, max(len(content) - 1, 0)) | st.integers(0, min(63, max(len(content) - 1, 0))))
        change = draw(st.sampled_from(["byte", "byte", "byte", "cut", "double", "end"]))
        if change == "byte" and content:
            content[place] = draw(st.integers(0, 255))
        elif change == "end":
            del content[place:]
        else:
            piece = content[place : place + draw(st.integers(1, 40))]
            content[place : place + len(piece)] = piece * (2 if change == "double" else 0)
    return bytes(content)
