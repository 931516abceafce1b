"""Fetches the families of Google Fonts for synthetic lines, from the npm packages @expo-google-fonts/*.

    python scripts/get_fonts.py --output_dir /usr/share/fonts/truetype/google-fonts

Of each family with Latin letters the regular, the bold and the italic face, or the first where there is no regular one;
without East Asian families, bar codes and the like, and Noto and Playwrite, whose Latin faces are all alike. Needs npm
and its registry; families that the registry lacks are counted. The fonts have their own licences, most of them the SIL
Open Font License.
"""

import argparse
import io
import json
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

LIST = "google-font-metadata"
FACES = ("/400Regular/", "/700Bold/", "/400Regular_Italic/")
EAST_ASIAN = {"chinese-simplified", "chinese-traditional", "chinese-hongkong", "japanese", "korean"}
NO_PRINT = ("barcode", "flow-", "redacted", "blokk", "noto-", "playwrite", "material")


def families(folder: Path) -> list[str]:
    """The names of the packages, as the list of all Google fonts has them."""
    subprocess.run(["npm", "pack", "--silent", LIST], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        listed = json.load(archive.extractfile("package/data/google-fonts-v1.json"))  # type: ignore[arg-type]
    return [
        name
        for name, family in listed.items()
        if "latin" in family["subsets"]
        and not EAST_ASIAN & set(family["subsets"])
        and not any(part in name for part in NO_PRINT)
    ]


def fetch(registry: str, family: str, folder: Path) -> int:
    """The faces of a family that were written; 0 where the registry has no such package."""
    try:
        with urllib.request.urlopen(f"{registry}/@expo-google-fonts%2f{family}/latest", timeout=60) as answer:
            archive = json.load(answer)["dist"]["tarball"]
        with urllib.request.urlopen(archive, timeout=120) as answer:
            content = io.BytesIO(answer.read())
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return 0
    with tarfile.open(fileobj=content) as files:
        names = sorted(name for name in files.getnames() if name.endswith(".ttf"))
        chosen = [name for face in FACES for name in names if face in name]
        if not any(FACES[0] in name for name in chosen):
            chosen = names[:1]
        for name in chosen:
            (folder / Path(name).name).write_bytes(files.extractfile(name).read())  # type: ignore[union-attr]
    return len(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    folder = parser.parse_args().output_dir
    folder.mkdir(parents=True, exist_ok=True)
    registry = subprocess.run(["npm", "config", "get", "registry"], capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as temporary:
        names = families(Path(temporary))
    with ThreadPoolExecutor(12) as threads:
        work = threads.map(lambda name: fetch(registry.strip().rstrip("/"), name, folder), names)
        counts = list(tqdm(work, total=len(names), unit="family", disable=None))
    missing = counts.count(0)
    print(f"{sum(counts)} faces of {len(names) - missing} families; the registry lacks {missing}")


if __name__ == "__main__":
    main()
