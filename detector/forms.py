"""Multipart forms -> uploads and options, or a refusal that names the field.

Reads no photo: that is `image`'s. A text value is never a photo, and never an address to fetch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar, get_args

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from detector.errors import (
    InvalidOption,
    InvalidRequest,
    MalformedRequest,
    MissingField,
    NotAFile,
    TooManyImages,
    UnsupportedBody,
)
from detector.pipeline import Style
from detector.schema import Colormap, Feedback, OverlayFormat

_MOST_FIELDS = 1000  # parts of one form; the body's size is bounded before, in `asgi`
T = TypeVar("T")
_Form = list[tuple[str, UploadFile | str]]


@dataclass(frozen=True)
class Upload:
    """One file part: its bytes, and the name the caller gave it (unchecked: see `image.safe_name`)."""

    name: str | None
    data: bytes


class _Parser(MultiPartParser):
    """Knows whether the closing boundary came: without it the last part would be lost in silence."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def read_photo(request: Request) -> Upload:
    """The one photo of /predict, in field `image`."""
    form = await _read(request, {"image"})
    return await _one(form)


async def read_photos(request: Request, most: int) -> list[Upload | NotAFile]:
    """The photos of /predict/batch, in field `images`, in their order; a text value is that item's error."""
    values = [value for _, value in await _read(request, {"images"})]
    if not values:
        raise MissingField("The form field `images` is missing; attach each photo as a file in a field of this name.")
    if len(values) > most:
        raise TooManyImages(f"The request holds {len(values)} photos; at most {most} are allowed.")
    return [await _upload(value) if isinstance(value, UploadFile) else _not_a_file("images") for value in values]


async def read_explain(request: Request, default: Style) -> tuple[Upload, Style]:
    """The photo of /explain and how to draw it."""
    form = await _read(request, {"image", "alpha", "colormap", "format"})
    style = default
    for name, value in form:
        if name != "image":
            style = _with_option(style, name, value)
    return await _one([(name, value) for name, value in form if name == "image"]), style


async def read_feedback(request: Request) -> Feedback:
    """The JSON of /feedback."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedBody("Send the feedback as application/json.")
    try:
        return Feedback.model_validate_json(await request.body())
    except ValidationError as error:
        raise _wrong_feedback(error) from None
    except ClientDisconnect:
        raise MalformedRequest("The request body ended early.") from None


def _wrong_feedback(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return MalformedRequest("The request body is not valid JSON.")
    if first["type"] == "missing":
        return MissingField(f"The field `{first['loc'][0]}` is missing; feedback needs `decision_id` and `label`.")
    return InvalidOption(
        "Feedback is `decision_id`, `label` (`real` or `ai_generated`) and, if you like, `note` (1000 characters)."
    )


async def _read(request: Request, allowed: set[str]) -> _Form:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UnsupportedBody("Send the request as multipart/form-data.")
    parser = _Parser(request.headers, request.stream(), max_files=_MOST_FIELDS, max_fields=_MOST_FIELDS)
    try:
        form = (await parser.parse()).multi_items()
    except ClientDisconnect:
        raise MalformedRequest("The request body ended early.") from None
    except (MultiPartException, KeyError, ValueError):
        raise MalformedRequest("The multipart body can't be read; check its boundary and part headers.") from None
    if not parser.ended:
        raise MalformedRequest("The multipart body has no closing boundary; was it cut short?")
    unknown = next((name for name, _ in form if name not in allowed), None)
    if unknown is not None:
        raise InvalidOption(f"There is a form field this route does not know; it takes {_listed(sorted(allowed))}.")
    return form


async def _one(form: _Form) -> Upload:
    if not form:
        raise MissingField("The form field `image` is missing; attach the photo as a file.")
    if len(form) > 1:
        raise InvalidOption("The form field `image` is there more than once; /predict/batch takes several photos.")
    value = form[0][1]
    if not isinstance(value, UploadFile):
        raise _not_a_file("image")
    return await _upload(value)


async def _upload(value: UploadFile) -> Upload:
    return Upload(value.filename, await value.read())


def _not_a_file(field: str) -> NotAFile:
    return NotAFile(f"The form field `{field}` holds text; attach the photo as a file. Addresses are not fetched.")


def _with_option(style: Style, name: str, value: UploadFile | str) -> Style:
    if name == "alpha":
        return replace(style, alpha=_alpha(value))
    if name == "colormap":
        return replace(style, colormap=_choice(value, name, get_args(Colormap)))
    return replace(style, format=_choice(value, name, get_args(OverlayFormat)))


def _alpha(value: UploadFile | str) -> float:
    try:
        alpha = float(value) if isinstance(value, str) else -1.0
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise InvalidOption("`alpha` must be a number from 0 to 1.")
    return alpha


def _choice(value: UploadFile | str, name: str, choices: tuple[T, ...]) -> T:
    for choice in choices:
        if value == choice:
            return choice
    raise InvalidOption(f"`{name}` must be one of {_listed(map(str, choices))}.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
