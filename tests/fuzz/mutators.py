"""Strategies that damage good input: bytes, lines of text, nested values, arrays."""

import copy
import json

import numpy as np
from hypothesis import strategies as st

HOSTILE_NAMES = (
    "../../out", "/etc/passwd", "..", ".", "", "a\nb", "a\x00b", "\ud800", "a" * 300, "C:\\x", "ü",
    "$(touch x)", "a b'\"",
)  # fmt: skip
ODD_NUMBERS = (
    0, -1, 1, 2, -0.0, 0.5, 1e-300, 1e9, 1e30, 1e308, 2**31, 2**63, 10**30, -(2**63), 10**400,
    float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
ODD_VALUES = (
    None, True, False, *ODD_NUMBERS, *HOSTILE_NAMES, "1e5", "nan", [], {}, [[]], [None], {"a": 1},
    [1, 2], list(range(50)), "x" * 100_000,
)  # fmt: skip
ODD_WORDS = (
    "", "nan", "inf", "-inf", "1e400", "-1", "0", "1e308", "1e-320", "9" * 5000, "0x10", "1_0",
    "None", "'", '"', "#", "\t", "\x00", "_", "loop_", "data_", "_rlnCoordinateX", "ü", "a b",
    "1,2,3", "\ufeff", "\u2028", "\r", "x" * 200_000, "'a", "=1", "١",
)  # fmt: skip


@st.composite
def damaged_bytes(draw, whole, hot=None):
    """Bytes with up to three faults: cut, flipped, zeroed, repeated, inserted, swapped.

    hot: length of the beginning where half of the faults lie, such as a header's.
    """
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        end = len(content)
        if hot and draw(st.booleans()):
            end = min(hot, end)
        at = draw(st.integers(0, max(0, end - 1)))
        length = draw(st.sampled_from((1, 2, 4, 8, 64, 1000)))
        fault = draw(st.sampled_from(("cut", "flip", "word", "zero", "repeat", "insert", "drop")))
        if fault == "cut":
            del content[at:]
        elif fault == "flip":
            for i in range(at, min(at + draw(st.integers(1, 4)), len(content))):
                content[i] ^= 1 << draw(st.integers(0, 7))
        elif fault == "word":
            value = draw(st.sampled_from((-1, 0, 1, 2**15, 2**31 - 1, -(2**31), 30_000, 2**24)))
            order = draw(st.sampled_from(("little", "big")))
            at -= at % 4
            content[at : at + 4] = value.to_bytes(4, order, signed=True)
        elif fault == "zero":
            content[at : at + length] = bytes(len(content[at : at + length]))
        elif fault == "repeat":
            content[at:at] = content[at : at + length]
        elif fault == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            del content[at : at + length]
    return bytes(content)


@st.composite
def damaged_text(draw, whole):
    """Text, as bytes, with odd words and lines lost, doubled or moved; sometimes odd bytes too."""
    lines = whole.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 3))):
        if not lines:
            break
        at = draw(st.integers(0, len(lines) - 1))
        fault = draw(st.sampled_from(("word", "word", "lose", "double", "move", "break", "bytes")))
        if fault == "word":
            words = lines[at].replace(",", " , ").replace("\t", " \t ").split(" ")
            place = draw(st.integers(0, len(words) - 1))
            words[place] = draw(st.sampled_from(ODD_WORDS))
            lines[at] = " ".join(words).replace(" , ", ",").replace(" \t ", "\t")
        elif fault == "lose":
            del lines[at : at + draw(st.sampled_from((1, 2, len(lines))))]
        elif fault == "double":
            lines[at:at] = [lines[at]] * draw(st.sampled_from((1, 2, 20)))
        elif fault == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
        elif fault == "break":
            end = draw(st.sampled_from(("\r", "\r\n", "\x0c", "\x85", "", "\n\n", "\x1c")))
            lines[at] = lines[at].rstrip("\n") + end
        else:
            return draw(damaged_bytes("".join(lines).encode(errors="surrogatepass")))
    return "".join(lines).encode(errors="surrogatepass")


def _places(tree, path=()):
    """The paths of all nodes of nested dictionaries and lists, the root first."""
    items = []
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, list):
        items = list(enumerate(tree))
    return [path, *(place for key, value in items for place in _places(value, (*path, key)))]


@st.composite
def damaged_tree(draw, whole, odd=ODD_VALUES):
    """Nested dictionaries and lists with up to three nodes changed, lost, doubled or swapped."""
    tree = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(tree)
        shallow = [place for place in places if len(place) < 3]
        path = draw(st.sampled_from(draw(st.sampled_from((places, shallow)))))
        if not path:
            if draw(st.integers(0, 9)) == 0:  # seldom: nothing else is left of the tree
                return draw(st.sampled_from(odd))
            continue
        node = tree
        for key in path[:-1]:
            node = node[key]
        fault = draw(st.sampled_from(("change", "change", "change", "lose", "double", "swap")))
        if fault == "change":
            node[path[-1]] = copy.deepcopy(draw(st.sampled_from(odd)))
        elif fault == "lose":
            del node[path[-1]]
        elif fault == "double" and isinstance(node, list):
            node.insert(path[-1], copy.deepcopy(node[path[-1]]))
        elif fault == "double":
            name = draw(st.sampled_from(("extra", "a\nb", "")))
            node[name] = copy.deepcopy(node[path[-1]])
        else:
            other = tree
            for key in draw(st.sampled_from(places)):
                other = other[key]
            node[path[-1]] = copy.deepcopy(other)
    return tree


@st.composite
def damaged_array(draw, whole):
    """An array of another type, shape or with odd values."""
    array = whole
    for _ in range(draw(st.integers(1, 2))):
        fault = draw(st.sampled_from(("type", "shape", "value", "cut", "empty", "scalar", "grow")))
        if fault == "type":
            kind = draw(
                st.sampled_from(
                    ("f2", "f8", "i1", "i8", "u8", "?", "c8", "U3", "S2", "M8[s]", ">i4")
                )
            )
            numbers = array.dtype.kind in "fiub" and kind != "M8[s]"
            with np.errstate(all="ignore"):
                array = array.astype(kind) if numbers else np.zeros(array.shape, kind)
        elif fault == "shape":
            array = array.reshape(
                draw(st.sampled_from(((-1,), (1, -1), (-1, 1), array.shape[::-1])))
            )
        elif fault == "value" and array.size and array.dtype.kind in "fiub":
            array = array.copy()
            value = draw(st.sampled_from((-1, 2, 99, 255, 1e30, float("nan"), float("inf"))))
            at = draw(st.integers(0, array.size - 1))
            with np.errstate(all="ignore"):
                array.flat[at] = np.float64(value).astype(array.dtype)
        elif fault == "cut" and array.ndim:
            array = array[: draw(st.integers(0, len(array)))]
        elif fault == "empty":
            array = array[:0] if array.ndim else array
        elif fault == "scalar":
            array = np.zeros((), array.dtype)
        elif array.ndim and array.size:
            array = np.concatenate([array, array[-1:]])
    return array


def damaged_json(whole):
    """The bytes of a JSON file with other content, or spoilt as a file."""
    as_tree = damaged_tree(json.loads(whole)).map(lambda tree: json.dumps(tree).encode())
    return st.one_of(as_tree, as_tree, damaged_bytes(whole))
