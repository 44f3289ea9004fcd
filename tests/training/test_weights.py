"""training.weights: packages give the networks that the artefact names, with the values that were published."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from detector.networks import Clip, ClipExpert, ConvExpert, build, fold_batch_norm, quantise_linears
from training.export import save_network
from training.recipe import Recipe
from training.train import start
from training.weights import load_b0, load_clip, load_conv, load_finished_conv

VIEWS = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_squeeze_excite_begins_as_nothing() -> None:
    plain, gated = (ConvExpert(load_b0(name)).eval() for name in ("b0.lite", "b0"))
    torch.testing.assert_close(gated.features(VIEWS), plain.features(VIEWS), atol=1e-4, rtol=0)
    assert plain.features(VIEWS).std() > 0.1


def test_squeeze_excite_takes_gradients_from_the_first_step() -> None:
    torch.manual_seed(0)  # what squeezes is drawn, and now and then so that its ReLU never opens on these views
    expert = ConvExpert(load_b0("b0")).eval()
    expert(VIEWS).mean().backward()
    gates = [weight.grad for name, weight in expert.named_parameters() if "conv_expand.weight" in name]
    assert len(gates) == 16
    assert all(gate is not None and gate.abs().max() > 0 for gate in gates)


@pytest.mark.parametrize("name", ["b0", "b0.lite"])
@torch.inference_mode()
def test_folding_batch_norm_changes_nothing_and_fits_what_the_artefact_builds(name: str) -> None:
    expert = ConvExpert(load_b0(name)).eval()
    before = expert(VIEWS)
    folded = fold_batch_norm(expert)
    torch.testing.assert_close(folded(VIEWS), before, atol=1e-4, rtol=0)
    built = build(name).eval()
    built.load_state_dict(folded.state_dict())
    torch.testing.assert_close(built(VIEWS), before, atol=1e-4, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t", "regnetx_002"])
def test_a_network_of_timm_begins_with_given_weights_and_folds_to_what_the_artefact_builds(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole = timm.create_model(name)  # with its classifier, as checkpoints come
    for norm in whole.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    expert = load_conv(f"timm.{name}", str(tmp_path / "whole.safetensors"), 64).eval()
    mean, std = (torch.tensor(whole.pretrained_cfg[part]).reshape(3, 1, 1) for part in ("mean", "std"))
    seen = whole.eval().forward_features((VIEWS / 255 - mean) / std)
    torch.testing.assert_close(expert.features(VIEWS), seen, atol=1e-4, rtol=1e-3)
    before = expert(VIEWS)
    built = build(f"timm.{name}").eval()
    built.load_state_dict(fold_batch_norm(expert).state_dict())
    torch.testing.assert_close(built(VIEWS), before, atol=1e-4, rtol=1e-3)


def test_what_timm_has_not_and_what_has_no_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model called resnet9000"):
        load_conv("timm.resnet9000")
    for transformer in ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"):
        with pytest.raises(ValueError, match=f"{transformer} has no map of features"):
            load_conv(f"timm.{transformer}")
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    save_file({"other": torch.zeros(3)}, tmp_path / "another.safetensors")
    for file in ("other", "another"):
        with pytest.raises(ValueError, match=r"not those of timm\.resnet10t"):
            load_conv("timm.resnet10t", str(tmp_path / f"{file}.safetensors"))


@pytest.mark.parametrize("address", ["timm.hf-hub:someone/model", "timm.local-dir:/tmp/model", "timm."])
def test_no_address_is_an_architecture(address: str) -> None:
    """timm would fetch what such a name points to, and a model folder may come from anyone."""
    with pytest.raises(ValueError, match="no architecture is called"):
        build(address)


@torch.inference_mode()
def test_a_finished_expert_is_unfolded_to_what_it_computes(tmp_path: Path) -> None:
    shipped = fold_batch_norm(ConvExpert(load_b0("b0"))).eval()
    for weight in shipped.parameters():
        weight.add_(0.02 * weight.abs().mean() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        weight.copy_(weight.half())  # as the artefact keeps it
    save_network(shipped, 64, tmp_path, "b0.xml", {"b0.safetensors": ""})
    unfolded = load_finished_conv("b0", tmp_path / "b0.safetensors").eval()
    torch.testing.assert_close(unfolded(VIEWS), shipped(VIEWS), atol=1e-3, rtol=1e-3)
    assert any(isinstance(module, nn.BatchNorm2d) for module in unfolded.modules())
    torch.testing.assert_close(fold_batch_norm(unfolded)(VIEWS), shipped(VIEWS), atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_what_a_run_left_is_trained_further_as_it_is(tmp_path: Path) -> None:
    trained = ConvExpert(load_b0("b0")).eval()
    trained.head.weight.fill_(0.01)
    save_file(trained.state_dict(), tmp_path / "finished.safetensors")
    again = load_finished_conv("b0", tmp_path / "finished.safetensors")
    for name, weight in trained.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, atol=0, rtol=0)


def test_weights_of_another_network_are_not_trained_further(tmp_path: Path) -> None:
    save_file(build("clip.b16.1").state_dict(), tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match="not the weights of a finished b0"):
        load_finished_conv("b0", tmp_path / "clip.safetensors")
    save_file(fold_batch_norm(ConvExpert(load_b0("b0"))).state_dict(), tmp_path / "b0.safetensors")
    with pytest.raises(ValueError, match=r"not the weights of a finished b0\.lite"):
        load_finished_conv("b0.lite", tmp_path / "b0.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors in here")
    with pytest.raises(ValueError, match="is no safetensors file"):
        load_finished_conv("b0", tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match="there is no such file"):
        load_finished_conv("b0", tmp_path / "absent.safetensors")


def test_a_trunk_is_not_trained_further() -> None:
    with pytest.raises(ValueError, match="only a convolutional expert"):
        start(Recipe(architecture="clip.b16.1"), Path("clip.safetensors"))


@torch.inference_mode()
def test_a_trunk_to_be_tuned_computes_what_int8_does_and_goes_back_to_it_without_loss() -> None:
    views = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kept, tuned = load_clip(Clip((1, 2))), load_clip(Clip((1, 2)), tuned=1)
    assert isinstance(kept, ClipExpert)
    torch.testing.assert_close(tuned.tokens(views), kept.tokens(views), atol=1e-4, rtol=1e-4)
    quantise_linears(tuned.trunk)
    torch.testing.assert_close(tuned.tokens(views), kept.tokens(views), atol=1e-4, rtol=1e-4)
    for name, weight in kept.trunk.state_dict().items():
        torch.testing.assert_close(tuned.trunk.state_dict()[name], weight, atol=0, rtol=1e-6)


def test_only_the_tuned_blocks_take_gradients() -> None:
    tuned = load_clip(Clip((1, 2)), tuned=1)
    frozen, free = tuned.trunk.blocks  # type: ignore[misc]
    assert not any(weight.requires_grad for weight in frozen.parameters())
    assert all(weight.requires_grad for weight in free.parameters())


@torch.inference_mode()
def test_a_trunk_of_another_side_is_what_the_artefact_builds_and_shrinks_larger_views() -> None:
    clip = Clip((1, 2), 64)
    expert, built = load_clip(clip).eval(), build(str(clip)).eval()
    built.load_state_dict(expert.state_dict())
    assert expert(VIEWS).shape == (2, 4, 4)
    torch.testing.assert_close(built.get_submodule("trunk").pos_embed, expert.trunk.pos_embed)
    flat = torch.full((1, 3, 128, 128), 90, dtype=torch.uint8)
    torch.testing.assert_close(expert.tokens(flat), expert.tokens(flat[..., :64, :64]))


@pytest.mark.parametrize("name", ["clip.b16.6-8-10", "clip.b16.10@288"])
def test_a_clip_s_name_says_all_of_it(name: str) -> None:
    assert str(Clip.parse(name)) == name


@pytest.mark.parametrize("name", ["b0", "clip.b16.", "clip.b16.6@", "clip.b16.6-8@12px"])
def test_other_names_are_no_clip_s(name: str) -> None:
    assert Clip.parse(name) is None
