"""Parts of a run judged on this machine: the engine's rows gathered by part, each part written when it is whole.

Called by a local scan for all parts, and by a fleet's worker for one at a time.
"""

from collections.abc import Callable, Iterable, Iterator

from detector.scan import results, run
from detector.scan.engine import Engine
from detector.scan.listing import Item, Listing
from detector.scan.results import Format, Row
from detector.scan.storage import Store


def judge_parts(
    engine: Engine,
    store: Store,
    listing: Listing,
    parts: Iterable[int],
    part_size: int,
    format: Format,
    tell: Callable[[Row], None] = lambda _: None,
) -> Iterator[int]:
    """Write each part and say its number; photos of the next part are under way before one is whole."""
    open_parts: dict[int, list[Row]] = {}
    sizes: dict[int, int] = {}

    def items() -> Iterator[Item]:
        for part in parts:
            found = listing.part(part)
            open_parts[part], sizes[part] = [], len(found)
            yield from found

    for row in engine.rows(items()):
        part = row["index"] // part_size
        open_parts[part].append(row)
        tell(row)
        if len(open_parts[part]) == sizes[part]:
            whole = sorted(open_parts.pop(part), key=lambda row: row["index"])
            store.write(run.part_name(part, format), results.encode(whole, format))
            yield part
