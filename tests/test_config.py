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
from picking.pu_learning.samplers import split_batch

CONFIGS = Path(__file__).parent.parent / "configs"


def read(tmp_path, text, *overrides):
    path = tmp_path / "some.yaml"
    path.write_text(text)
    return read_config(path, list(overrides), PUConfig)


def refused(tmp_path, text, *overrides):
    """Return the message that a config is refused with: one sentence on one line."""
    with pytest.raises(UserError) as error:
        read(tmp_path, text, *overrides)
    assert "\n" not in str(error.value)
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
    message = refused(tmp_path, text)
    assert "some.yaml" in message
    assert f"unknown key '{wrong}'" in message
    assert re.search(f"did you mean '.*{nearest}'", message)


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
        ("training: 5", "training", "a section"),
        ("[1, 2]", "some.yaml", "sections"),
    ],
)
def test_a_wrong_type_is_refused_naming_what_it_must_be(tmp_path, text, key, wanted):
    message = refused(tmp_path, text)
    assert "some.yaml" in message
    assert key in message
    assert wanted in message


@pytest.mark.parametrize(
    ("text", "key", "bounds"),
    [
        ("optimizer: {lr: 0}", "optimizer.lr", "above 0 to 1"),
        ("optimizer: {lr: 1.5}", "optimizer.lr", "above 0 to 1"),
        ("loss: {consistency_threshold: 0.4}", "loss.consistency_threshold", "from 0.5 to 1"),
        ("loss: {prior: 1.2}", "loss.prior", "above 0 to 1"),
        ("training: {batch_size: 1}", "training.batch_size", "from 2 to 65536"),
        ("training: {max_steps: 0}", "training.max_steps", "from 1 on"),
    ],
)
def test_a_value_out_of_range_is_refused_naming_the_range(tmp_path, text, key, bounds):
    message = refused(tmp_path, text)
    assert "some.yaml" in message
    assert f"'{key}' is" in message
    assert message.endswith(f"choose a number {bounds}")


def test_a_missing_file_and_broken_yaml_name_the_file_and_the_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml is not there"):
        read_config(tmp_path / "none.yaml", [], PUConfig)
    assert "some.yaml, line 2 is not valid YAML" in refused(tmp_path, "a: 1\nb: [1, 2}\n")


def test_an_exponent_without_a_point_is_a_number_though_yaml_reads_text(tmp_path):
    assert yaml.safe_load("1e-3") == "1e-3"  # the trap
    assert read(tmp_path, "optimizer: {lr: 1e-3}").optimizer.lr == 0.001
    assert read(tmp_path, "optimizer: {lr: 1e-4}", "optimizer.lr=3e-4").optimizer.lr == 0.0003


def test_an_empty_file_and_an_empty_section_are_the_defaults(tmp_path):
    assert read(tmp_path, "") == PUConfig()
    assert "'training' must be a section" in refused(tmp_path, "training:\n")


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.seed", "--set training.seed: write it as section.key=value"),
        ("=3", "--set: unknown key ''"),
        ("training.sead=3", "--set: unknown key 'training.sead'; did you mean 'training.seed'?"),
        ("lr=3", "--set: unknown key 'lr'; did you mean 'optimizer.lr'?"),
        ("training=3", "--set: 'training' must be a section"),
        ("training.seed.x=3", "--set: 'training.seed' is {'x': 3}, but must be a whole number"),
        ("training.seed=", "--set: 'training.seed' is None, but must be a whole number"),
        ("data.batch_ratio=[1,", "the value is not valid YAML"),
        ("optimizer.lr=2", "--set: 'optimizer.lr' is 2.0: choose a number above 0 to 1"),
    ],
)
def test_a_wrong_override_is_refused_in_a_sentence(tmp_path, override, message):
    assert message in refused(tmp_path, "", override)


def schema_of(path):
    return ActiveConfig if path.name.startswith("active_learning") else PUConfig


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_of_the_project_loads(path):
    expected = plain(schema_of(path)())
    for section, stated in yaml.safe_load(path.read_text()).items():
        expected[section].update(stated)
    assert plain(read_config(path, [], schema_of(path))) == expected


@pytest.mark.parametrize("name", ["pu_full_fixed.yaml", "active_learning.yaml"])
def test_a_full_config_states_every_key_with_its_default(name):
    content = yaml.safe_load((CONFIGS / name).read_text())
    if name == "pu_full_fixed.yaml":
        content["loss"]["prior"] = "pool"  # which --use-data-prior takes in place of its number
    assert content == plain(schema_of(CONFIGS / name)())


def test_every_key_of_the_full_config_has_a_comment():
    lines = (CONFIGS / "pu_full_fixed.yaml").read_text().splitlines()
    keys = [line for line in lines if re.match(r"  \w+:", line)]
    assert len(keys) == sum(map(len, plain(PUConfig()).values()))
    assert [line for line in keys if "#" not in line] == []


def test_the_full_config_holds_the_values_of_the_users_guide():
    config = read_config(CONFIGS / "pu_full_fixed.yaml", [], PUConfig)
    assert config.data.batch_ratio == (1, 4)
    assert config.data.input_size_px == 128
    assert (config.model.backbone, config.model.dropout) == ("resnet18", 0.3)
    loss = config.loss
    assert (loss.prior, loss.consistency_threshold, loss.lambda_consistency) == (0.47, 0.90, 1.0)
    assert (config.optimizer.lr, config.optimizer.scheduler) == (0.001, "cosine")
    training = config.training
    assert (training.epochs, training.batch_size) == (100, 64)
    assert training.early_stopping_patience == 20


def test_a_batch_too_small_for_the_ratio_names_both(tmp_path):
    config = read(tmp_path, "training: {batch_size: 4}\ndata: {batch_ratio: [1, 9]}")
    with pytest.raises(UserError, match=r"batch size 4 at ratio \[1, 9\] gives 0 labelled"):
        split_batch(config.training.batch_size, config.data.batch_ratio)


def test_a_config_survives_yaml_and_comes_back_equal():
    config = read_config(CONFIGS / "pu_quickstart.yaml", ["optimizer.lr=1e-5"], PUConfig)
    written = yaml.safe_load(yaml.safe_dump(plain(config)))
    assert differing_keys(written, plain(config)) == []
    assert config_from_dict(written, "config.yaml", PUConfig) == config


def test_differing_keys_are_dotted_and_include_those_only_one_has():
    one = {"a": {"x": 1, "y": 2}, "b": 1}
    other = {"a": {"x": 1, "y": 3, "z": 4}, "c": 1}
    assert differing_keys(one, other) == ["a.y", "a.z", "b", "c"]
    assert differing_keys(one, one) == []


def test_a_section_or_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    for text, key in (
        ("training:\n  seed: 1\ntraining:\n  epochs: 3\n", "training"),
        ("training:\n  seed: 1\n  seed: 2\n", "seed"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"twice.yaml.*'{key}' stands twice"):
            read_config(path, [], PUConfig)


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "\n".join(
    f"{b}: &{b} {{<<: [{', '.join(['*' + a] * 9)}]}}"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "a date that is none": ("training: {seed: 2001-99-99}", "is not valid YAML"),
        "a number without end": (f"training: {{seed: 0x{'f' * 9000}}}", "a number without end"),
        "a large number": (f"optimizer: {{lr: {10**90}}}", "choose a number above 0 to 1"),
        "no mapping": ("!!map foo", "expected a mapping node"),
        "a list as a key": ("? [a, b]\n: 1", "found unhashable key"),
        "a line break in a key": ('"a\\nb": 1', r"unknown key 'a\\nb'"),
        "half a character": (r'data: {dir: "\uD800"}', "'data.dir' is '.*', but must be text"),
        "9^9 items by aliases": (f"training: {{seed: *j}}\n{ALIASES}", "not valid YAML"),
        "9^9 items as a value": (f"{ALIASES}\ntraining: {{seed: *j}}", "unknown key 'a'"),
        "9^9 keys by merges": (MERGES, "more than 10000 keys|unknown key 'a'"),
    }.values(),
)
def test_yaml_that_is_no_config_is_refused_in_one_line_and_little_memory(tmp_path, text, words):
    assert re.search(words, message := refused(tmp_path, text)) and len(message) < 1000


def test_an_alias_to_endless_items_is_shown_short_in_an_override(tmp_path):
    flow = "[&a [x,x,x,x,x,x,x,x,x], " + ", ".join(
        f"&{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    message = refused(tmp_path, "", f"training.seed={flow}]")
    assert "must be a whole number" in message and len(message) < 1000
    assert "not valid YAML" in refused(tmp_path, "", f"training.seed={'[' * 3000}")


def test_yaml_that_would_run_code_is_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = '!!python/object/apply:os.mkdir ["pwned"]'
    assert "is not valid YAML" in refused(tmp_path, f"training: {{seed: {text}}}")
    assert "is not valid YAML" in refused(tmp_path, "", f"training.seed={text}")
    assert not (tmp_path / "pwned").exists()


def test_keys_of_mixed_types_can_be_compared():
    assert differing_keys({1: 2, "a": 3, None: 4}, {"a": 3}) == ["1", "None"]
