"""Results on disk as they come."""

import json

from hf_ocr.cli.kept_lines import keep, open_kept


def test_what_is_kept_is_on_disk_at_once(tmp_path):
    path = tmp_path / "new" / "kept.jsonl"
    kept, file = open_kept(path, {"model": "a"})
    assert kept == []
    with file:
        for index in range(2):
            keep(file, {"index": index, "text": "\u2028é"})
            assert len(list(map(json.loads, path.read_bytes().splitlines()))) == index + 2, "before it is closed"
    kept, file = open_kept(path, {"model": "a"})
    file.close()
    assert kept == [{"index": 0, "text": "\u2028é"}, {"index": 1, "text": "\u2028é"}]
