"""detector.photos: kept whole, by hash, for a time; a folder that is gone costs nothing but the photos."""

import asyncio
import logging
import os
import shutil
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from detector import metrics
from detector.errors import InvalidSettings
from detector.photos import Photos, prepare

DAY = 86_400.0
NOW = 1_800_000_000.0
PHOTO = b"a photo"
SHA = sha256(PHOTO).hexdigest()


def keeping(folder: Path, work: Callable[[Photos], None], **options: Any) -> None:
    photos = Photos(folder, 30 * DAY, **{"clock": lambda: NOW} | options)
    try:
        work(photos)
    finally:
        asyncio.run(photos.close())


def lost() -> float:
    return metrics.PHOTOS.labels("lost")._value.get()  # type: ignore[no-any-return]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_photo_is_kept_under_its_hash_for_its_user_alone(tmp_path: Path) -> None:
    keeping(tmp_path, lambda photos: photos.keep(SHA, "JPEG", PHOTO))
    assert files(tmp_path) == [f"{SHA[:2]}/{SHA}.jpg"]
    kept = tmp_path / SHA[:2] / f"{SHA}.jpg"
    assert kept.read_bytes() == PHOTO
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_photo_goes_when_its_time_is_up_unless_it_was_judged_again(tmp_path: Path) -> None:
    other = sha256(b"other").hexdigest()
    early = {"clock": lambda: NOW - 31 * DAY}
    keeping(tmp_path, lambda photos: [photos.keep(SHA, "PNG", PHOTO), photos.keep(other, "PNG", b"other")], **early)  # type: ignore[func-returns-value, arg-type, return-value]
    keeping(tmp_path, lambda photos: photos.keep(SHA, "PNG", PHOTO), clock=lambda: NOW - 2 * DAY, sweep=1e6)
    keeping(tmp_path, lambda photos: None)
    assert files(tmp_path) == [f"{SHA[:2]}/{SHA}.png"]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    for name in ("mine.jpg", "ab/mine.jpg", f"ab/{SHA}.txt"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (0, 0))
    keeping(tmp_path, lambda photos: None)
    assert len(files(tmp_path)) == 3


def test_a_folder_that_is_gone_is_told_once_and_costs_the_photos(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, before = tmp_path / "photos", lost()
    prepare(folder)
    shutil.rmtree(folder)
    with caplog.at_level(logging.WARNING):
        keeping(folder, lambda photos: [photos.keep(SHA, "WEBP", PHOTO) for _ in range(3)])  # type: ignore[func-returns-value, arg-type, return-value]
    assert lost() == before + 3
    assert len(caplog.records) == 1


def test_what_waits_is_bounded_in_bytes(tmp_path: Path) -> None:
    before = lost()
    keeping(tmp_path, lambda photos: photos.keep(SHA, "JPEG", PHOTO), waiting=len(PHOTO) - 1)
    assert lost() == before + 1
    assert files(tmp_path) == []


def test_a_place_where_no_folder_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidSettings, match=r"decisions\.photos"):
        prepare(tmp_path / "file")
