import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_ocr.card import FEWEST_LINES, card_for_repository, render_card, try_usage, write_card
from hf_ocr.evaluation import Prediction, report_on
from hf_ocr.record import DataFile, DataSource, Result, RunRecord, Speed, Usage
from hf_ocr.report import report_to_dict

ROOT = Path(__file__).resolve().parent.parent
BARE = RunRecord(name="tiny", description="A tiny reader.", model={"family": "crnn"})


@pytest.fixture(scope="module")
def record():
    lines = [Prediction(0, "RM 12.90", "RM 12|9O", 0.5, 160, 32), Prediction(1, "total", "total", 0.9, 96, 32)]
    return replace(
        BARE,
        model={
            "family": "crnn",
            "parameters": 2_916_000,
            "dtype": "float16",
            "alphabet": " !~`|aé€-",
            "input": {"height": 40, "min_width": 64, "max_width": 4096, "num_channels": 1},
        },
        settings={"learning_rate": 0.0016, "batch|size": 64},
        created="2026-01-02",
        licence="bsd-3-clause",
        hours=3.25,
        steps=13_349,
        lines_seen=973_456,
        hardware={"cpu": "A Processor", "cores": 2},
        versions={"torch": "2.13.0"},
        training_data=(
            DataSource("receipts", "train", 15_421, "scanned receipts", "CC BY 4.0", (DataFile("r/t", 7, "ab" * 32),)),
        ),
        results=(Result("receipts", "test", report_to_dict(report_on(lines)), title="Receipt lines"),),
        speed=(Speed("this model", "receipt lines", 812.4, "lines/s", "two cores, batch 64"),),
        weights=(DataFile("tiny/model.safetensors", 5_832_000, "cd" * 32),),
        languages=("en", "de"),
        limits=("Handwriting is read badly.",),
        command="accelerate launch train.py",
        evaluation_command="python measure.py",
    )


def sections(card):
    return re.findall(r"^## (.+)$", card.text, re.MULTILINE)


def test_the_sections_of_a_full_record(record):
    assert sections(render_card(record)) == [
        "What it is",
        "Use",
        "Alphabet",
        "Accepted input",
        "Training data",
        "Training",
        "Results",
        "Speed",
        "Limits",
        "How to reproduce",
    ]


def test_what_the_record_lacks_is_left_out():
    card = render_card(BARE)
    assert sections(card) == ["What it is", "Use", "Accepted input"]
    assert not re.search(r"\d", card.text), "no figure may come from anywhere but the record"
    assert card.data.eval_results is None
    assert card.data.metrics is None
    assert card.data.license == "unknown"


def test_metadata_survives_the_round_trip(record):
    data = ModelCard(str(render_card(record))).data
    assert data.license == "bsd-3-clause"
    assert data.language == ["en", "de"]
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "image-to-text"
    assert data.metrics == ["exact_match", "cer", "wer"]
    assert data.model_name == "tiny"
    results = {result.metric_name: result for result in data.eval_results}
    cer = results["CER ignoring case"]
    assert (cer.metric_type, cer.metric_value) == ("cer", round(2 / 13, 6))
    assert (cer.task_type, cer.dataset_type, cer.dataset_name, cer.dataset_split) == (
        "image-to-text",
        "receipts",
        "Receipt lines",
        "test",
    )
    assert results["exact, letters and digits"].metric_value == 0.5
    assert len(results) == 5


def test_figures_are_those_of_the_record(record):
    text = render_card(record).text
    (row,) = [line for line in text.splitlines() if line.startswith("| Receipt lines, test")]
    figures = record.results[0].report["figures"]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "2"
    assert cells[2:] == [
        f"{100 * f['value']:.2f} % [{100 * f['low']:.2f}, {100 * f['high']:.2f}]" for f in list(figures.values())[:5]
    ]
    assert cells[2].startswith("50.00 % [0.00, 100.00]")
    assert "exact, letters and digits: lower-cased, all but a-z and 0-9 dropped" in text
    assert "95 % percentile bootstrap" in text
    for said in ("2,916,000", "5.8 MB", "3.25", "13,349", "973,456", "15,421", "CC BY 4.0", "812.4", "ab" * 32):
        assert said in text
    changed = replace(record, hours=7.75)
    assert "7.75" in render_card(changed).text
    assert "3.25" not in render_card(changed).text


def test_tables_keep_their_columns_whatever_the_values(record):
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", render_card(record).text, re.MULTILINE)
    assert len(blocks) >= 5
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_the_alphabet_is_shown_whole(record):
    text = render_card(record).text
    assert "9 characters" in text
    assert "~~~~text\n!~`|aé€-\n~~~~" in text


def test_use_is_three_lines_and_names_the_model_if_it_must(record):
    shown = re.search(r"```python\n(.*?)```", render_card(record).text, re.DOTALL)[1].splitlines()
    assert shown == [
        "import hf_ocr",
        "from transformers import pipeline",
        "",
        'print(pipeline("image-to-text")("line.png"))',
    ]
    named = render_card(replace(record, load_as="me/tiny")).text
    assert 'pipeline("image-to-text", model="me/tiny")("line.png")' in named


def test_write_card_renders_beside_the_record(record, tmp_path):
    path = write_card(record.save(tmp_path))
    assert path == tmp_path / "tiny.md"
    assert path.read_text(encoding="utf-8") == str(render_card(record))


def test_protocol_and_interval_stand_beside_each_figure_of_the_metadata(record):
    results = {result.metric_name: result for result in ModelCard(str(render_card(record))).data.eval_results}
    figure = record.results[0].report["figures"]["cer"]
    assert results["CER"].metric_args == {
        "protocol": figure["protocol"],
        "interval": {"low": figure["low"], "high": figure["high"], "method": record.results[0].report["interval"]},
    }


def test_the_lines_of_use_are_run_and_what_they_print_is_shown(record):
    tried = try_usage(record, "tests/samples/receipt-2.png", ROOT)
    assert re.fullmatch(r"\[\{'generated_text': '.+'\}\]", tried.usage.printed)
    text = render_card(tried).text
    assert f"~~~~text\n{tried.usage.printed}\n~~~~" in text
    assert '("image-to-text")("tests/samples/receipt-2.png")' in text
    with pytest.raises(RuntimeError, match=r"card of tiny.*no-such-file\.png"):
        try_usage(record, "no-such-file.png", ROOT)


def test_in_a_repository_the_lines_of_use_take_model_and_image_from_there(record):
    name = 'my "model" ü'
    usage = Usage(f"{name}/examples/line-1.png", "[{'generated_text': 'a'}]", standalone=True)
    card = str(render_card(replace(record, name=name, load_as=name, usage=usage)))
    published = card_for_repository(card, "me/lines")
    used = 'line = hf_hub_download("me/lines", "examples/line-1.png")\nprint(pipeline("image-to-text", model='
    assert (
        f"""
```python
import hf_ocr
from huggingface_hub import hf_hub_download
from transformers import pipeline

{used}"me/lines")(line))
```
"""
        in published
    )
    assert (
        f"""
```python
from huggingface_hub import hf_hub_download
from transformers import pipeline

{used}"me/lines", trust_remote_code=True)(line))
```
"""
        in published
    )
    changed = set(published.splitlines()) ^ set(card.splitlines())
    assert len(changed) == 6, "two lines gone, four new, and all others as they were"
    assert card_for_repository(published, "me/others") == published
    branch = card_for_repository(card, "me/lines", "v2")
    assert branch.count('"examples/line-1.png", revision="v2")') == 2
    assert branch.count('model="me/lines", revision="v2"') == 2


@pytest.mark.parametrize(
    ("load_as", "image"), [(None, "mine/line.png"), ("mine/best", "mine/line.png"), ("mine", "mine.png")]
)
def test_lines_that_do_not_read_from_the_folder_of_the_model_are_left(record, load_as, image):
    card = str(render_card(replace(record, load_as=load_as, usage=Usage(image, "[]", load_as is not None))))
    assert card_for_repository(card, "me/lines") == card


def test_the_weights_before_are_shown_beside_those_that_took_their_place(record):
    worse = report_to_dict(
        report_on([Prediction(0, "total", "tota", 0.9, 96, 32), Prediction(1, "x", "y", 0.9, 32, 32)])
    )
    before = replace(record.results[0], report=worse)
    card = render_card(replace(record, results_before=(before,))).text
    table = card.partition("The weights that were here before these")[2].partition("\n\n")[2].partition("\n\n")[0]
    header, _, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert header[1:3] == ["exact, letters and digits, before", "exact, letters and digits, now"]
    shown = [float(cell.partition(" ")[0]) for cell in row[1:]]
    figures = [
        r.report["figures"][name]["value"]
        for name in ("exact", "cer_ignoring_case")
        for r in (before, record.results[0])
    ]
    assert shown == pytest.approx([100 * value for value in figures], abs=0.01)
    assert len(set(figures)) == 4
    assert "were here before" not in render_card(record).text


def test_pictures_are_shown_with_their_caption(record):
    card = render_card(replace(record, pictures={"tiny.png": "lines and what was read"}))
    assert "![lines and what was read](tiny.png)" in card.text


def test_what_was_read_much_worse_than_the_rest_is_a_limit():
    short = [Prediction(n, "total", "total", 0.9, 96, 32) for n in range(60)]
    long = [Prediction(60 + n, "x" * 40, "x" * 39, 0.9, 640, 32) for n in range(FEWEST_LINES)]
    result = Result("receipts", "test", report_to_dict(report_on([*short, *long])))
    limits = render_card(replace(BARE, results=(result,))).text.partition("## Limits")[2]
    assert "of the 30 lines with 33 and more characters, 0.0 % are right (letters and digits), of all 66.7 %" in limits
    few = Result("receipts", "test", report_to_dict(report_on([*short, *long[1:]])))
    assert "## Limits" not in render_card(replace(BARE, results=(few,))).text


RENDERED_BY_SCRIPTS = {
    "fraktur": ("finetune_fraktur.py", "render"),
    "checkpoints": ("compare_checkpoints.py", "comparison"),
}


@pytest.mark.parametrize("path", sorted((ROOT / "model_cards").glob("*.json")), ids=lambda path: path.stem)
def test_every_card_is_its_record_rendered(path):
    card = path.with_suffix(".md")
    content = json.loads(path.read_text(encoding="utf-8"))
    if "model" not in content:  # a measurement by a script, which renders it if it has a card
        if card.exists():
            script, render = RENDERED_BY_SCRIPTS[path.stem]
            found = runpy.run_path(str(ROOT / "scripts" / script))[render](content)
            assert card.read_text(encoding="utf-8") == found
        return
    assert card.read_text(encoding="utf-8") == str(render_card(RunRecord.load(path)))
    data = ModelCard.load(card).data
    assert len(data.eval_results) == 5 * len(content["results"])
    assert data.license == content["licence"]
    for picture in content.get("pictures", ()):
        assert (path.parent / picture).exists()


def test_a_model_of_one_width_is_said_to_stretch():
    record = RunRecord(
        "words", "Words.", {"family": "parseq", "input": {"height": 32, "min_width": 128, "max_width": 128}}
    )
    text = str(render_card(record))
    assert "It is stretched to 128 x 32 px." in text
    assert "aspect kept" not in text and "refused" not in text
