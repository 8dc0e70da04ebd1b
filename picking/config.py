"""YAML plus overrides -> frozen dataclasses; anything unknown or out of range is an error.

A misspelt key that is ignored in silence costs a day of computing. So every wrong key or value is
an error that names the file, the key and the nearest valid one. The dataclass is the schema: its
fields' types are checked, `Literal` lists the choices, and `ranged` adds a range.
"""

import collections
import dataclasses
import difflib
import json
import math
import reprlib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from picking.errors import UserError

T = TypeVar("T")
MOST_KEYS, MOST_DIGITS = 10_000, 100  # of a mapping and of a whole number in YAML
# Shows values in messages: with aliases a few lines of YAML can stand for gigabytes.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 200, 200, 40


def ranged(
    default: Any, low: float = -math.inf, high: float = math.inf, above: bool = False
) -> Any:
    """Return a dataclass field for a number in [low, high]; with ``above``, in (low, high]."""
    return dataclasses.field(default=default, metadata={"range": (low, high, above)})


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the patches come from and how a batch is put together."""

    dir: str = "data/cryotransformer_full_pu"
    batch_ratio: tuple[int, int] = (1, 4)
    input_size_px: int = ranged(128, 16, 1024)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network. A ResNet has dropout, a U-Net has width and depth."""

    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet18_narrow", "unet"] = "resnet18"
    dropout: float = ranged(0.3, 0, 0.95)
    width: int = ranged(16, 1, 512)
    depth: int = ranged(3, 1, 7)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The PU or PNU risk with two priors, and FixMatch consistency; see picking/training/losses.py.

    eta: the share of the PU risk where there are known negatives; auto: as `priors.eta_of` has it.
    """

    prior: float | Literal["actual", "pool"] = ranged("pool", 0, 1, above=True)
    unlabeled_prior: float | Literal["data", "estimate"] = ranged("data", 0, 1)
    one_prior: bool = False
    eta: float | Literal["auto"] = ranged("auto", 0, 1)
    surrogate: Literal["logistic", "sigmoid"] = "logistic"
    beta: float = ranged(0.0, 0)
    gamma: float = ranged(1.0, 0, 1)
    consistency_threshold: float = ranged(0.90, 0.5, 1)
    lambda_consistency: float = ranged(1.0, 0)
    rampup_epochs: int = ranged(0, 0)
    distribution_alignment: bool = False
    adaptive_threshold: bool = False
    estimate_steps: int = ranged(200, 1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning rate."""

    lr: float = ranged(0.001, 0, 1, above=True)
    scheduler: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = ranged(1e-4, 0, 1)
    grad_clip: float = ranged(5.0, 0)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long training goes on, in which batches, and how exactly."""

    epochs: int = ranged(100, 1)
    batch_size: int = ranged(64, 2, 65_536)
    early_stopping_patience: int = ranged(20, 1)
    max_steps: int | None = ranged(None, 1)
    initial_weights: str | None = None
    initial_share: float = ranged(0.0, 0, 1)
    seed: int = ranged(42, 0)
    ema_decay: float = ranged(0.0, 0, 0.99999)
    ema_teacher: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    deterministic: bool = False
    checkpoint_every_steps: int = ranged(1000, 1)
    eval_batch_size: int = ranged(256, 1)
    bootstrap_samples: int = ranged(1000, 0, 100_000)


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """Strengths of the weak and the strong view; see picking/training/augment.py."""

    shift_px: int = ranged(4, 0, 64)
    rotation_degrees: float = ranged(45.0, 0, 45)
    scale: float = ranged(0.1, 0, 0.5)
    contrast: float = ranged(0.5, 0, 0.95)
    brightness: float = ranged(0.5, 0, 5)
    noise: float = ranged(0.5, 0, 5)
    blur_px: float = ranged(1.5, 0, 1.5)
    cutout: float = ranged(0.4, 0, 0.95)


@dataclasses.dataclass(frozen=True)
class PUConfig:
    """Everything that `train_pu_fixed_full.py` reads from its YAML."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()


@dataclasses.dataclass(frozen=True)
class SegmentationDataConfig:
    """The splits of a segmentation store; test_dir `auto` is `test` beside val_dir, if any."""

    train_dir: str = "data/cryotransformer_preprocessed/train"
    val_dir: str = "data/cryotransformer_preprocessed/val"
    test_dir: str | None = "auto"


@dataclasses.dataclass(frozen=True)
class SegmentationModelConfig:
    """The U-Net: the channels of its first level, and how often it halves the image."""

    name: Literal["attention_unet", "unet"] = "attention_unet"
    width: int = ranged(64, 1, 512)
    depth: int = ranged(4, 1, 7)


@dataclasses.dataclass(frozen=True)
class ActiveLearningConfig:
    """Which images are labelled when, and which weights an iteration starts from."""

    strategy: str = "uncertainty"
    iterations: int = ranged(10, 1, 1000)
    initial_fraction: float = ranged(0.1, 0, 1, above=True)
    initial_labelled: str | None = None
    query_fraction: float = ranged(0.1, 0, 1, above=True)
    start: Literal["warm", "scratch", "shrink_perturb"] = "warm"
    initial_weights: str | None = None
    full_epochs: int = ranged(100, 1)
    target_f1: float = ranged(0.7303, 0, 1, above=True)
    compare_queries: bool = True


@dataclasses.dataclass(frozen=True)
class SegmentationLossConfig:
    """Focal + Dice: a preset of picking/training/losses.py; numbers override the preset's."""

    preset: Literal["default", "reference"] = "default"
    focal_weight: float | None = ranged(None, 0)
    dice_weight: float | None = ranged(None, 0)
    alpha: float | None = ranged(None, 0, 1)
    gamma: float | None = ranged(None, 0, 10)


@dataclasses.dataclass(frozen=True)
class PoolConsistencyConfig:
    """FixMatch on unlabeled images (picking/active_learning/unlabeled.py). Weight 0: off."""

    weight: float = ranged(0.0, 0)
    threshold: float = ranged(0.7, 0.5, 1)
    ratio: int = ranged(1, 1, 64)
    strength: float = ranged(1.0, 0, 10)


@dataclasses.dataclass(frozen=True)
class ActiveOptimizerConfig:
    """AdamW, new in every iteration, with a cosine from lr to lr * final_lr_share."""

    lr: float = ranged(0.001, 0, 1, above=True)
    final_lr_share: float = ranged(0.01, 0, 1)
    weight_decay: float = ranged(1e-4, 0, 1)
    grad_clip: float = ranged(5.0, 0)


@dataclasses.dataclass(frozen=True)
class ActiveTrainingConfig:
    """How long training goes on, in which batches, and how exactly; epochs an iteration."""

    epochs: int = ranged(30, 1)
    batch_size: int = ranged(8, 1, 65_536)
    seed: int = ranged(42, 0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    deterministic: bool = False
    evaluate_every_epochs: int = ranged(1, 1)
    eval_batch_size: int = ranged(8, 1)


@dataclasses.dataclass(frozen=True)
class WarpConfig:
    """Augmentation of images with masks (picking/training/warps.py). 0 switches a step off."""

    flip: bool = True
    rotation_degrees: float = ranged(15.0, 0, 180)
    elastic: float = ranged(0.02, 0, 0.2)
    noise: float = ranged(0.3, 0, 5)
    contrast: float = ranged(0.3, 0, 0.95)
    gradient: float = ranged(0.5, 0, 5)


@dataclasses.dataclass(frozen=True)
class ActiveConfig:
    """Everything that `train_active_learning_fixed.py` reads from its YAML."""

    data: SegmentationDataConfig = SegmentationDataConfig()
    model: SegmentationModelConfig = SegmentationModelConfig()
    active_learning: ActiveLearningConfig = ActiveLearningConfig()
    loss: SegmentationLossConfig = SegmentationLossConfig()
    consistency: PoolConsistencyConfig = PoolConsistencyConfig()
    optimizer: ActiveOptimizerConfig = ActiveOptimizerConfig()
    training: ActiveTrainingConfig = ActiveTrainingConfig()
    augmentation: WarpConfig = WarpConfig()


class _Loader(yaml.SafeLoader):
    """The safe loader, with three more errors.

    A key that stands twice, of which YAML would keep the last; a mapping that merges (`<<`) make
    larger than `MOST_KEYS`; a whole number of more than `MOST_DIGITS` digits, slow to convert.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((k for k, n in collections.Counter(keys).items() if n > 1), None)
            self._require(twice is None, f"the key '{twice}' stands twice", node)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self._require(len(node.value) <= MOST_KEYS, f"over {MOST_KEYS} keys in a mapping", node)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        self._require(len(node.value) <= MOST_DIGITS, f"over {MOST_DIGITS} digits", node)
        return super().construct_yaml_int(node)

    def _require(self, valid: bool, problem: str, node: yaml.Node) -> None:
        if not valid:
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(path: Path) -> dict:
    """Return the sections of a YAML file as nested dictionaries, {} of an empty file.

    Raises `UserError` when it is missing, not YAML, or anything but a mapping.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there: check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: name a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML ({error.reason}): mend it there") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold sections with keys, such as 'training:'")
    return content


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of a YAML text; a `UserError` for broken YAML names ``source``."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2001-99-99
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place and "\n" in text else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise UserError(f"{source}{line} is not valid YAML ({problem}): mend it there") from error


def read_config(path: Path, overrides: list[str], schema: type[T]) -> T:
    """Read a YAML file, apply overrides, each ``section.key=value``, and return the dataclass.

    Raises `UserError` that names the file, the key, and the nearest valid key, type or range.
    """
    config = _build(schema, read_yaml(path), str(path), "")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UserError(f"--set {override}: write it as section.key=value")
        value = parse_yaml(text, f"--set {override}: the value")
        for part in reversed(key.split(".")):
            value = {part: value}
        merged = _merge(dataclasses.asdict(config), value)  # type: ignore[call-overload]
        config = _build(schema, merged, "--set", "")
    return config


def config_from_dict(content: Any, source: str, schema: type[T]) -> T:
    """Return the dataclass of a dictionary, as of a checkpoint; a `UserError` names ``source``."""
    if not isinstance(content, dict):
        raise UserError(f"{source} holds no configuration: copy it again or use another")
    return _build(schema, content, source, "")


def differing_keys(one: dict, other: dict, prefix: str = "") -> list[str]:
    """Return the dotted keys whose values differ between two nested dictionaries."""
    keys = []
    for key in sorted({*one, *other}, key=str):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            keys += differing_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            keys.append(f"{prefix}{key}")
    return keys


def plain(config: Any) -> dict:
    """Return a config as nested dictionaries and lists, as YAML and JSON hold them."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _merge(base: dict, change: dict) -> dict:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _build(schema: type[T], content: dict, source: str, prefix: str) -> T:
    """Return the dataclass of checked values; errors name keys with ``prefix`` before them."""
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if key not in hints:
            nearest = _nearest(str(key), hints)
            raise UserError(f"{source}: unknown key '{name}'; did you mean '{prefix}{nearest}'?")
        if not dataclasses.is_dataclass(hints[key]):
            values[key] = _checked(value, hints[key], source, name)
            limits = fields[key].metadata.get("range")
            if limits and isinstance(values[key], (int, float)):
                _require_in_range(f"{source}: '{name}'", values[key], *limits)
        elif isinstance(value, dict):
            values[key] = _build(hints[key], value, source, f"{name}.")
        else:
            raise UserError(f"{source}: '{name}' must be a section with keys of its own")
    return schema(**values)


def _nearest(key: str, hints: dict[str, Any]) -> str:
    """Return the valid key most like ``key``, with its section where that was forgotten."""
    known = {name: name for name in hints}
    for section, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            for field in dataclasses.fields(hint):
                known.setdefault(field.name, f"{section}.{field.name}")
    return known[difflib.get_close_matches(key, list(known), 1, 0)[0]]


def _checked(value: Any, hint: Any, source: str, name: str) -> Any:
    """Return ``value`` as the type ``hint``; a `UserError` says what ``name`` may be."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = typing.get_args(hint) if is_union else (hint,)
    for kind in kinds:
        parts = typing.get_args(kind)
        if typing.get_origin(kind) is Literal:
            if value in parts:
                return value
        elif typing.get_origin(kind) is tuple:
            if isinstance(value, (list, tuple)) and len(value) == len(parts):
                pairs = zip(value, parts, strict=True)
                return tuple(_checked(one, part, source, name) for one, part in pairs)
        elif kind is float:
            if (finite := _finite(value)) is not None:
                return finite
        elif type(value) is kind and (kind is not str or _is_unicode(value)):
            return value
    wanted = " or ".join(map(_described, kinds))
    raise UserError(f"{source}: '{name}' is {_SHORT.repr(value)}, but must be {wanted}")


def _finite(value: Any) -> float | None:
    """Return a finite number, also of text: YAML 1.1 reads 1e-3 as text; None of all else."""
    try:
        as_float = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return as_float if math.isfinite(as_float) and not isinstance(value, bool) else None


def _is_unicode(text: str) -> bool:
    """Return whether no character is half of one, which no file could hold."""
    return text.encode(errors="ignore").decode() == text


def _require_in_range(name: str, value: float, low: float, high: float, above: bool) -> None:
    if not low <= value <= high or (above and value == low):
        bounds = f"above {low:g}" if above else f"from {low:g}"
        bounds += f" to {high:g}" if high < math.inf else " on"
        raise UserError(f"{name} is {_SHORT.repr(value)}: choose a number {bounds}")


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return f"a list of {len(typing.get_args(kind))} whole numbers"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(kind, "null")
