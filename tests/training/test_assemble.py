"""training.assemble: trained experts become a folder that the runtime loads, and its networks say the same."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detector.artefact import load
from detector.networks import ConvExpert, build, build_b0, build_conv
from detector.preprocess import View
from tests.conftest import SIZE, Tiny, make_photo
from training import assemble
from training.assemble import InvalidExperts, Trained, agreement, draft, read_experts, rebuild, remake, write
from training.recipe import Recipe

WHOLE = View(kind="whole")
CORNER = View(kind="crop", centre=(0, 0))


def trained(networks: dict[str, Tiny]) -> list[Trained]:
    return [
        Trained("a", "tiny", networks["a"], (WHOLE, CORNER), {"a.st": ""}),
        Trained("b", "tiny", networks["b"], (WHOLE,), {"trunk.st": "trunk", "b.st": ""}),
    ]


def test_a_draft_is_a_sealed_folder_that_shares_its_views(networks: dict[str, Tiny], tmp_path: Path) -> None:
    made = draft(trained(networks), SIZE, tmp_path / "model", fast="b")
    spec = load(tmp_path / "model").spec
    assert made.spec == spec
    assert spec.views == (WHOLE, CORNER)
    assert [(expert.views, expert.grid, expert.weights) for expert in spec.experts] == [
        ((0, 1), 4, ("a.st",)),
        ((0,), 4, ("trunk.st", "b.st")),
    ]
    assert {name: set(fusion.weights) for name, fusion in spec.profiles.items()} == {
        "accurate": {"a", "b"},
        "fast": {"b"},
    }


def test_the_folder_says_what_the_trained_modules_say_and_not_what_others_say(
    networks: dict[str, Tiny], tmp_path: Path
) -> None:
    made = draft(trained(networks), SIZE, tmp_path / "model")
    photos = [make_photo(seed=seed) for seed in range(4)]
    assert max(agreement(made, networks, photos).values()) < 1e-4
    others: dict[str, nn.Module] = {"a": networks["a"], "b": Tiny(7).eval()}
    apart = agreement(made, others, photos)
    assert apart["accurate"] > 1e-3
    assert apart["fast"] < 1e-4  # the profile fast is `a` alone


def test_the_folders_own_weights_rebuild_its_modules(networks: dict[str, Tiny], tmp_path: Path) -> None:
    made = draft(trained(networks), SIZE, tmp_path / "model")
    modules = rebuild(made, make=lambda _: Tiny(0))
    assert max(agreement(made, modules, [make_photo()]).values()) < 1e-4
    with pytest.raises(InvalidExperts, match="a: its weights do not fit the architecture tiny"):
        rebuild(made)


def test_documents_are_replaced_and_the_folder_sealed_again(networks: dict[str, Tiny], tmp_path: Path) -> None:
    before = draft(trained(networks), SIZE, tmp_path / "model")
    after = write(before.folder, "1.0", {"report": {"labels": {"auc": "0.9"}}})
    assert after.manifest.version == "1.0"
    assert after.manifest.hash != before.manifest.hash
    assert after.document("report.json") == {"labels": {"auc": "0.9"}}
    with pytest.raises(ValueError, match="JSON"):
        write(before.folder, "1.1", {"report": {"labels": {}, "auc": float("nan")}})
    assert load(before.folder) == after


def test_a_listing_names_weights_beside_it_and_folds_what_was_trained_unfolded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expert = ConvExpert(build_b0("b0.lite")).eval()
    for module in expert.modules():  # statistics that folding must carry over
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
    save_file(expert.state_dict(), tmp_path / "b0.safetensors")
    (tmp_path / "experts.yaml").write_text(
        "size: 64\nexperts:\n- {name: b0, architecture: b0.lite, state: [b0.safetensors], views: [{kind: whole}]}\n"
    )
    (found,), size = read_experts(tmp_path / "experts.yaml")
    assert (found.name, size, dict(found.parts)) == ("b0", 64, {"b0.safetensors": ""})
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.module.modules())
    views = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(found.module(views), expert(views), atol=1e-4)


def test_a_network_of_timm_becomes_a_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expert = build_conv("timm.resnet10t")
    assert expert
    save_file(expert.state_dict(), tmp_path / "r.safetensors")
    (tmp_path / "experts.yaml").write_text(
        "size: 64\nexperts:\n"
        "- {name: r, architecture: timm.resnet10t, state: [r.safetensors], views: [{kind: whole}]}\n"
    )
    made = draft(*read_experts(tmp_path / "experts.yaml"), tmp_path / "model")
    assert agreement(made, {"r": expert.eval()}, [make_photo()])["fast"] < 1e-3
    assert agreement(made, rebuild(made), [make_photo()])["fast"] < 1e-3


class Twice(nn.Module):
    """A norm that stands behind a convolution, but takes twice what that gives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.running_mean, 0.5)  # type: ignore[arg-type]

    def forward_features(self, views: Tensor) -> Tensor:
        found: Tensor = self.norm(2 * self.conv(views))
        return found


def test_norms_that_can_t_be_folded_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "build_conv", lambda _: ConvExpert(Twice(), 4))
    save_file(ConvExpert(Twice(), 4).state_dict(), tmp_path / "t.safetensors")
    (tmp_path / "experts.yaml").write_text(
        "experts: [{name: t, architecture: twice, state: [t.safetensors], views: [{kind: whole}]}]"
    )
    with pytest.raises(InvalidExperts, match="t: the batch norms of twice can't be folded"):
        read_experts(tmp_path / "experts.yaml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("experts: [", "is not YAML"),
        ("experts: []", "experts: "),
        ("experts: [{name: a, colour: red}]", r"experts\.0\.colour"),
        ("experts: [{name: a, run: x, probe: y}]", "give either run, or probe, or architecture"),
        ("experts: [{name: a, probe: gone.safetensors}]", "holds no head"),
        ("experts: [{name: a, run: x, architecture: b0}]", "give either run, or probe, or architecture"),
        ("experts: [{name: a, run: x}]", "x: holds no training run"),
        (
            "experts: [{name: a, architecture: b0.lite, state: [gone.st], views: [{kind: whole}]}]",
            r"gone\.st: there are no weights",
        ),
        (
            "experts: [{name: a, architecture: none, state: [some.st], views: [{kind: whole}]}]",
            "do not fit the architecture none",
        ),
    ],
)
def test_a_faulty_listing_ends_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "some.st")
    (tmp_path / "experts.yaml").write_text(text)
    with pytest.raises(InvalidExperts, match=complaint) as raised:
        read_experts(tmp_path / "experts.yaml")
    assert "\n" not in str(raised.value)


def test_an_unknown_fast_expert_and_a_map_that_is_none_are_refused(networks: dict[str, Tiny], tmp_path: Path) -> None:
    with pytest.raises(InvalidExperts, match="no expert c to be the profile fast; there are a, b"):
        draft(trained(networks), SIZE, tmp_path / "model", fast="c")
    flat = Trained("a", "tiny", nn.Flatten(), (WHOLE,), {"a.st": ""})
    with pytest.raises(InvalidExperts, match="not a square map"):
        draft([flat], SIZE, tmp_path / "model")


def test_a_folder_of_other_things_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InvalidExperts, match="holds no model"):
        remake(tmp_path)
    assert (tmp_path / "holiday.jpg").exists()
    (tmp_path / "spec.json").write_text(json.dumps({}))
    remake(tmp_path)
    assert not tmp_path.exists()


def test_a_finished_run_tells_the_rest_and_what_it_left_frozen_has_a_file_of_its_own(tmp_path: Path) -> None:
    recipe = Recipe(architecture="clip.b16.1-2", tuned_blocks=1)
    torch.manual_seed(0)
    expert = build(recipe.architecture).eval()
    with torch.no_grad():
        for weight in expert.head.parameters():  # type: ignore[union-attr, operator]
            nn.init.normal_(weight, std=0.02)
    (tmp_path / "meta.json").write_text(json.dumps({"recipe": recipe.model_dump(mode="json")}))
    (tmp_path / "experts.yaml").write_text("experts: [{name: clip, run: .}]")
    with pytest.raises(InvalidExperts, match=r"finished\.safetensors: there are no weights"):
        read_experts(tmp_path / "experts.yaml")
    save_file(expert.state_dict(), tmp_path / "finished.safetensors")
    (found,), _ = read_experts(tmp_path / "experts.yaml")
    assert (found.architecture, found.views) == ("clip.b16.1-2", recipe.views)
    made = draft([found], 224, tmp_path / "model")
    frozen, own = (load_file(tmp_path / "model" / name) for name in made.spec.experts[0].weights)
    assert {name.split(".")[0] for name in frozen} == {"trunk"}
    assert {".".join(name.split(".")[:3]) for name in frozen if "blocks" in name} == {"trunk.blocks.0"}
    assert {".".join(name.split(".")[:3]) for name in own if "blocks" in name} == {"trunk.blocks.1"}
    assert frozen["trunk.blocks.0.mlp.fc1.weight"].dtype == torch.int8
    assert agreement(made, {"clip": expert}, [make_photo()])["fast"] < 1e-3
