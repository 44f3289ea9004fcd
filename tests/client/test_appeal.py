"""A decision is read back and corrected through the SDK, of the real service and of the stand-in."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from detector.client import AsyncClient, Client, MockService
from detector.errors import DecisionNotFound, InvalidOption
from detector.schema import Decision
from tests import serving


@pytest.fixture(scope="module")
def keeping(bento_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("keeping")
    with serving.serving(bento_home, folder / "log", PPD_DECISIONS__PATH=str(folder / "d.sqlite")) as http:
        yield http


@pytest.fixture(params=["service", "mock"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    if request.param == "mock":
        made = Client(transport=MockService(0.97))
    else:
        made = Client(str(request.getfixturevalue("keeping").base_url))
    with made:
        yield made


def test_a_decision_is_read_back_and_corrected(client: Client, jpeg: bytes) -> None:
    verdict = client.predict(jpeg)
    assert verdict.decision_id
    decision = client.decision(verdict.decision_id)
    assert (decision.verdict, decision.caller, decision.correction) == (verdict, None, None)
    corrected = client.feedback(verdict.decision_id, "real", "taken by me & others")
    assert corrected.correction
    assert (corrected.correction.label, corrected.correction.note) == ("real", "taken by me & others")
    assert client.decision(verdict.decision_id) == corrected
    assert "a person says real" in str(corrected)
    assert client.feedback(verdict.decision_id, "ai_generated").correction


@pytest.mark.parametrize("strange", ["0", "ä?x=1", "a b"])
def test_an_id_that_is_none_is_not_found(client: Client, strange: str) -> None:
    with pytest.raises(DecisionNotFound):
        client.decision(strange)


def test_feedback_is_one_of_two_labels(client: Client, jpeg: bytes) -> None:
    with pytest.raises(InvalidOption):
        client.feedback(str(client.predict(jpeg).decision_id), "maybe")  # type: ignore[arg-type]


def test_the_asynchronous_client_does_the_same(keeping: httpx.Client, jpeg: bytes) -> None:
    async def ask() -> tuple[Decision, Decision]:
        async with AsyncClient(str(keeping.base_url)) as twin:
            name = str((await twin.predict(jpeg)).decision_id)
            return await twin.feedback(name, "real"), await twin.decision(name)

    corrected, read = asyncio.run(ask())
    assert corrected == read
