import re
from pathlib import Path

import pytest

from tests.fixtures import ROOT

FOLDERS = ("", "benchmarks", "configs", "data", "docs", "experiments")
TEXTS = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).iterdir())
    if path.suffix in (".md", ".yaml")
]
OURS = re.compile(r"\b(?:picking|models|tests|benchmarks|configs|docs)/[\w/]+\.(?:py|yaml|md|png)")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_documents_name_and_link_to_is_there(text: Path):
    content = text.read_text()
    named = [ROOT / name for name in OURS.findall(content)]
    linked = [text.parent / name for name in LINK.findall(content)]
    assert [path for path in named + linked if not path.exists()] == []
