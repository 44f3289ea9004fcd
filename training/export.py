"""A trained network -> the model folder's files: OpenVINO IR and the safetensors that hold its constants.

Weights are stored once. The IR's constants point into the safetensors files, so that the OpenVINO and the torch
backend read the same bytes, and a retrained head does not write its frozen trunk again.
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import openvino
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    Tree = ElementTree.ElementTree[ElementTree.Element]

from detector.runtime import ALIGNMENT, read_constants

LOOSE = "openvino.constants"  # constants that are no weight of the module: shapes, scalars


def save_network(module: nn.Module, size: int, folder: Path, network: str, parts: Mapping[str, str]) -> None:
    """Write `network` (an IR) and its weight files into `folder`, floats as fp16 where OpenVINO takes them so.

    module: (n, 3, size, size) uint8 -> (n, grid, grid) float32, in evaluation mode. parts: file name -> regular
    expression of how the names of the state that goes into it begin; the first that fits takes a tensor, and the last
    file also takes the constants that are no weights.
    """
    tree, constants = _as_ir(module, size)
    used = {constants[place] for place in _places(tree)}
    state = {name: _stored(tensor, used) for name, tensor in module.state_dict().items()}
    weights = {tensor.numpy().tobytes() for tensor in state.values()}
    loose = {constants[place]: None for place in _places(tree) if constants[place] not in weights}
    groups: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    for name, tensor in state.items():
        groups[next(part for part, names in parts.items() if re.match(names, name))][name] = tensor
    if loose:
        padded = b"".join(blob + bytes(-len(blob) % ALIGNMENT) for blob in loose)
        groups[list(parts)[-1]][LOOSE] = torch.frombuffer(bytearray(padded), dtype=torch.uint8)
    for part, tensors in groups.items():
        save_file(tensors, folder / part)
    _repoint(tree, constants, _offsets(folder, list(parts), list(loose)))
    tree.write(folder / network)


def _stored(tensor: Tensor, used: Set[bytes]) -> Tensor:
    """As the IR holds it, so that it lies on disk once: OpenVINO leaves floats beside int8 weights in float32."""
    plain = tensor.contiguous().cpu()
    return plain.half() if plain.is_floating_point() and plain.numpy().tobytes() not in used else plain


def convert(module: nn.Module, size: int) -> openvino.Model:
    """A module of (n, 3, size, size) uint8 as OpenVINO's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and OpenVINO deprecate each other's tracing
        example = torch.zeros(2, 3, size, size, dtype=torch.uint8)
        return openvino.convert_model(module, input=[([-1, 3, size, size])], example_input=example)


def _as_ir(module: nn.Module, size: int) -> tuple[Tree, bytes]:
    """The module as an IR with fp16 constants: its topology and its constants."""
    with tempfile.TemporaryDirectory() as scratch:
        ir = Path(scratch) / "network.xml"
        openvino.save_model(convert(module, size), ir, compress_to_fp16=True)
        return ElementTree.parse(ir), ir.with_suffix(".bin").read_bytes()


def _constants(tree: Tree) -> Iterator[ElementTree.Element]:
    return (data for layer in tree.iter("layer") if layer.get("type") == "Const" for data in layer.iter("data"))


def _places(tree: Tree) -> Iterator[slice]:
    for data in _constants(tree):
        start = int(data.attrib["offset"])
        yield slice(start, start + int(data.attrib["size"]))


def _offsets(folder: Path, parts: list[str], loose: list[bytes]) -> dict[bytes, int]:
    """Where every constant lies in the parts laid end to end."""
    whole = read_constants(folder, parts).tobytes()
    offsets, start = {}, 0
    for part in parts:
        length = (folder / part).stat().st_size
        data = start + 8 + int.from_bytes(whole[start : start + 8], "little")
        header = json.loads(whole[start + 8 : data])
        for name, entry in header.items():
            if name == LOOSE:
                at = data + entry["data_offsets"][0]
                for blob in loose:
                    offsets[blob] = at
                    at += len(blob) + (-len(blob) % ALIGNMENT)
            elif name != "__metadata__":
                first, end = (data + offset for offset in entry["data_offsets"])
                offsets[whole[first:end]] = first
        start += length + (-length % ALIGNMENT)
    return offsets


def _repoint(tree: Tree, constants: bytes, offsets: Mapping[bytes, int]) -> None:
    for data, place in zip(_constants(tree), _places(tree), strict=True):
        data.set("offset", str(offsets[constants[place]]))
