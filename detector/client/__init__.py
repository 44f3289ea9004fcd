"""Python SDK: `Client` and `AsyncClient` give the service's own types and raise the service's own errors.

Needs httpx and pydantic alone. `MockService` stands in for the service in a caller's own tests.
"""

from detector.client.asynchronous import AsyncClient
from detector.client.connection import DEFAULT_ADDRESS
from detector.client.mock import MockService
from detector.client.retry import Retry
from detector.client.sources import Source
from detector.client.synchronous import Client

__all__ = ["DEFAULT_ADDRESS", "AsyncClient", "Client", "MockService", "Retry", "Source"]
