"""Everything a caller may call a photo becomes the same upload."""

import subprocess
import sys
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.client.sources import Source, is_address, name_of, read
from detector.errors import NotAFile
from tests.test_layers import ROOT


def test_paths_bytes_and_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"photo")
    with path.open("rb") as file:
        sources: list[Source] = [path, str(path), b"photo", bytearray(b"photo"), memoryview(b"photo"), file]
        uploads = [read(source) for source in sources]
    assert {upload.data for upload in uploads} == {b"photo"}
    assert [upload.name for upload in uploads] == ["a.jpg", "a.jpg", "photo", "photo", "photo", "a.jpg"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "HSV", "F"])
def test_a_pil_image_of_any_mode_is_sent_without_loss(mode: str, photo: Image.Image) -> None:
    given = photo.convert(mode)
    sent = Image.open(BytesIO(read(given).data))
    assert np.array_equal(np.asarray(sent.convert("RGB")), np.asarray(given.convert("RGB")))


@pytest.mark.parametrize("source", [StringIO("text"), 7, None])
def test_what_is_no_photo_s_source_is_refused(source: Source) -> None:
    with pytest.raises(NotAFile):
        read(source)


def test_addresses_are_told_from_paths() -> None:
    assert is_address("HTTPS://shop.example/a%20b.jpg?x=1")
    assert name_of("https://shop.example/a%20b.jpg?x=1") == "a b.jpg"
    assert not is_address("https.jpg") and not is_address(b"https://shop.example")


def test_the_client_works_without_pillow_and_numpy() -> None:
    code = """
import sys
for absent in ("PIL", "numpy", "rich", "torch", "bentoml", "gradio", "yaml"):
    sys.modules[absent] = None
from detector.client import Client, MockService
from detector.cli import main
client = Client(transport=MockService(0.97))
print(client.predict(b"photo").label, client.explain(b"photo").region.name)
sys.exit(main(["health"], transport=MockService()))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("ai_generated centre\nstatus  model")
