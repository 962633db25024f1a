"""Everything that defines a run, free of torch: data, model, training, optimiser, schedule."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from wenlu.base.config import at_least, from_dict, read_toml
from wenlu.base.errors import UserError
from wenlu.data.config import PrepareConfig
from wenlu.data.rows.config import RowsConfig, located
from wenlu.models.config import ModelConfig


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights move."""

    name: Literal["muon", "adamw", "adam", "sgd"] = "muon"
    """muon (hidden matrices; AdamW for embeddings, head and vectors), adamw, adam, or sgd: w - lr * gradient."""
    lr: float = 0.0
    """Peak learning rate of adamw, adam or sgd; with muon, that of its AdamW part. 0 = by the rule: 0.01 beside muon
    (bert: 0.003), 0.003 for adamw and adam (while tuning: by family and width, at most 0.002), 1 for sgd."""
    muon_lr: float = 0.0
    """Peak learning rate of Muon's matrices; 0 = by the rule: 0.02 (t5: 0.005)."""
    weight_decay: float = 0.0
    """For matrices only; decoupled from the gradient, but for adam."""
    beta1: float = 0.9
    beta2: float = 0.95
    momentum: float = 0.95
    """Of Muon."""
    clip: float = 1.0
    """Largest gradient norm; 0 = no clipping."""

    def __post_init__(self):
        at_least("optimizer", self, 0, "lr", "muon_lr", "weight_decay", "clip")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optimizer.{name} must lie in [0, 1), not {getattr(self, name)}")

    def rate(self, family: str) -> float:
        """`lr`, or what the rule says for a family of models.

        A bert at 0.01 learned which tokens are frequent and no more, where at 0.003 it began to look at neighbours
        (450 steps of tinyshakespeare's characters: 3.05 and 2.32 nats, 4 layers of 96; the batch was 128 x 16 there
        and 64 x 32 here, so the rate is not all of it).
        """
        beside_muon = 0.003 if family == "bert" else 0.01
        return self.lr or {"muon": beside_muon, "adamw": 0.003, "adam": 0.003, "sgd": 1.0}[self.name]

    def muon_rate(self, family: str) -> float:
        """`muon_lr`, or what the rule says for a family of models.

        T5's attention does not divide its products by √head_dim, so that what moves its queries moves them farther.
        Held-out nats of a target's token at 0.02, 0.01, 0.005 and 0.0025: 3.35, 3.00, 2.76, 2.73 after 200 steps of
        64 pairs (Multi30k, German to English, 2 + 2 layers of 192), none, 2.51, 1.88, 1.89 after 600.
        """
        return self.muon_lr or (0.005 if family == "t5" else 0.02)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate goes over the run, as a factor of its peak."""

    name: Literal["wsd", "cosine", "constant"] = "wsd"
    """wsd (warm-up, stable, linear decay), cosine, or constant; each after a linear warm-up."""
    warmup: float = 0.02
    """Part of the steps spent warming up."""
    decay: float = 0.6
    """Part of the steps in which wsd falls."""
    floor: float = 0.0
    """Where the decay ends, as a factor of the peak."""

    def __post_init__(self):
        for name in ("warmup", "decay", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"schedule.{name} must lie in [0, 1], not {getattr(self, name)}")


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how much at once, what is watched and kept."""

    steps: int = 1000
    """Updates of the weights."""
    minutes: float = 0.0
    """Length of the run in time, everything from its first second on counted: model, batch, learning rates and steps
    are then planned for this machine and this text, but for what the recipe states otherwise than the defaults.
    0 = as many steps as stated, and nothing is measured."""
    batch: int = 16
    """Sequences in one update."""
    micro_batch: int = 0
    """Sequences computed at once, the gradients of a batch being accumulated; 0 = the whole batch."""
    seed: int = 0
    start: Literal["random", "bigrams"] = "random"
    """Weights at the first step. bigrams: embedding and head so that the model knows which token follows which, counted
    in the training text (llama and qwen3, with a head of its own); a short run ends several per cent lower."""
    eval_every: int = 100
    """Steps between held-out evaluations; 0 = none."""
    eval_tokens: int = 100_000
    """Held-out tokens read at each of them, evenly from all; 0 = all."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 = about one a minute. Every run ends with one."""
    keep: int = 2
    """Checkpoints kept."""
    patience: int = 0
    """Evaluations without a better held-out loss after which the run stops early; 0 = never."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl."""
    sample_tokens: int = 100
    """Tokens written as a sample at each evaluation; 0 = none."""
    device: str = "auto"
    dtype: Literal["auto", "f32", "bf16"] = "auto"
    """Number format of the matrix products; auto = bf16 where the hardware multiplies in it and
    the model is wide enough to gain by it (on a processor 128), else f32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto = on a GPU, where the run is long enough to earn it back."""
    threads: int = 0
    """Processor threads; 0 = torch's choice."""

    def __post_init__(self):
        at_least("training", self, 0, "minutes")
        at_least("training", self, 1, "steps", "batch", "log_every", "keep")
        at_zero = ("micro_batch", "seed", "eval_every", "eval_tokens", "checkpoint_every", "patience", "sample_tokens")
        at_least("training", self, 0, *at_zero, "threads")
        for name, most in (("seed", 2**63 - 1), ("threads", 1024)):
            if getattr(self, name) > most:
                raise UserError(f"training.{name} must be at most {most}, not {getattr(self, name)}")
        if self.micro_batch > self.batch:
            raise UserError(f"training.micro_batch ({self.micro_batch}) must not exceed training.batch ({self.batch})")
        if self.patience and not self.eval_every:
            raise UserError("training.patience needs evaluations: set training.eval_every above 0")


@dataclass(frozen=True)
class Recipe:
    """One run. Precedence: these defaults < a recipe file < flags."""

    data: PrepareConfig = field(default_factory=PrepareConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    command: ClassVar[str] = "train"
    """Which command such a run is begun and resumed by."""


@dataclass(frozen=True)
class TuningConfig:
    """What a model is tuned from, and how far."""

    model: str = ""
    """Its folder, a run's or Transformers', or hub id."""
    hash: str = ""
    """Of its weights (sha256); found when the run begins."""
    epochs: float = 3.0
    """How often every row is read, where no number of steps and no time is stated; 0 = training.steps says how long."""
    dropout: float = -1.0
    """Dropout while tuning; -1 = the model's own."""
    label_smoothing: float = 0.0
    """Part of each target's certainty that is given to all classes alike, against overconfidence; the loss of
    training is told with it, that of what is held out without. Not for span."""

    def __post_init__(self):
        at_least("tuning", self, 0, "epochs")
        if self.dropout != -1 and not 0 <= self.dropout < 1:
            raise UserError(f"tuning.dropout must lie in [0, 1), or be -1 for the model's own, not {self.dropout}")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"tuning.label_smoothing must lie in [0, 1), not {self.label_smoothing}")


@dataclass(frozen=True)
class TuningRecipe(Recipe):
    """A run that begins with a trained model and learns from rows of examples; `data` and `model` follow from these."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adamw", weight_decay=0.01, beta2=0.98))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig("wsd", warmup=0.06, decay=0.94))
    rows: RowsConfig = field(default_factory=RowsConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)

    command: ClassVar[str] = "finetune"


def recipe_from(mapping: dict[str, Any]) -> Recipe:
    """The recipe of a mapping: one for tuning where it has a section for that."""
    return from_dict(TuningRecipe if "tuning" in mapping else Recipe, mapping)


def resolve(recipe: Recipe, chosen: dict[str, dict[str, Any]]) -> Recipe:
    """The recipe with what a plan chose, by section and field."""
    return from_dict(type(recipe), chosen, default=recipe)


def read_recipe(path: Path | str) -> Recipe:
    """The recipe in a TOML file; paths in it, of texts, examples, tokenizer or model, are relative to the file."""
    mapping: dict[str, Any] = read_toml(path)
    for section in ("data", "rows"):
        for key in ("paths", "validation_paths", "against"):
            if isinstance(mapping.get(section), dict) and isinstance(mapping[section].get(key), list):
                mapping[section][key] = [_beside(path, name) for name in mapping[section][key]]
    training, tuning = mapping.get("training"), mapping.get("tuning")
    if isinstance(training, dict) and "steps" in training and isinstance(tuning, dict):
        tuning.setdefault("epochs", 0.0)
    for section, key in (("data", "tokenizer"), ("tuning", "model")):
        name = mapping[section].get(key) if isinstance(mapping.get(section), dict) else None
        if isinstance(name, str) and name and (Path(path).parent / name).exists():
            mapping[section][key] = _beside(path, name)
    return recipe_from(mapping)


def _beside(recipe: Path | str, name: Any) -> Any:
    """A data path of a recipe, made absolute; what is no text is left to be refused."""
    return located(name, Path(recipe).parent) if isinstance(name, str) else name
