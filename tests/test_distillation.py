"""Distillation: families teach each other by logits, and any recognizer any other by the text that it reads."""

import copy

import pytest
import torch
from datasets import Dataset, concatenate_datasets
from datasets import Image as EncodedImage
from tiny_recognizer import lines, tiny_recognizer
from tiny_stock_models import tiny_trocr
from tiny_training import WORDS, parts, rendered, settings, untrained
from transformers import pipeline

from hf_ocr.alphabet import resize_alphabet
from hf_ocr.data.batches import LineChunks, Source
from hf_ocr.distillation import Teacher, read_with_teacher
from hf_ocr.encoder_decoder import EncoderDecoderProcessor, load_recognizer
from hf_ocr.evaluation import evaluate
from hf_ocr.models.modeling_attention_ocr import AttentionOcrForTextRecognition
from hf_ocr.models.modeling_vision_text import VisionTextForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.training import train


def first_batch(chunks):
    return chunks[0][0]


def grown():
    """A teacher, and a student whose alphabet is larger and in another order."""
    model, processor, chunks, _ = parts()
    student = copy.deepcopy(model)
    tokenizer = resize_alphabet(student, processor.tokenizer, "§0" + "".join(processor.tokenizer.alphabet), "new")
    teacher = Teacher(model, processor, TextRecognitionProcessor(processor.image_processor, tokenizer))
    return teacher, model, student.eval(), processor, tokenizer, chunks


def test_an_unchanged_model_has_nothing_to_answer_for_even_with_new_characters():
    teacher, _, student, _, tokenizer, chunks = grown()
    batch = {name: tensor for name, tensor in first_batch(chunks).items() if name != "labels"}
    outputs = student(**batch)
    assert len(tokenizer) == outputs.logits.shape[-1]
    assert teacher.loss(batch, outputs).item() == pytest.approx(0, abs=1e-6)
    new_id = tokenizer.get_vocab()["§"]
    outputs.logits[..., new_id] += 50  # sure of a new character everywhere: none of the teacher's business
    assert teacher.loss(batch, outputs).item() == pytest.approx(0, abs=1e-6)


def test_it_is_the_divergence_over_the_valid_frames():
    teacher, model, student, processor, tokenizer, chunks = grown()
    batch = first_batch(chunks)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    outputs = student(**inputs)
    outputs.logits = outputs.logits + torch.randn(outputs.logits.shape, generator=torch.manual_seed(0))
    old, new = processor.tokenizer.get_vocab(), tokenizer.get_vocab()
    ids = [new[symbol] for symbol in sorted(old, key=old.__getitem__)]
    divergences = []
    for expected, answered, length in zip(model(**inputs).logits, outputs.logits, outputs.logit_lengths, strict=True):
        p, q = expected[:length].softmax(-1), answered[:length, ids].softmax(-1)
        divergences += (p * (p / q).log()).sum(-1).tolist()
    assert len(set(outputs.logit_lengths.tolist())) > 1
    assert teacher.loss(batch, outputs).item() == pytest.approx(sum(divergences) / len(divergences), rel=1e-4)


def test_a_teacher_of_another_frame_rate_is_refused():
    teacher, _, student, _, _, chunks = grown()
    batch = first_batch(chunks)
    outputs = student(pixel_values=batch["pixel_values"], widths=batch["widths"])
    outputs.logits = outputs.logits[:, ::2]
    with pytest.raises(ValueError, match=r"gives \d+ frames where.*distillation_weight to 0"):
        teacher.loss(batch, outputs)


def with_decoders():
    """One of each family with a decoder, in random weights, and what made them."""
    crnn, processor, chunks, _ = parts()
    torch.manual_seed(1)
    attention = AttentionOcrForTextRecognition.from_crnn(crnn, decoder_hidden_size=8, attention_size=8)
    vision = VisionTextForTextRecognition.from_crnn(
        crnn, stem_channels=[8, 16, 16, 16, 24, 24, 32], hidden_size=32, num_attention_heads=2, intermediate_size=32,
        encoder_layers=1, decoder_layers=1,
    )  # fmt: skip
    return crnn, attention, vision, processor, chunks


@pytest.mark.parametrize("names", ["attention crnn", "crnn vision", "vision attention"])
def test_families_with_the_same_frames_teach_each_other(names):
    crnn, attention, vision, processor, chunks = with_decoders()
    of_family = {"crnn": crnn, "attention": attention, "vision": vision}
    model, student = (of_family[name] for name in names.split())
    for layer in model.vocabulary_layers():
        layer.weight.data.normal_(std=2.0)  # else it is sure of nothing
    teacher = Teacher(model, processor, processor)
    batch = first_batch(chunks)
    optimizer = torch.optim.AdamW(student.train().parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        losses.append(teacher.loss(batch, student(**batch)))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert 0.7 * losses[0] > losses[-1] > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_decoder_without_a_ctc_head_reads_along_the_labels():
    """Its logits are of steps, not of frames: two texts of one length would be held to each other."""
    _, attention, _, processor, chunks = with_decoders()
    torch.manual_seed(1)
    alone = type(attention)(type(attention.config)(**attention.config.to_diff_dict() | {"ctc_weight": 0.0}))
    teacher = Teacher(copy.deepcopy(alone), processor, processor)
    batch = first_batch(chunks)
    assert teacher.loss(batch, alone.eval()(**batch)).item() == pytest.approx(0, abs=1e-6)


def test_decoders_are_compared_along_the_labels():
    _, attention, vision, processor, chunks = with_decoders()
    batch = first_batch(chunks)
    teacher = Teacher(vision, processor, processor)
    answer, own = attention.eval()(**batch), vision(**batch)
    answer.logits = own.logits  # nothing to say of the frames
    divergences = []
    for expected, answered, labels in zip(own.decoder_logits, answer.decoder_logits, batch["labels"], strict=True):
        steps = int((labels >= 0).sum()) + 1
        p, q = expected[:steps].softmax(-1), answered[:steps].softmax(-1)
        divergences += (p * (p / q).log()).sum(-1).tolist()
    assert len(set((batch["labels"] >= 0).sum(-1).tolist())) > 1
    expected = sum(divergences) / len(divergences) / 2
    assert expected > 0.001
    assert teacher.loss(batch, answer).item() == pytest.approx(expected, rel=1e-4)
    # A label that cannot be aligned is the student's to skip; it does not stop the teacher.
    long = torch.full((len(batch["labels"]), 300), -100)
    long[:, : batch["labels"].shape[1]] = batch["labels"]
    long[0] = 1
    batch["labels"] = long
    attention.config.invalid_labels = "skip"
    assert teacher.loss(batch, attention(**batch)).isfinite()


def test_a_stock_encoder_decoder_is_held_to_what_it_was(tmp_path):
    words = ["ab", "cat"]
    model, processor = load_recognizer(tiny_trocr(tmp_path, [rendered(word)["image"] for word in words], words))
    batch = processor(images=[rendered(word)["image"] for word in words], text=words, return_tensors="pt")
    teacher = Teacher(copy.deepcopy(model), processor, processor)
    assert teacher.loss(batch, model.eval()(**batch)).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        model.model.encoder.layernorm.weight *= 2
    assert teacher.loss(batch, model(**batch)).item() > 0.01
    _, crnn_processor, _, _ = parts()
    with pytest.raises(ValueError, match=r"of shape \(3, 32, 32\).*as one of \(1, 32, .*`read_with_teacher`"):
        Teacher(model, processor, crnn_processor)
    others = EncoderDecoderProcessor(processor.image_processor.part, crnn_processor.tokenizer)
    with pytest.raises(ValueError, match=r"40 symbols, the model in training 17.*both need one alphabet"):
        Teacher(model, processor, others)


def test_training_stays_nearer_to_its_teacher(tmp_path):
    drift = {}
    for weight in (None, 5.0):
        model, processor, chunks, _ = parts()
        model.classifier.weight.data *= 30  # else it is sure of nothing
        teacher = Teacher(copy.deepcopy(model), processor, processor)
        kwargs = {} if weight is None else {"distillation_weight": weight}
        run = settings(tmp_path / str(weight), max_steps=24, learning_rate=3e-3, average_decay=0.5, **kwargs)
        trained = train(model, processor, chunks, run, None, weight and teacher)
        batch = first_batch(chunks)
        with torch.no_grad():
            drift[weight] = float(teacher.loss(batch, trained.eval()(**batch)))
    assert drift[5.0] < 0.6 * drift[None], drift


def unlabelled(images):
    return Dataset.from_dict({"image": images, "text": [None] * len(images)}).cast_column("image", EncodedImage())


@pytest.mark.slow
def test_a_model_learns_from_what_another_reads(tmp_path):
    """A CRNN that has never seen a label reads as the TrOCR does: another alphabet, size and kind of image."""
    words = WORDS[:3]
    rows = [rendered(word) for word in words]
    for row in rows:  # as high as print fills it: nothing is cut off for the one that is left for the other
        row["image"] = row["image"].crop((0, 6, row["image"].width, 28))
    tiny_trocr(tmp_path / "trocr", [row["image"] for row in rows], words)
    model, processor = untrained(WORDS, [8, 8, 16, 16, 16, 16, 24, 24], 24)
    read = read_with_teacher(unlabelled([row["image"] for row in rows]), str(tmp_path / "trocr"), set("".join(words)))
    assert read["text"][:] == words
    chunks = LineChunks([Source(read)], processor, lines_per_chunk=3, batches_per_chunk=1)
    values = {"max_steps": 600, "save_steps": 600, "learning_rate": 5e-3, "warmup_ratio": 0.2, "average_decay": 0.8}
    learnt = train(model, processor, chunks, settings(tmp_path / "run", weight_decay=0.0, **values))
    assert evaluate(learnt, processor, rows).cer.value < 0.3


def test_only_what_the_teacher_is_sure_of_is_kept_in_order(tmp_path):
    model, processor = tiny_recognizer()
    model.save_pretrained(tmp_path / "teacher")
    processor.save_pretrained(tmp_path / "teacher")
    images = lines(12)
    found = [
        read[0] for read in pipeline("text-recognition", model=str(tmp_path / "teacher"))(images, return_scores=True)
    ]
    texts = [read["generated_text"] for read in found]
    certainty = [read["score"] ** (1 / max(len(text), 1)) for read, text in zip(found, texts, strict=True)]
    middle = sorted(certainty)[6]
    images[3] = images[3].crop((0, 0, 1, 1))
    rows = unlabelled(images).cast_column("image", EncodedImage(decode=False))
    broken = [row["image"] for row in rows]
    broken[5] = {"bytes": b"no image", "path": None}
    rows = unlabelled(broken)
    wanted = [i for i in range(12) if texts[i] and certainty[i] >= middle and i not in (3, 5)]
    read = read_with_teacher(rows, str(tmp_path / "teacher"), set(processor.tokenizer.alphabet), middle)
    assert 2 < len(wanted) < 8
    assert read["text"][:] == [texts[i] for i in wanted]
    assert [image.size for image in read["image"]] == [images[i].size for i in wanted]
    letter = texts[wanted[0]][0]
    fewer = read_with_teacher(rows, str(tmp_path / "teacher"), set(processor.tokenizer.alphabet) - {letter}, middle)
    assert fewer["text"][:] == [texts[i] for i in wanted if letter not in texts[i]]
    assert len(read_with_teacher(rows.select([]), str(tmp_path / "teacher"), set())) == 0
    joined = concatenate_datasets([rows, rows]).select(range(1, 23))
    none = read_with_teacher(joined, str(tmp_path / "teacher"), set(processor.tokenizer.alphabet), min_score=1.01)
    assert none.column_names == read.column_names and len(concatenate_datasets([read, none])) == len(read)


@pytest.mark.parametrize("stop", [4, 8])
def test_a_stopped_run_with_a_teacher_goes_on_bit_by_bit(tmp_path, stop):
    def run(folder, evaluate=None, **kwargs):
        crnn, attention, _, processor, chunks = with_decoders()
        teacher = Teacher(attention, processor, processor)
        return train(crnn, processor, chunks, settings(tmp_path / folder, **kwargs), evaluate, teacher)

    class StopError(Exception):
        pass

    def interrupt(average):
        raise StopError

    whole = run("whole")
    with pytest.raises(StopError):
        run("parts", interrupt, eval_steps=stop)
    torch.manual_seed(99)
    resumed = run("parts")
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
