"""transformers' own Trainer trains our models: losses, accumulation, evaluation, a checkpoint that loads."""

import pytest
import torch
from contracts.tiny_configs import tiny_config, tiny_processor
from PIL import Image, ImageDraw, ImageFont
from transformers import Trainer, TrainingArguments

from hf_ocr import MODEL_CLASSES

WORDS = ["bead", "fee", "cage", "10"]
RECOGNIZERS = [model_class for model_class in MODEL_CLASSES if hasattr(model_class, "recognize")]


def drawn(word):
    image = Image.new("L", (16 * len(word) + 24, 40), 255)
    ImageDraw.Draw(image).text((8, 6), word, fill=0, font=ImageFont.load_default(24))
    return image


def trained(model_class, folder, **kwargs):
    torch.manual_seed(0)
    model, processor = model_class(tiny_config(model_class)), tiny_processor(model_class)

    def collate(rows):
        return dict(processor(images=[drawn(row["text"]) for row in rows], text=[row["text"] for row in rows],
                              return_tensors="pt"))  # fmt: skip

    rows = [{"text": word} for word in WORDS]
    values = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.0, "report_to": "none",
              "logging_steps": 1, "use_cpu": True, "remove_unused_columns": False, "save_steps": 2}  # fmt: skip
    arguments = TrainingArguments(str(folder), **(values | kwargs))
    trainer = Trainer(model, arguments, data_collator=collate, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("model_class", RECOGNIZERS, ids=lambda model_class: model_class.__name__)
def test_the_stock_trainer_trains(model_class, tmp_path):
    one = trained(model_class, tmp_path / "one")
    losses = [entry["loss"] for entry in one.state.log_history if "loss" in entry]
    # Accumulation divides the loss: four batches of one line say what one batch of four says (dropout apart).
    four = trained(model_class, tmp_path / "four", per_device_train_batch_size=1, gradient_accumulation_steps=4)
    apart = [entry["loss"] for entry in four.state.log_history if "loss" in entry]
    assert apart[0] == pytest.approx(losses[0], rel=0.3)
    assert one.evaluate()["eval_loss"] > 0
    loaded = model_class.from_pretrained(tmp_path / "one" / "checkpoint-2")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), one.model.parameters(), strict=True))
