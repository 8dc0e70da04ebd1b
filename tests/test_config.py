import re
from pathlib import Path

import pytest
import yaml

from picking.config import (
    ActiveConfig,
    PUConfig,
    config_from_dict,
    differing_keys,
    plain,
    read_config,
)
from picking.errors import UserError

CONFIGS = Path(__file__).parent.parent / "configs"


def read(tmp_path, text, *overrides):
    path = tmp_path / "some.yaml"
    path.write_text(text)
    return read_config(path, list(overrides), PUConfig)


def refused(tmp_path, text, *overrides):
    """Return the message that a config is refused with: one short line."""
    with pytest.raises(UserError) as error:
        read(tmp_path, text, *overrides)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    assert ("--set" if overrides else "some.yaml") in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "wrong", "nearest"),
    [
        ("loss: {consistency_treshold: 0.9}", "loss.consistency_treshold", "consistency_threshold"),
        ("training: {epoch: 3}", "training.epoch", "training.epochs"),
        ("trainning: {epochs: 3}", "trainning", "training"),
        ("1: {epochs: 3}", "1", ""),
        ("batch_size: 3", "batch_size", "training.batch_size"),
    ],
)
def test_an_unknown_key_is_refused_with_file_key_and_nearest(tmp_path, text, wrong, nearest):
    assert re.search(f"'{wrong}'.*'.*{nearest}'", refused(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "key", "wanted"),
    [
        ("training: {epochs: many}", "training.epochs", "a whole number"),
        ("training: {epochs: 1.5}", "training.epochs", "a whole number"),
        ("training: {epochs: true}", "training.epochs", "a whole number"),
        ("training: {max_steps: some}", "training.max_steps", "a whole number or null"),
        ("training: {ema_teacher: 1}", "training.ema_teacher", "true or false"),
        ("optimizer: {lr: [1]}", "optimizer.lr", "a number"),
        ("optimizer: {lr: .nan}", "optimizer.lr", "a number"),
        ("model: {dropout: null}", "model.dropout", "a number"),
        ("model: {backbone: resnet19}", "model.backbone", "resnet18 or resnet34 or resnet50"),
        ("loss: {prior: auto}", "loss.prior", "a number or actual or pool"),
        ("data: {batch_ratio: [1, 2, 3]}", "data.batch_ratio", "a list of 2 whole numbers"),
        ("data: {batch_ratio: [1, x]}", "data.batch_ratio", "a whole number"),
        ("data: {dir: 5}", "data.dir", "text"),
        (r'data: {dir: "\uD800"}', "data.dir", "text"),  # half a character
        ("training: 5", "training", "a section"),
        ("training:\n", "training", "a section"),
        ("optimizer: {lr: 0}", "optimizer.lr", "above 0 to 1"),
        ("optimizer: {lr: 1.5}", "optimizer.lr", "above 0 to 1"),
        (f"optimizer: {{lr: {10**90}}}", "optimizer.lr", "above 0 to 1"),
        ("loss: {consistency_threshold: 0.4}", "loss.consistency_threshold", "from 0.5 to 1"),
        ("training: {batch_size: 1}", "training.batch_size", "from 2 to 65536"),
        ("training: {max_steps: 0}", "training.max_steps", "from 1 on"),
    ],
)
def test_a_wrong_type_or_value_is_refused_naming_what_it_must_be(tmp_path, text, key, wanted):
    assert re.search(f"'{key}'.* {wanted}", refused(tmp_path, text))


def test_a_missing_file_a_list_and_broken_yaml_name_the_file_and_the_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml"):
        read_config(tmp_path / "none.yaml", [], PUConfig)
    with pytest.raises(UserError, match="folder"):
        read_config(tmp_path, [], PUConfig)
    assert "sections" in refused(tmp_path, "[1, 2]")
    assert "some.yaml, line 2" in refused(tmp_path, "a: 1\nb: [1, 2}\n")


def test_an_exponent_without_a_point_is_a_number_though_yaml_reads_text(tmp_path):
    assert yaml.safe_load("1e-3") == "1e-3"  # the trap
    assert read(tmp_path, "optimizer: {lr: 1e-3}").optimizer.lr == 0.001
    assert read(tmp_path, "optimizer: {lr: 1e-4}", "optimizer.lr=3e-4").optimizer.lr == 0.0003


def test_an_empty_file_is_the_defaults(tmp_path):
    assert read(tmp_path, "") == PUConfig()


def test_a_word_is_accepted_where_a_number_or_that_word_may_stand(tmp_path):
    loss = read(tmp_path, "loss: {prior: pool, unlabeled_prior: 0.25}").loss
    assert (loss.prior, loss.unlabeled_prior) == ("pool", 0.25)
    assert read(tmp_path, "loss: {unlabeled_prior: 0}").loss.unlabeled_prior == 0
    assert read(tmp_path, "training: {max_steps: null}").training.max_steps is None


def test_overrides_beat_the_file_and_later_ones_the_earlier(tmp_path):
    text = "training: {seed: 1, epochs: 7}\ndata: {batch_ratio: [1, 2]}"
    config = read(tmp_path, text, "training.seed=2", "data.batch_ratio=[1, 9]", "training.seed=3")
    assert (config.training.seed, config.training.epochs) == (3, 7)
    assert config.data.batch_ratio == (1, 9)
    assert config.loss == PUConfig().loss


def nine_times_nine(item, first):
    """YAML whose last of ten names stands for 9^9 items, by aliases or merges."""
    lines = [f"a: &a {first}"]
    for name, before in zip("bcdefghij", "abcdefghi", strict=True):
        lines.append(f"{name}: &{name} {item % ', '.join(['*' + before] * 9)}")
    return "\n".join(lines)


ALIASES = nine_times_nine("[%s]", "[x,x,x,x,x,x,x,x,x]")
MERGES = nine_times_nine("{<<: [%s]}", "{x: 1}")
FLOW = f"[{', '.join(line.split(': ', 1)[1] for line in ALIASES.splitlines())}]"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.seed", "training.seed.*section.key=value"),
        ("=3", "unknown key ''"),
        ("training.sead=3", "'training.sead'.*'training.seed'"),
        ("lr=3", "'lr'.*'optimizer.lr'"),
        ("training=3", "'training'.*section"),
        ("training.seed.x=3", "'training.seed'.*a whole number"),
        ("training.seed=", "'training.seed'.*a whole number"),
        ("data.batch_ratio=[1,", "valid YAML"),
        (f"training.seed={'[' * 3000}", "valid YAML"),
        ("optimizer.lr=2", "'optimizer.lr'.*above 0 to 1"),
        (f"training.seed={FLOW}", "a whole number"),  # endless items are shown short
    ],
)
def test_a_wrong_override_is_refused_in_a_sentence(tmp_path, override, words):
    assert re.search(words, refused(tmp_path, "", override))


def schema_of(path):
    return ActiveConfig if path.name.startswith("active_learning") else PUConfig


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_of_the_project_loads(path):
    expected = plain(schema_of(path)())
    for section, stated in yaml.safe_load(path.read_text()).items():
        expected[section].update(stated)
    assert plain(read_config(path, [], schema_of(path))) == expected


@pytest.mark.parametrize("name", ["pu_full_fixed.yaml", "active_learning.yaml"])
def test_a_full_config_states_every_key_with_its_default_and_a_comment(name):
    text = (CONFIGS / name).read_text()
    defaults = plain(schema_of(CONFIGS / name)())
    content = yaml.safe_load(text)
    if name == "pu_full_fixed.yaml":
        content["loss"]["prior"] = "pool"  # which --use-data-prior takes in place of its number
    assert content == defaults
    keys = [line for line in text.splitlines() if re.match(r"  \w+:", line)]
    assert len(keys) == sum(map(len, defaults.values()))
    assert [line for line in keys if "#" not in line] == []


def test_the_full_config_holds_the_values_of_the_users_guide():
    config = plain(read_config(CONFIGS / "pu_full_fixed.yaml", [], PUConfig))
    for section, values in {
        "data": {"batch_ratio": [1, 4], "input_size_px": 128},
        "model": {"backbone": "resnet18", "dropout": 0.3},
        "loss": {"prior": 0.47, "consistency_threshold": 0.90, "lambda_consistency": 1.0},
        "optimizer": {"lr": 0.001, "scheduler": "cosine"},
        "training": {"epochs": 100, "batch_size": 64, "early_stopping_patience": 20},
    }.items():
        assert values.items() <= config[section].items()


def test_a_config_survives_yaml_and_comes_back_equal():
    config = read_config(CONFIGS / "pu_quickstart.yaml", ["optimizer.lr=1e-5"], PUConfig)
    written = yaml.safe_load(yaml.safe_dump(plain(config)))
    assert differing_keys(written, plain(config)) == []
    assert config_from_dict(written, "config.yaml", PUConfig) == config
    with pytest.raises(UserError, match="last"):
        config_from_dict([written], "last.pt", PUConfig)


def test_differing_keys_are_dotted_and_include_those_only_one_has():
    one = {"a": {"x": 1, "y": 2}, "b": 1}
    other = {"a": {"x": 1, "y": 3, "z": 4}, "c": 1}
    assert differing_keys(one, other) == ["a.y", "a.z", "b", "c"]
    assert differing_keys(one, one) == []
    assert differing_keys({1: 2, "a": 3, None: 4}, {"a": 3}) == ["1", "None"]


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "a section twice": ("training: {seed: 1}\ntraining: {epochs: 3}", "'training' stands"),
        "a key twice": ("training:\n  seed: 1\n  seed: 2\n", "line 2.*'seed' stands"),
        "a date that is none": ("training: {seed: 2001-99-99}", "valid YAML"),
        "a number without end": (f"training: {{seed: 0x{'f' * 9000}}}", "over 100 digits"),
        "no mapping": ("!!map foo", "valid YAML"),
        "a list as a key": ("? [a, b]\n: 1", "valid YAML"),
        "a line break in a key": ('"a\\nb": 1', r"unknown key 'a\\nb'"),
        "9^9 items by aliases": (f"training: {{seed: *j}}\n{ALIASES}", "valid YAML"),
        "9^9 items as a value": (f"{ALIASES}\ntraining: {{seed: *j}}", "unknown key 'a'"),
        "9^9 keys by merges": (MERGES, "over 10000 keys|unknown key 'a'"),
    }.values(),
)
def test_yaml_that_is_no_config_is_refused_in_one_line_and_little_memory(tmp_path, text, words):
    assert re.search(words, refused(tmp_path, text))


def test_yaml_that_would_run_code_is_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = '!!python/object/apply:os.mkdir ["pwned"]'
    assert "valid YAML" in refused(tmp_path, f"training: {{seed: {text}}}")
    assert "valid YAML" in refused(tmp_path, "", f"training.seed={text}")
    assert not (tmp_path / "pwned").exists()
