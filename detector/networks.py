"""The experts as torch modules: uint8 views in, an evidence map whose mean is the logit out.

Architecture only: weights come from an artefact (`runtime`) or from pretraining (`training.weights`). Needs timm.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

import timm
import torch
from torch import Tensor, nn

L = TypeVar("L", bound=nn.Module)
B0 = {"b0": "tf_efficientnet_b0", "b0.lite": "tf_efficientnet_lite0"}  # by timm's names
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LITE_MEAN, LITE_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
PATCH, NATIVE = 16, 224  # pixels: a side of what CLIP takes as one token, and of the photos it was trained on


@dataclass(frozen=True)
class Clip:
    """Which CLIP expert: the blocks it is read after, and the side of what its trunk looks at, in pixels."""

    taps: tuple[int, ...]
    side: int = NATIVE

    @classmethod
    def parse(cls, architecture: str) -> Self | None:
        """From `clip.b16.<tap>-<tap>...[@<side>]`; None for the name of something else."""
        found = re.fullmatch(r"clip\.b16\.(\d+(?:-\d+)*)(?:@(\d+))?", architecture)
        return cls(tuple(map(int, found[1].split("-"))), int(found[2] or NATIVE)) if found else None

    def __str__(self) -> str:
        return f"clip.b16.{'-'.join(map(str, self.taps))}" + (f"@{self.side}" if self.side != NATIVE else "")

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.side // PATCH


def build(architecture: str) -> nn.Module:
    """A module by the name an artefact's spec gives it; ValueError where there is none of that name.

    `b0`: EfficientNet-B0 with ReLU6, batch statistics folded away; `b0.lite`: without squeeze-excite;
    `timm.resnet18`: a convolutional network of timm, likewise.
    `clip.b16.6-8-9`: CLIP ViT-B/16 cut after block 9, read after blocks 6, 8 and 9, linear layers as int8;
    `clip.b16.6-8-9@288`: the same, its trunk looking at 288 pixels a side and not at 224.
    """
    conv = build_conv(architecture)
    if conv:
        return fold_batch_norm(conv)
    clip = Clip.parse(architecture)
    if clip:
        expert = ClipExpert(build_clip(clip.side), clip)
        quantise_linears(expert.trunk)
        return expert
    raise ValueError(f"no architecture is called {architecture}")


def build_conv(architecture: str) -> "ConvExpert | None":
    """A convolutional expert, batch norms not folded; None for another family, ValueError for what timm has not."""
    if architecture in B0:
        return ConvExpert(build_b0(architecture))
    found = re.fullmatch(r"timm\.(\w+)", architecture)  # no address: timm would fetch what it names
    if found is None:
        return None
    if not timm.is_model(found[1]):
        raise ValueError(f"timm has no model called {found[1]}")
    trunk = timm.create_model(found[1], num_classes=0)
    settings = trunk.pretrained_cfg
    return ConvExpert(trunk, trunk.num_features, settings["mean"], settings["std"])


def build_b0(architecture: str) -> nn.Module:
    """EfficientNet-B0 (Tan & Le 2019) with ReLU6, so that it can hold Lite0's weights exactly."""
    model: nn.Module = timm.create_model(B0[architecture], num_classes=0, act_layer=nn.ReLU6)
    return model


def build_clip(side: int = NATIVE) -> nn.Module:
    """CLIP's ViT-B/16 image tower (Radford et al. 2021), without its projection; `side` in pixels."""
    model: nn.Module = timm.create_model("vit_base_patch16_clip_quickgelu_224", num_classes=0, img_size=side)
    return model


class Normalise(nn.Module):
    """(n, 3, s, s) uint8 -> float32 in the scale a trunk was trained on."""

    def __init__(self, mean: Iterable[float], std: Iterable[float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(tuple(mean)).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(tuple(std)).reshape(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, views: Tensor) -> Tensor:
        return (views.float() - self.mean) / self.std


class ConvExpert(nn.Module):
    """A convolutional trunk with a linear head at every place of its last feature map."""

    def __init__(
        self,
        trunk: nn.Module,
        channels: int = 1280,
        mean: Iterable[float] = LITE_MEAN,
        std: Iterable[float] = LITE_STD,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.trunk = trunk
        self.head = nn.Conv2d(channels, 1, 1)

    def features(self, views: Tensor) -> Tensor:
        """(n, channels, grid, grid)"""
        found: Tensor = self.trunk.forward_features(self.normalise(views))  # type: ignore[operator]
        return found

    def forward(self, views: Tensor) -> Tensor:
        evidence: Tensor = self.head(self.features(views))[:, 0]
        return evidence


class ClipExpert(nn.Module):
    """A CLIP trunk read after some of its blocks: a linear head on the class token and on the mean patch token.

    The patch part is linear, so it is applied to every patch before the mean; the class token speaks for no
    place and is spread over all. Views larger than the trunk's side are shrunk to it, by whole pixels averaged.
    """

    def __init__(self, trunk: nn.Module, clip: Clip) -> None:
        super().__init__()
        self.normalise = Normalise(CLIP_MEAN, CLIP_STD)
        self.trunk = trunk
        self.clip = clip
        taps = clip.taps
        trunk.blocks = nn.Sequential(*list(trunk.blocks)[: max(taps)])  # type: ignore[arg-type]
        trunk.norm = nn.Identity()
        self.head = nn.ModuleDict(
            {"patch": nn.Linear(768 * len(taps), 1), "token": nn.Linear(768 * len(taps), 1, bias=False)}
        )

    def tokens(self, views: Tensor) -> Tensor:
        """The residual stream after each tap: (n, 1 + grid * grid, 768 * taps), the class token first."""
        trunk, pixels = self.trunk, self.normalise(views)
        if pixels.shape[-1] != self.clip.side:
            pixels = nn.functional.avg_pool2d(pixels, pixels.shape[-1] // self.clip.side)
        stream = trunk.patch_embed(pixels)  # type: ignore[operator]
        stream = trunk.norm_pre(trunk._pos_embed(stream))  # type: ignore[operator]
        seen = []
        for number, block in enumerate(trunk.blocks, start=1):  # type: ignore[arg-type]
            stream = block(stream)
            if number in self.clip.taps:
                seen.append(stream)
        return torch.cat(seen, dim=2)

    def forward(self, views: Tensor) -> Tensor:
        tokens = self.tokens(views)
        evidence: Tensor = self.head["patch"](tokens[:, 1:])[..., 0] + self.head["token"](tokens[:, 0])
        return evidence.reshape(-1, self.clip.grid, self.clip.grid)


class QuantisedLinear(nn.Module):
    """A linear layer kept as int8 with one scale per output; computed in float."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(outputs, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight: Tensor
        self.scale: Tensor

    @classmethod
    def of(cls, layer: nn.Linear) -> "QuantisedLinear":
        """The nearest to a float layer: symmetric, the largest weight of each output at 127."""
        made = cls(layer.in_features, layer.out_features)
        made.scale = (layer.weight.detach().abs().amax(1, keepdim=True) / 127).clamp_min(1e-12)
        made.weight = (layer.weight.detach() / made.scale).round().to(torch.int8)
        made.bias = nn.Parameter(layer.bias.detach().clone())
        return made

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs, self.weight.float() * self.scale, self.bias)


def quantise_linears(module: nn.Module) -> None:
    """Replace every linear layer of `module` by the QuantisedLinear nearest to it."""
    _replace(module, nn.Linear, QuantisedLinear.of)


def restore_linears(module: nn.Module) -> None:
    """Replace every QuantisedLinear of `module` by the float layer it stands for."""

    def make(layer: QuantisedLinear) -> nn.Linear:
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
        linear.weight = nn.Parameter(layer.weight.float() * layer.scale)
        linear.bias = nn.Parameter(layer.bias.detach().clone())
        return linear

    _replace(module, QuantisedLinear, make)


def fold_batch_norm(expert: nn.Module) -> nn.Module:
    """Fold every BatchNorm into the convolution before it, so that the state holds just what is computed with."""
    for parent, name, conv, norm in list(batch_norms(expert)):
        gain, shift = affine(norm)
        conv.weight = nn.Parameter(conv.weight * gain.reshape(-1, 1, 1, 1))
        conv.bias = nn.Parameter(shift if conv.bias is None else shift + gain * conv.bias)
        setattr(parent, name, getattr(norm, "act", nn.Identity()))
    return expert


def batch_norms(expert: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Conv2d, nn.BatchNorm2d]]:
    """Every BatchNorm: the module it is part of, its name there, the convolution before it, itself.

    timm names the pairs conv_x/bn_y in order of use; its norm layer also holds the activation.
    """
    for parent in expert.modules():
        conv: nn.Conv2d | None = None
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d) and conv is not None:
                yield parent, name, conv, child
            conv = child if isinstance(child, nn.Conv2d) else None


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a BatchNorm with settled statistics computes: gain * input + shift, a number a channel each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return gain, norm.bias - norm.running_mean * gain


def _replace(module: nn.Module, kind: type[L], make: Callable[[L], nn.Module]) -> None:
    for name, child in module.named_children():
        if isinstance(child, kind):
            setattr(module, name, make(child))
        else:
            _replace(child, kind, make)
