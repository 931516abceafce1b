"""Faults: each is a function that plants itself into a class, with the contract that must find it."""

import json
from pathlib import Path

FAULTS = {}


def fault(contract, message):
    """The decorated function plants a fault into a class, which `contract` must find and say by `message`."""

    def register(plant):
        FAULTS[plant.__name__] = (plant, contract, message)
        return plant

    return register


def around(patch, owner, method, wrapper):
    """Replace `owner.method` by `wrapper(original, self, ...)`."""
    original = getattr(owner, method)

    def replaced(self, *args, **kwargs):
        return wrapper(original, self, *args, **kwargs)

    patch.setattr(owner, method, replaced)


def on_logits(patch, model_class, change):
    def forward(original, self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        output.logits = change(self, output.logits)
        return output

    around(patch, model_class, "forward", forward)


def on_recognition(patch, model_class, change):
    def recognize(original, self, *args, **kwargs):
        return change(original(self, *args, **kwargs))

    around(patch, model_class, "recognize", recognize)


def on_config_file(patch, model_class, change):
    def save_pretrained(original, self, folder, *args, **kwargs):
        original(self, folder, *args, **kwargs)
        path = Path(folder, "config.json")
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    around(patch, model_class, "save_pretrained", save_pretrained)
