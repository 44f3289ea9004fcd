"""Every error has one stable code, and the tree in the docstring is the tree in the code."""

import re

from detector import errors


def test_codes_are_unique_and_match_the_tree_in_the_docstring() -> None:
    drawn = dict(re.findall(r"─ (\w+) +(\d{3} \w+)", errors.__doc__ or ""))
    served = {kind.__name__: f"{kind.status} {kind.code}" for kind in errors.by_code().values()}
    start_up = {"InvalidScan", "InvalidSettings", "InvalidArtefact"}
    assert {name: code for name, code in served.items() if name not in start_up} == drawn


def test_an_error_without_detail_says_its_title() -> None:
    assert str(errors.TooSmall()) == "The photo is too small to judge."
