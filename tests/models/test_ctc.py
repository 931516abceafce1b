"""CTC decoding against the enumeration of all frame paths, and against the CTC loss of torch."""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from hf_ocr.models.ctc import (
    CtcDecoding,
    align,
    greedy_search,
    lexicon_search,
    minimum_frames,
    prefix_beam_search,
    sequence_log_probability,
)

Text = tuple[int, ...]


def collapse(path: Sequence[int]) -> Text:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != 0)


class Paths:
    """All frame paths of one row, in float64: what the functions under test must agree with."""

    def __init__(self, logits: Tensor, length: int) -> None:
        probabilities = logits[:length].double().softmax(-1)
        self.length = length
        self.paths: dict[Text, list[tuple[tuple[int, ...], float]]] = {}
        for path in itertools.product(range(logits.shape[1]), repeat=length):
            probability = math.prod(float(probabilities[frame, symbol]) for frame, symbol in enumerate(path))
            self.paths.setdefault(collapse(path), []).append((path, probability))
        self.texts = {text: sum(probability for _, probability in paths) for text, paths in self.paths.items()}

    def best_texts(self, count: int) -> list[Text]:
        return sorted(self.texts, key=lambda text: -self.texts[text])[:count]

    def best_path(self, text: Text | None = None) -> tuple[int, ...]:
        paths = itertools.chain(*self.paths.values()) if text is None else self.paths[text]
        return max(paths, key=lambda item: item[1])[0]

    def character_scores(self, text: Text) -> list[float]:
        """P(character | the characters before it), of the last one also that the text ends; from whole texts alone."""
        beginning = [
            sum(probability for other, probability in self.texts.items() if other[:size] == text[:size])
            for size in range(len(text))
        ] + [self.texts[text]]
        return [after / before for before, after in itertools.pairwise(beginning)]


def character_indices(path: Sequence[int]) -> list[int | None]:
    indices: list[int | None] = []
    count = -1
    for frame, symbol in enumerate(path):
        if symbol != 0 and (frame == 0 or path[frame - 1] != symbol):
            count += 1
        indices.append(None if symbol == 0 else count)
    return indices


def random_logits(rows: int, frames: int, symbols: int, seed: int = 0, scale: float = 1.5) -> Tensor:
    return torch.randn(rows, frames, symbols, generator=torch.Generator().manual_seed(seed)) * scale


def peaked_logits(path: Sequence[int], symbols: int, height: float = 8.0) -> Tensor:
    """(1, T, V) where each frame strongly prefers the symbol of the path."""
    return torch.nn.functional.one_hot(torch.tensor([path]), symbols).float() * height


def texts_of(decoding: CtcDecoding) -> list[Text]:
    return [tuple(symbol for symbol in row if symbol) for row in decoding.sequences.tolist()]


def padded(texts: Sequence[Text]) -> Tensor:
    width = max((len(text) for text in texts), default=0)
    return torch.tensor([(*text, *[0] * (width - len(text))) for text in texts], dtype=torch.int64).view(
        len(texts), width
    )


SHAPES = [(5, 4), (4, 3), (5, 2), (1, 4)]


@pytest.mark.parametrize(("frames", "symbols"), SHAPES)
def test_greedy_reads_the_best_path_and_scores_its_text_with_all_paths(frames: int, symbols: int) -> None:
    logits = random_logits(12, frames, symbols)
    lengths = torch.arange(12) % (frames + 1)
    decoding = greedy_search(logits, lengths)
    for row, text in enumerate(texts_of(decoding)):
        paths = Paths(logits[row], int(lengths[row]))
        assert text == collapse(paths.best_path())
        assert decoding.scores[row].item() == pytest.approx(paths.texts[text], rel=1e-5)


def test_allowed_symbols_restrict_greedy_search_but_not_the_probability_of_its_text() -> None:
    logits = random_logits(12, 5, 4)
    allowed = torch.tensor([False, True, False, True])  # the blank is allowed all the same
    decoding = greedy_search(logits, torch.full((12,), 5), allowed)
    assert not allowed[0]
    for row, text in enumerate(texts_of(decoding)):
        restricted = logits[row].clone()
        restricted[:, 2] = -1e9
        assert text == collapse(Paths(restricted, 5).best_path())
        assert decoding.scores[row].item() == pytest.approx(Paths(logits[row], 5).texts[text], rel=1e-5)


@pytest.mark.parametrize(("frames", "symbols"), SHAPES)
def test_a_beam_that_holds_every_prefix_finds_the_best_texts_in_order(frames: int, symbols: int) -> None:
    logits = random_logits(6, frames, symbols)
    lengths = torch.tensor([frames, 0, 1, frames, frames - 1, frames])
    beams = symbols**frames
    returned = min(8, beams)
    decoding = prefix_beam_search(logits, lengths, beams, num_return_sequences=returned, with_characters=False)
    scores = decoding.scores.view(6, returned)
    texts = texts_of(decoding)
    for row in range(6):
        paths = Paths(logits[row], int(lengths[row]))
        expected = paths.best_texts(returned)
        missing = returned - len(expected)
        assert texts[row * returned : (row + 1) * returned] == expected + [()] * missing
        probabilities = [paths.texts[text] for text in expected] + [0.0] * missing
        assert scores[row].tolist() == pytest.approx(probabilities, rel=1e-5)


def test_a_narrow_beam_returns_different_texts_with_full_probabilities_in_order() -> None:
    logits = random_logits(20, 5, 4, scale=0.5)
    for beams in (1, 2, 3, 5):
        decoding = prefix_beam_search(logits, torch.full((20,), 5), beams, num_return_sequences=beams)
        texts = texts_of(decoding)
        for row in range(20):
            paths = Paths(logits[row], 5)
            found = texts[row * beams : (row + 1) * beams]
            assert len(set(found)) == beams
            scores = decoding.scores[row * beams : (row + 1) * beams].tolist()
            assert scores == pytest.approx([paths.texts[text] for text in found], rel=1e-5)
            assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("beams", "symbols"), [(6, 3), (8, 3), (5, 6)])
def test_a_narrow_beam_keeps_what_the_textbook_algorithm_keeps(beams: int, symbols: int) -> None:
    """With few symbols, prefixes often leave the beam and come back while their children stay: still to be merged."""
    logits = random_logits(24, 50, symbols)
    decoding = prefix_beam_search(
        logits, torch.full((24,), 50), beams, num_return_sequences=beams, with_characters=False
    )
    texts = texts_of(decoding)
    for row in range(24):
        found = texts[row * beams : (row + 1) * beams]
        assert len(set(found)) == beams
        assert set(found) == plain_prefix_beam(logits[row], beams)


def plain_prefix_beam(logits: Tensor, beams: int) -> set[Text]:
    """The textbook algorithm, with a dictionary of prefixes."""
    state: dict[Text, tuple[float, float]] = {(): (1.0, 0.0)}
    for probabilities in logits.double().softmax(-1).tolist():
        grown: dict[Text, list[float]] = {}
        for prefix, (blank, symbol) in state.items():
            grown.setdefault(prefix, [0.0, 0.0])[0] += (blank + symbol) * probabilities[0]
            for choice in range(1, len(probabilities)):
                if prefix and prefix[-1] == choice:
                    grown.setdefault(prefix, [0.0, 0.0])[1] += symbol * probabilities[choice]
                    source = blank
                else:
                    source = blank + symbol
                grown.setdefault((*prefix, choice), [0.0, 0.0])[1] += source * probabilities[choice]
        best = sorted(grown, key=lambda prefix: -sum(grown[prefix]))[:beams]
        state = {prefix: (grown[prefix][0], grown[prefix][1]) for prefix in best}
    return set(state)


def test_the_beam_reads_what_greedy_search_cannot() -> None:
    """Blank is the best symbol of either frame, yet 1 has more paths: 0.4 * 0.6 * 2 + 0.4 * 0.4 = 0.64 against 0.36."""
    logits = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    lengths = torch.tensor([2])
    assert texts_of(greedy_search(logits, lengths)) == [()]
    decoding = prefix_beam_search(logits, lengths, 2)
    assert texts_of(decoding) == [(1,)]
    assert decoding.scores.item() == pytest.approx(0.64)


def test_allowed_symbols_restrict_the_beam_but_not_the_probability_of_its_texts() -> None:
    logits = random_logits(6, 5, 4)
    allowed = torch.tensor([True, True, False, True])
    decoding = prefix_beam_search(logits, torch.full((6,), 5), 4**5, allowed, num_return_sequences=5)
    texts = texts_of(decoding)
    for row in range(6):
        paths = Paths(logits[row], 5)
        expected = [text for text in paths.best_texts(len(paths.texts)) if 2 not in text][:5]
        assert texts[row * 5 : row * 5 + 5] == expected
        scores = decoding.scores[row * 5 : row * 5 + 5].tolist()
        assert scores == pytest.approx([paths.texts[text] for text in expected], rel=1e-5)


def test_with_only_the_blank_allowed_nothing_is_read() -> None:
    logits = random_logits(2, 4, 5)
    nothing = torch.zeros(5, dtype=torch.bool)
    lengths = torch.tensor([4, 2])
    empty = [Paths(logits[0], 4).texts[()], Paths(logits[1], 2).texts[()]]
    greedy = greedy_search(logits, lengths, nothing)
    assert texts_of(greedy) == [(), ()]
    assert greedy.scores.tolist() == pytest.approx(empty, rel=1e-5)
    beam = prefix_beam_search(logits, lengths, 3, nothing, num_return_sequences=2)
    assert texts_of(beam) == [(), (), (), ()]
    assert beam.scores.tolist() == pytest.approx([empty[0], 0.0, empty[1], 0.0], rel=1e-5)


LEXICON: list[Text] = [(1,), (), (2, 1), (1, 1), (3, 3, 2), (1, 2, 3, 1), (2, 2, 2, 2), (3,)]


@pytest.mark.parametrize("cells", [1, 1 << 16])
def test_lexicon_search_picks_the_most_probable_word(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_ocr.models.ctc.LEXICON_CELLS", cells)  # one word at a time, or all of them
    logits = random_logits(18, 5, 4)
    lengths = torch.arange(18) % 6
    decoding = lexicon_search(logits, lengths, padded(LEXICON))
    for row, text in enumerate(texts_of(decoding)):
        paths = Paths(logits[row], int(lengths[row]))
        expected = max(LEXICON, key=lambda word: paths.texts.get(word, 0.0))
        assert text == expected
        assert decoding.scores[row].item() == pytest.approx(paths.texts[expected], rel=1e-5)


def test_a_word_that_fits_no_frame_count_is_never_read() -> None:
    decoding = lexicon_search(random_logits(2, 5, 4), torch.tensor([3, 4]), padded([(1, 1, 1), (2, 2)]))
    assert texts_of(decoding) == [(2, 2), (2, 2)]
    none = lexicon_search(random_logits(1, 5, 4), torch.tensor([2]), padded([(1, 1, 1), (2, 2)]))
    assert texts_of(none) == [()]
    assert none.scores.tolist() == [0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sequence_log_probability_is_minus_the_ctc_loss(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = random_logits(16, 40, 12, scale=4.0).to(dtype)
    lengths = torch.randint(20, 41, (16,), generator=generator)
    sizes = torch.randint(0, 11, (16,), generator=generator)
    sequences = torch.randint(1, 4, (16, 10), generator=generator) * (torch.arange(10) < sizes[:, None])
    loss = torch.nn.functional.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1), sequences, lengths, sizes, reduction="none"
    )
    result = sequence_log_probability(logits, lengths, sequences)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, -loss, rtol=1e-5, atol=1e-4)


def test_probabilities_too_small_for_floats_keep_their_logarithm() -> None:
    logits = peaked_logits([0] * 60, 4, height=60.0)
    result = sequence_log_probability(logits, torch.tensor([60]), padded([(1, 2, 3) * 10]))
    loss = torch.nn.functional.ctc_loss(
        logits.double().log_softmax(-1).transpose(0, 1),
        padded([(1, 2, 3) * 10]),
        torch.tensor([60]),
        torch.tensor([30]),
        reduction="none",
    )
    assert result.item() < -1500
    assert result.item() == pytest.approx(-loss.item(), rel=1e-6)


def test_a_text_that_does_not_fit_has_log_probability_minus_infinity() -> None:
    logits = random_logits(3, 4, 3)
    result = sequence_log_probability(logits, torch.tensor([2, 3, 0]), padded([(1, 1), (1, 1), ()]))
    assert result[0].item() == -math.inf
    assert math.isfinite(result[1].item())
    assert result[2].item() == 0.0


def test_alignment_follows_the_best_path_of_the_text() -> None:
    logits = random_logits(30, 5, 4, seed=5)
    lengths = torch.tensor([5, 4, 5] * 10)
    texts = [Paths(logits[row], int(lengths[row])).best_texts(30)[row] for row in range(30)]
    texts[0] = ()
    assert {len(text) for text in texts} >= {0, 1, 2, 3, 4}
    alignment = align(logits, lengths, padded(texts))
    log_probs = logits.log_softmax(-1)
    for row, text in enumerate(texts):
        length = int(lengths[row])
        path = Paths(logits[row], length).best_path(text)
        assert tuple(alignment.path[row, :length].tolist()) == path
        assert alignment.path[row, length:].tolist() == [0] * (5 - length)
        indices = character_indices(path)
        for index, symbol in enumerate(text):
            own = [frame for frame, owner in enumerate(indices) if owner == index]
            assert alignment.peak_frames[row, index].item() == max(own, key=lambda frame: log_probs[row, frame, symbol])


@pytest.mark.parametrize(
    ("peaks", "edges"),
    [
        ([3, 5, 10, 14], [1.5, 4.5, 8.0, 12.5, 16.5]),  # advances 2, 5, 4: median 4
        ([4, 6, 12], [2.5, 5.5, 9.5, 14.5]),  # advances 2, 6: median 4
    ],
)
def test_spans_meet_half_way_and_reach_half_a_median_advance_outwards(peaks: list[int], edges: list[float]) -> None:
    path = [1 + peaks.index(frame) if frame in peaks else 0 for frame in range(20)]
    spans = greedy_search(peaked_logits(path, 5), torch.tensor([20])).frame_spans
    assert spans is not None
    assert spans[0].tolist() == [[start, end] for start, end in itertools.pairwise(edges)]


def test_spans_end_at_the_row() -> None:
    logits = torch.cat([peaked_logits([1, 0, 0, 0, 0, 0, 2, 0, 0], 3), peaked_logits([1, 0, 0, 0, 0, 0, 2, 0, 0], 3)])
    spans = greedy_search(logits, torch.tensor([7, 9])).frame_spans
    assert spans is not None
    assert spans.tolist() == [[[0.0, 3.5], [3.5, 7.0]], [[0.0, 3.5], [3.5, 9.0]]]


def test_a_lone_character_has_the_widest_span_centred_on_its_peak() -> None:
    logits = torch.cat([peaked_logits([0, 1, 0, 0, 0, 0], 3), peaked_logits([0, 0, 0, 0, 2, 0], 3)])
    spans = greedy_search(logits, torch.tensor([6, 6])).frame_spans
    assert spans is not None
    assert spans.tolist() == [[[0.0, 3.0]], [[3.0, 6.0]]]


@pytest.mark.parametrize("search", ["greedy", "beam", "lexicon"])
def test_character_scores_are_those_of_all_texts_and_spans_those_of_the_alignment(search: str) -> None:
    logits = random_logits(12, 5, 4, seed=7)
    lengths = torch.tensor([5, 3, 4] * 4)
    decoding = SEARCHES[search](logits, lengths)
    lengths = lengths.repeat_interleave(len(decoding.scores) // 12)
    logits = logits.repeat_interleave(len(decoding.scores) // 12, 0)
    assert decoding.character_scores is not None and decoding.frame_spans is not None
    texts = texts_of(decoding)
    assert max(len(text) for text in texts) >= 2
    for row, text in enumerate(texts):
        expected = Paths(logits[row], int(lengths[row])).character_scores(text)
        scores = decoding.character_scores[row].tolist()
        assert scores[: len(text)] == pytest.approx(expected, rel=1e-4)
        assert scores[len(text) :] == [0.0] * (len(scores) - len(text))
        if text:
            assert math.prod(scores[: len(text)]) == pytest.approx(decoding.scores[row].item(), rel=1e-4)
    torch.testing.assert_close(decoding.frame_spans, align(logits, lengths, decoding.sequences).frame_spans)


SEARCHES: dict[str, Callable[[Tensor, Tensor], CtcDecoding]] = {
    "greedy": greedy_search,
    "beam": lambda logits, lengths: prefix_beam_search(logits, lengths, 6, num_return_sequences=2),
    "lexicon": lambda logits, lengths: lexicon_search(logits, lengths, padded(LEXICON)),
}
FUNCTIONS: dict[str, Callable[..., CtcDecoding]] = {
    "greedy": greedy_search,
    "beam": prefix_beam_search,
    "lexicon": lexicon_search,
}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_temperature_divides_the_logits_of_scores_but_chooses_no_text(search: str, temperature: float) -> None:
    logits, lengths = random_logits(12, 5, 4, seed=9), torch.tensor([5, 3, 4] * 4)
    cold = SEARCHES[search](logits, lengths)
    options = {"beam": {"num_beams": 6, "num_return_sequences": 2}, "lexicon": {"lexicon": padded(LEXICON)}}
    warm = FUNCTIONS[search](logits, lengths, **options.get(search, {}), temperature=temperature)
    assert torch.equal(warm.sequences, cold.sequences)
    assert torch.equal(warm.raw_scores, cold.scores)
    assert torch.equal(cold.raw_scores, cold.scores)
    assert warm.frame_spans is not None and cold.frame_spans is not None and warm.character_scores is not None
    assert torch.equal(warm.frame_spans, cold.frame_spans)
    copies = len(cold.scores) // 12
    for row, text in enumerate(texts_of(warm)):
        paths = Paths(logits[row // copies] / temperature, int(lengths[row // copies]))
        assert warm.scores[row].item() == pytest.approx(paths.texts[text], rel=1e-5)
        found = warm.character_scores[row, : len(text)].tolist()
        assert found == pytest.approx(paths.character_scores(text), rel=1e-4)


def test_texts_that_stand_for_none_have_score_0_at_any_temperature() -> None:
    logits, lengths = random_logits(1, 2, 4), torch.tensor([2])
    assert lexicon_search(logits, lengths, padded([(1, 1, 1)]), temperature=2.0).scores.tolist() == [0.0]
    nothing = torch.zeros(4, dtype=torch.bool)
    beam = prefix_beam_search(logits, lengths, 3, nothing, num_return_sequences=2, temperature=2.0)
    assert beam.scores.tolist() == pytest.approx([Paths(logits[0] / 2, 2).texts[()], 0.0], rel=1e-5)


def test_character_scores_of_long_texts_multiply_to_the_score_and_doubt_the_right_character() -> None:
    path = [symbol for _ in range(50) for symbol in (1, 0, 2, 2, 0, 3, 0, 3)]
    logits = peaked_logits(path, 6, height=12.0)
    logits[0, 82:84, 4] = 12.0  # the 42nd character, a 2 of two frames, may be "4" or "4 2"; a 4 may follow it
    logits[0, 95, 0] = 12.0  # the 48th may be missing
    decoding = lexicon_search(logits, torch.tensor([400]), padded([(1, 2, 3, 3) * 50]))
    assert decoding.character_scores is not None
    scores = decoding.character_scores[0]
    doubted = {41: 0.5, 42: 0.5, 47: 0.5}
    for index, score in enumerate(scores.tolist()):
        assert score == pytest.approx(doubted.get(index, 1.0), abs=0.01), index
    assert scores.double().prod().item() == pytest.approx(decoding.scores.item(), rel=1e-3)


@pytest.mark.parametrize("search", SEARCHES)
def test_without_characters_the_reading_is_the_same(search: str) -> None:
    logits, lengths = random_logits(9, 20, 6), torch.arange(9) * 2
    options = {"beam": {"num_beams": 6}, "lexicon": {"lexicon": padded(LEXICON)}}.get(search, {})
    full = FUNCTIONS[search](logits, lengths, **options)
    short = FUNCTIONS[search](logits, lengths, **options, with_characters=False)
    assert short.character_scores is None and short.frame_spans is None
    assert torch.equal(full.sequences, short.sequences)
    assert torch.equal(full.scores, short.scores)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_row_reads_the_same_to_the_last_bit_alone_and_among_others(search: str) -> None:
    logits = random_logits(13, 37, 9, seed=11, scale=2.0)
    lengths = torch.tensor([37, 0, 1, 2, 5, 8, 13, 16, 21, 29, 33, 36, 37])
    for row, length in enumerate(lengths.tolist()):
        logits[row, length:] = [math.nan, math.inf, 1e30, -math.inf][row % 4]
    together = SEARCHES[search](logits, lengths)
    copies = len(together.scores) // 13
    for row, length in enumerate(lengths.tolist()):
        alone = SEARCHES[search](logits[row : row + 1, :length], lengths[row : row + 1])
        width = alone.sequences.shape[1]
        for name, value in together._asdict().items():
            own = value[row * copies : (row + 1) * copies]
            if own.dim() > 1:
                assert not own[:, width:].any()
                own = own[:, :width]
            assert torch.equal(own, getattr(alone, name)), (name, row)


def test_log_probability_and_alignment_do_not_depend_on_the_batch() -> None:
    logits = random_logits(5, 30, 7, scale=2.0)
    lengths = torch.tensor([30, 9, 0, 17, 24])
    sequences = padded([(1, 1, 2, 5, 6, 6), (3,), (), (2, 4, 2, 4), (6, 6, 6)])
    log_probabilities = sequence_log_probability(logits, lengths, sequences)
    alignment = align(logits, lengths, sequences)
    for row, length in enumerate(lengths.tolist()):
        width = int((sequences[row] != 0).sum())
        own = (logits[row : row + 1, :length], lengths[row : row + 1], sequences[row : row + 1, :width])
        assert torch.equal(sequence_log_probability(*own), log_probabilities[row : row + 1])
        alone = align(*own)
        assert torch.equal(alone.path[0], alignment.path[row, :length])
        assert torch.equal(alone.peak_frames[0], alignment.peak_frames[row, :width])
        assert torch.equal(alone.frame_spans[0], alignment.frame_spans[row, :width])


@pytest.mark.parametrize("search", SEARCHES)
def test_equal_neighbours_are_kept_apart_by_a_blank_only(search: str) -> None:
    logits = torch.cat([peaked_logits([1, 0, 1, 2, 2], 4), peaked_logits([1, 1, 0, 0, 0], 4)])
    decoding = SEARCHES[search](logits, torch.tensor([5, 5]))
    texts = texts_of(decoding)[:: len(decoding.scores) // 2]
    assert texts == ([(1, 1, 2), (1,)] if search != "lexicon" else [(1, 1), (1,)])


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("rows", "frames"), [(0, 0), (0, 5), (3, 0)])
def test_no_rows_and_no_frames_give_empty_texts(search: str, rows: int, frames: int) -> None:
    decoding = SEARCHES[search](torch.zeros(rows, frames, 4), torch.zeros(rows, dtype=torch.int64))
    copies = 2 if search == "beam" else 1
    assert decoding.sequences.shape == (rows * copies, 0)
    assert decoding.character_scores is not None and decoding.character_scores.shape == (rows * copies, 0)
    assert decoding.frame_spans is not None and decoding.frame_spans.shape == (rows * copies, 0, 2)
    assert decoding.scores.tolist() == [1.0, 0.0][:copies] * rows
    assert (
        sequence_log_probability(torch.zeros(rows, frames, 4), torch.zeros(rows).long(), padded([()] * rows)).tolist()
        == [0.0] * rows
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("search", SEARCHES)
def test_any_precision_is_computed_in_float32(search: str, dtype: torch.dtype) -> None:
    logits, lengths = random_logits(4, 12, 6).to(dtype), torch.tensor([12, 7, 3, 0], dtype=torch.int32)
    decoding = SEARCHES[search](logits, lengths)
    reference = SEARCHES[search](logits.float(), lengths)
    assert decoding.scores.dtype == torch.float32
    assert all(torch.equal(value, expected) for value, expected in zip(decoding, reference, strict=True))


def test_minimum_frames_counts_symbols_and_equal_neighbours() -> None:
    labels = padded([(), (1,), (1, 1), (1, 2, 1), (3, 3, 3), (1, 1, 2, 2)])
    assert minimum_frames(labels).tolist() == [0, 1, 3, 3, 5, 6]
    assert minimum_frames(torch.zeros(2, 0, dtype=torch.int64)).tolist() == [0, 0]
    paths = Paths(torch.zeros(5, 3), 5)
    assert all(minimum_frames(padded([text])).item() <= 5 for text in paths.texts)
    assert len(paths.texts) == sum(
        minimum_frames(padded([text])).item() <= 5
        for size in range(6)
        for text in itertools.product((1, 2), repeat=size)
    )


LOGITS, LENGTHS = torch.zeros(2, 4, 3), torch.tensor([4, 3])
ALLOWED = torch.ones(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: greedy_search(LOGITS[0], LENGTHS), r"logits are torch.float32 of shape \(4, 3\)"),
        (lambda: greedy_search(LOGITS.long(), LENGTHS), "logits are torch.int64"),
        (
            lambda: greedy_search(LOGITS, LENGTHS[:1]),
            r"lengths are .* of shape \(1,\), expected integers of shape \(2,\)",
        ),
        (lambda: greedy_search(LOGITS, LENGTHS.float()), "lengths are torch.float32"),
        (lambda: greedy_search(LOGITS, LENGTHS + 1), r"lengths are \[5, 4\], expected 0 to 4"),
        (lambda: greedy_search(LOGITS, LENGTHS - 4), r"lengths are \[0, -1\], expected 0 to 4"),
        (lambda: greedy_search(LOGITS, LENGTHS, temperature=0.0), "temperature is 0.0, expected a number above 0"),
        (lambda: greedy_search(LOGITS, LENGTHS, temperature=math.nan), "temperature is nan"),
        (lambda: greedy_search(LOGITS, LENGTHS, ALLOWED[:2]), r"allowed is torch.bool of shape \(2,\)"),
        (lambda: greedy_search(LOGITS, LENGTHS, torch.tensor([0, 1, 2])), "allowed is torch.int64"),
        (lambda: prefix_beam_search(LOGITS, LENGTHS, 4, ALLOWED[None]), r"allowed is torch.bool of shape \(1, 3\)"),
        (lambda: prefix_beam_search(LOGITS, LENGTHS, 0), "num_beams is 0"),
        (lambda: prefix_beam_search(LOGITS, LENGTHS, 2, None, 3), "num_return_sequences is 3, expected 1 to num_beams"),
        (lambda: prefix_beam_search(LOGITS, LENGTHS, 2, None, 0), "num_return_sequences is 0"),
        (
            lambda: lexicon_search(LOGITS, LENGTHS, padded([(1,), (2, 3)])),
            "lexicon has the id 3 in row 1, expected .* to 2",
        ),
        (
            lambda: lexicon_search(LOGITS, LENGTHS, torch.tensor([[1, 0, 2]])),
            "lexicon has a 0 inside the text of row 0",
        ),
        (lambda: lexicon_search(LOGITS, LENGTHS, torch.zeros(0, 2).long()), "lexicon has no words"),
        (lambda: lexicon_search(LOGITS, LENGTHS, torch.tensor([1, 2])), r"lexicon is torch.int64 of shape \(2,\)"),
        (lambda: sequence_log_probability(LOGITS, LENGTHS, padded([(1,)])), r"sequences is .* of shape \(1, 1\)"),
        (
            lambda: sequence_log_probability(LOGITS, LENGTHS, padded([(1,), (-100,)])),
            "sequences has the id -100 in row 1",
        ),
        (lambda: align(LOGITS, LENGTHS, padded([(1,), (2, 2, 1)])), "text of row 1 needs 4 frames .* has 3"),
        (lambda: align(LOGITS, LENGTHS, torch.ones(2, 1)), "sequences is torch.float32"),
    ],
)
def test_invalid_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_text_of_probability_zero_cannot_be_aligned() -> None:
    logits = torch.zeros(1, 4, 3)
    logits[:, :, 2] = -math.inf
    with pytest.raises(ValueError, match="text of row 0 has probability 0"):
        align(logits, torch.tensor([4]), padded([(1, 2)]))
