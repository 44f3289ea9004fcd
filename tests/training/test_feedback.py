"""training.feedback: what people said becomes photos that training reads."""

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from detector.decisions import Decisions, prepare
from detector.schema import Correction, Decision, Truth
from tests.conftest import encoded, make_photo
from tests.test_decisions import VERDICT
from training.__main__ import FAULT, main
from training.data import InvalidDataset, load
from training.feedback import pull

DAY = 86_400.0
PHOTOS = [encoded(make_photo(seed=seed)) for seed in range(4)]


def decided(name: str, photo: bytes) -> Decision:
    image = VERDICT.image.model_copy(update={"sha256": sha256(photo).hexdigest()})
    verdict = VERDICT.model_copy(update={"image": image, "decision_id": name})
    return Decision(id=name, time=datetime.now(UTC), caller="key:shop", verdict=verdict)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Three photos labelled, one of them both ways, and one that nobody labelled."""
    said: list[tuple[str, int, Truth | None]] = [
        ("a", 0, "real"),
        ("b", 1, "real"),
        ("c", 1, "ai_generated"),
        ("d", 2, "real"),
        ("e", 3, None),
    ]

    async def fill() -> None:
        store = Decisions(tmp_path / "d.sqlite", DAY)
        for name, photo, label in said:
            store.keep(decided(name, PHOTOS[photo]))
            if label:
                await store.correct(name, Correction(label=label, time=datetime.now(UTC)))
        await store.close()

    asyncio.run(fill())
    return tmp_path / "d.sqlite"


def own_photos(folder: Path, photos: list[bytes]) -> Path:
    (folder / "deep").mkdir(parents=True)
    for number, photo in enumerate(photos):
        (folder / "deep" / f"shelf {number}.JPG").write_bytes(photo)
    return folder


def test_labelled_photos_are_found_by_their_bytes_and_read_by_training(records: Path, tmp_path: Path) -> None:
    pulled = pull(records, own_photos(tmp_path / "own", [PHOTOS[0], PHOTOS[1], PHOTOS[3]]), tmp_path / "out")
    assert (pulled.photos, pulled.missing, pulled.changed) == (2, 1, 1)
    read = {photo.path.read_bytes(): photo for photo in load(pulled.manifest)}
    assert {data: photo.label for data, photo in read.items()} == {PHOTOS[0]: 0, PHOTOS[1]: 1}
    assert {photo.source for photo in read.values()} == {"key:shop"}


def test_records_without_labels_are_said(tmp_path: Path) -> None:
    prepare(tmp_path / "empty.sqlite")
    with pytest.raises(InvalidDataset, match="no labelled decisions"):
        pull(tmp_path / "empty.sqlite", tmp_path, tmp_path / "out")


def test_the_command_says_what_it_pulled_or_why_not(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = own_photos(tmp_path / "own", PHOTOS)
    arguments = ["--photos", str(photos), "--out", str(tmp_path / "out")]
    assert main(["feedback", str(records), *arguments]) == 0
    assert "3 labelled photos" in capsys.readouterr().out
    assert main(["feedback", str(tmp_path / "nowhere"), *arguments]) == FAULT
    assert capsys.readouterr().err.count("\n") == 1
