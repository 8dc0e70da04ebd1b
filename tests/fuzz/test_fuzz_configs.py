"""YAML files and --set overrides of both training scripts."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

from picking.config import ActiveConfig, PUConfig, plain, read_config

from .mutators import ODD_VALUES, damaged_bytes, damaged_text, damaged_tree
from .oracle import ENDS, outcome, run_cases, short

SCHEMAS = (PUConfig, ActiveConfig)
# Aliases that stand for 9^9 items, and merges for as many keys
PAIRS = list(zip("abcdefghi", "bcdefghij", strict=True))
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in PAIRS
)
BOMB += "\ntraining: {seed: *j}"
MERGES = "a: &a {x: 1}\n" + "\n".join(
    f"{b}: &{b} {{<<: [{', '.join(['*' + a] * 9)}]}}" for a, b in PAIRS
)
LINES = (
    '!!python/object/apply:os.system ["touch pwned"]', "training: !!python/name:os.system",
    "training: {seed: 2001-99-99}", "training: {seed: 2001-01-01}",
    "? [a, b]\n: 1", "? {a: 1}\n: 1",
    "training: &a [*a]", "training: *nowhere", "!!map foo", "!!set {a}", "training: !!omap [a: 1]",
    "<<: {seed: 1}", "training: {<<: [1]}", "a: !!binary x", "training: {seed: 0x}", "\t a: 1",
    "training: {seed: " + "9" * 5000 + "}", "{" * 3000, "- " * 3000, "a: b: c", "%YAML 9.9\n---\n",
    "--- 1\n--- 2", "training: {seed: 1:60:60}", "training: {lr: .inf}", '"a\\nb": 1',
    BOMB, MERGES,
)  # fmt: skip


def read(path, overrides, schema):
    config = read_config(path, overrides, schema)
    assert type(config) is schema
    for section in dataclasses.fields(config):
        assert type(getattr(config, section.name)) is section.type
    plain(config)
    assert not list(Path.cwd().glob("pwned"))


def of_bytes(folder, content, schema):
    path = folder / "x.yaml"
    path.write_bytes(content)
    return outcome(lambda: read(path, [], schema), [path.name])


def values(draw, folder):
    """Configs whose sections, keys and values were changed."""
    schema = draw(st.sampled_from(SCHEMAS))
    tree = draw(damaged_tree(plain(schema())))
    return of_bytes(folder, yaml.safe_dump(tree).encode(), schema)


def text(draw, folder):
    schema = draw(st.sampled_from(SCHEMAS))
    whole = yaml.safe_dump(plain(schema()))
    damage = st.one_of(damaged_text(whole), damaged_bytes(whole.encode()))
    return of_bytes(folder, draw(damage), schema)


def lines(draw, folder):
    """What is YAML, but of a kind that no config holds: tags, anchors, bombs."""
    schema = draw(st.sampled_from(SCHEMAS))
    chosen = draw(st.lists(st.sampled_from(LINES), min_size=1, max_size=2))
    return of_bytes(folder, "\n".join(chosen).encode(), schema)


def overrides(draw, folder):
    """--set with keys and values that are odd alone or together."""
    schema = draw(st.sampled_from(SCHEMAS))
    keys = [f"{section}.{key}" for section, part in plain(schema()).items() for key in part]
    key = st.one_of(
        st.sampled_from(keys),
        st.sampled_from(
            ("", ".", "training", "training.", ".seed", "a.b.c.d", "data.dir.x", "a\nb")
        ),
    )
    odd = [str(value)[:6000] for value in ODD_VALUES] + list(LINES)
    value = st.one_of(st.sampled_from(odd), st.text(max_size=20))
    given = draw(st.lists(st.tuples(key, st.sampled_from(("=", "=", "=", ":")), value), max_size=3))
    path = folder / "x.yaml"
    path.write_text("")
    sets = ["".join(parts) for parts in given]
    return outcome(lambda: read(path, sets, schema), ["--set"])


CASES = {values: 80, text: 60, lines: 60, overrides: 100}


@pytest.mark.parametrize("case", CASES)
def test_damaged_configs_are_read_or_refused_in_one_sentence(case):
    assert set() < run_cases(case, short(CASES[case])) <= ENDS
