"""Tiny patch stores made by the preprocessing script in this process, and what is in them."""

import contextlib
import io
import json
import signal
import sys
from types import SimpleNamespace
from unittest import mock

import pytest

import preprocess_coco_full_dataset as script
from picking import micrographs
from picking.errors import run_script

PATCH_PX = 32


def preprocess(root, output, *options, patch=PATCH_PX, montage=False):
    """Run the script here; return its exit status, stdout and stderr, without the pictures."""
    command = [
        "preprocess_coco_full_dataset.py", "--data-root", root, "--output-dir", output,
        "--patch-size", patch, "--num-workers", 0, *options,
    ]  # fmt: skip
    handler = signal.getsignal(signal.SIGTERM)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, handler)
        stack.enter_context(mock.patch.object(sys, "argv", list(map(str, command))))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        if not montage:
            stack.enter_context(mock.patch.object(script, "write_montage"))
        left = stack.enter_context(pytest.raises(SystemExit))
        run_script(script.main)
    return SimpleNamespace(status=left.value.code, out=out.getvalue(), err=err.getvalue())


def done(root, output, *options):
    """Run the script to the end and return what it wrote."""
    result = preprocess(root, output, *options)
    assert (result.status, result.err) == (0, "")
    return content(output)


def content(folder):
    """All files of a folder that count: path -> bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


def metadata_of(output):
    return json.loads((output / "metadata.json").read_text())


@contextlib.contextmanager
def changed_annotations(root, split):
    """Give the content of a split's JSON to be changed; write it back."""
    path = root / "annotations" / f"instances_{split}.json"
    listed = json.loads(path.read_text())
    yield listed
    path.write_text(json.dumps(listed))


def damage(path, header=False):
    """Cut an image in half, or spoil its header too; return what it was."""
    whole = path.read_bytes()
    path.write_bytes(b"no image" if header else whole[: len(whole) // 2])
    return whole


def note_reads(monkeypatch):
    """Return the list to which the name of every micrograph is added when it is read."""
    read, names = micrographs.read_micrograph, []

    def noted(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(micrographs, "read_micrograph", noted)
    return names
