"""Rows of several requests survive being one batch."""

import numpy as np

from detector import rows


def test_a_batch_keeps_every_request_s_id_and_views() -> None:
    first, second = (np.full((n, 2, 3, 4, 4), n, np.uint8) for n in (1, 2))
    batch = np.concatenate([rows.ask(first, "a-1"), rows.ask(second, "b.2")])
    assert rows.requests_of(batch) == ["a-1", "b.2"]
    assert (rows.views_of(batch) == np.concatenate([first, second])).all()


def test_the_longest_id_fits_whole() -> None:
    name = "x" * rows.ID_LENGTH
    assert rows.requests_of(rows.ask(np.zeros((1, 1, 3, 2, 2), np.uint8), name)) == [name]


def test_a_part_of_a_batch_knows_the_whole_batch() -> None:
    evidence = np.arange(12, dtype=np.float32).reshape(3, 4)
    part = np.split(rows.answer(evidence, 0.5), [2])[0]
    scored = rows.read(part)
    assert (scored.evidence == evidence[:2]).all()
    assert (scored.network, scored.batch) == (0.5, 3)
