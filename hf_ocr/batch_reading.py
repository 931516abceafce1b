"""A reader of batches of rows, for `map` of datasets and for engines that send it to other processes, as Ray Data."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import pipeline

from hf_ocr.registration import default_checkpoint, find_checkpoint

_PROCESS = os.getpid()


class BatchReader:
    """Reads the images of a batch of rows, and adds text, score and error: `map` replaces columns of these names.

    ```python
    rows = rows.cast_column("image", Image(decode=False))
    rows = rows.map(BatchReader(), batched=True, num_proc=2)

    rows = ray.data.read_parquet("lines/").repartition(target_num_rows_per_block=1000).map_batches(
        BatchReader, fn_constructor_kwargs={"keep": ["id"]}, compute=ray.data.ActorPoolStrategy(size=2)
    )
    ```

    (Ray joins small files to one block, and a block goes to one worker: so small lines are divided again.)

    The model is loaded in the process that reads, with the first batch. A reader travels as its options, and datasets
    know by them (and by the content of the checkpoint's folder) what they have read already.

    Args:
        model: the folder of a checkpoint, or its name on the Hub or in the package; its first choice when None.
        image_column: with the images: encoded bytes, `{"bytes", "path"}`, paths, addresses, PIL images or arrays.
        keep: columns to give back as they came. `map` of datasets keeps all; `map_batches` keeps none.
        boxes: "char" or "word" adds the column "characters" or "words", as the pipeline gives them. Where the first
            rows hold no text at all, `map` cannot tell its type, and wants `features`.
        batch_size: images read at once; by default as the pipeline has it.
        num_workers: threads that load and prepare images; 0 does so in the calling thread.
        device: as `pipeline` takes it, which by default chooses the first GPU there is; one of several processes that
            train together must name its own.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        image_column: str = "image",
        keep: Sequence[str] = (),
        boxes: Literal["char", "word"] | None = None,
        batch_size: int | None = None,
        num_workers: int = 0,
        device: str | None = None,
    ) -> None:
        folder = Path(default_checkpoint() if model is None else find_checkpoint(model))
        self.model = str(folder.resolve()) if folder.is_dir() else str(model)
        self.checkpoint = fingerprint_checkpoint(folder) if folder.is_dir() else None
        self.image_column = image_column
        self.keep = tuple(keep)
        self.boxes = boxes
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.device = device
        self._read: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_read": None}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Columns for a batch: "text", "score", "error", with boxes "characters" or "words", and those to keep.

        An image that cannot be read has text "", score 0.0 and its error, others the error "": no nulls, so that the
        types of the columns show in every batch.

        Raises:
            KeyError: the batch lacks a column that was named.
            ValueError: the model cannot be read with, or cannot tell where characters stand.
        """
        if self._read is None:
            self._read = self._load()
        results = [
            result
            for result, *_ in self._read(
                list(batch[self.image_column]),
                return_scores=True,
                return_boxes=self.boxes,
                on_error="skip",
                batch_size=self.batch_size,
                num_workers=self.num_workers,
            )
        ]
        columns = {name: batch[name] for name in self.keep}
        columns["text"] = [result["generated_text"] or "" for result in results]
        columns["score"] = [result.get("score", 0.0) for result in results]
        columns["error"] = [result.get("error", "") for result in results]
        if self.boxes is not None:
            places = {"char": "characters", "word": "words"}[self.boxes]
            columns[places] = [result.get(places, []) for result in results]
        return columns

    def _load(self) -> Any:
        if os.getpid() != _PROCESS:
            # Forked: the threads of the parent's OpenMP did not come along, and waiting for them would never end.
            torch.set_num_threads(1)
        return pipeline("text-recognition", model=self.model, device=self.device)


def fingerprint_checkpoint(folder: str | os.PathLike[str]) -> str:
    """SHA-256 over what decides the text: the weights, and the JSON files of configuration and processors."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.suffix in (".json", ".safetensors"):
            with path.open("rb") as file:
                digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
