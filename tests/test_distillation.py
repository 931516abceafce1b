"""Distillation: what the old model said is kept, what is new is learnt."""

import copy

import pytest
import torch
from tiny_training import parts, settings

from hf_ocr.alphabet import resize_alphabet
from hf_ocr.distillation import Teacher
from hf_ocr.models.modeling_attention_ocr import AttentionOcrForTextRecognition
from hf_ocr.training import train


def first_batch(chunks):
    return chunks[0][0]


def grown():
    """A teacher, and a student whose alphabet is larger and in another order."""
    model, processor, chunks, _ = parts()
    student = copy.deepcopy(model)
    tokenizer = resize_alphabet(student, processor.tokenizer, "§0" + "".join(processor.tokenizer.alphabet), "new")
    return Teacher(model, processor.tokenizer, tokenizer), model, student.eval(), processor, tokenizer, chunks


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
    with pytest.raises(ValueError, match="Take the checkpoint that the training starts from"):
        teacher.loss(batch, outputs)


def test_families_with_the_same_frames_teach_each_other():
    crnn, processor, chunks, _ = parts()
    attention = AttentionOcrForTextRecognition.from_crnn(crnn, decoder_hidden_size=8, attention_size=8)
    batch = first_batch(chunks)
    for model, student in ((crnn, attention), (attention, crnn)):
        teacher = Teacher(model, processor.tokenizer, processor.tokenizer)
        outputs = student.eval()(**batch)
        assert teacher.loss(batch, outputs).item() == pytest.approx(0, abs=1e-6)
        outputs.logits = outputs.logits + torch.randn(outputs.logits.shape, generator=torch.manual_seed(0))
        assert teacher.loss(batch, outputs).item() > 0.1


def test_training_stays_nearer_to_its_teacher(tmp_path):
    drift = {}
    for weight in (None, 5.0):
        model, processor, chunks, _ = parts()
        model.classifier.weight.data *= 30  # else it is sure of nothing
        teacher = Teacher(copy.deepcopy(model), processor.tokenizer, processor.tokenizer)
        kwargs = {} if weight is None else {"distillation_weight": weight}
        run = settings(tmp_path / str(weight), max_steps=24, learning_rate=3e-3, average_decay=0.5, **kwargs)
        trained = train(model, processor, chunks, run, None, weight and teacher)
        batch = first_batch(chunks)
        with torch.no_grad():
            drift[weight] = float(teacher.loss(batch, trained.eval()(**batch)))
    assert drift[5.0] < 0.6 * drift[None], drift
