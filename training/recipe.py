"""Everything that decides a training run, from YAML. Runs nothing."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detector.preprocess import View


class Recipe(BaseModel):
    """Everything that decides a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = "b0"  # see detector.networks.build
    pretrained: str = Field("", description="of a timm architecture: safetensors under timm's names, or `hub`")
    tuned_blocks: int = Field(3, ge=0, description="of a CLIP trunk: its last ones; the others stay as they are")
    views: tuple[View, ...] = (View(kind="whole"),)  # as judged and shipped
    size: int = 224
    photos: int = Field(16, ge=2, description="a step; each is shown twice, as it is and degraded")
    steps: int = Field(1500, ge=1)
    warmup: int = 100
    learning_rate: float = 5e-4
    head_learning_rate: float = 2e-3
    weight_decay: float = 0.05
    clip: float = 1.0  # gradient norm
    average: float = 0.995  # of the exponential moving average of the weights
    consistency: float = 0.5  # weight of agreement between the two showings of a photo
    imitation: float = 0.0  # weight of seeing what CLIP's trunk sees, where lessons are given
    teacher: float = 0.5  # weight of the teacher's probability against the label's
    smoothing: float = 0.02
    crops: float = 0.6  # share of showings (of steps, where lessons are given) that are crops and not whole photos
    mixup: float = 0.0  # share of steps
    cutmix: float = 0.0  # share of steps
    degradation: dict[str, float] = {}  # over the defaults of `augment.Degradation`
    bfloat16: bool = True
    threads: int = 2
    seed: int = 0
    save_every: int = 100
    judge_every: int = 250
    patience: int = Field(4, ge=1, description="judgements without a better worst tier that end the run")

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """A recipe from YAML; ValueError that names what is not one of its settings."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
