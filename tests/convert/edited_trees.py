"""Trees of dicts and lists with a few parts changed, as hypothesis draws them."""

import copy

from hypothesis import strategies as st

NUMBERS = st.integers() | st.integers(-3, 9) | st.sampled_from([2**31, 2**53, 2**63, 2**64, 1e400])
PLAIN = st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=5)
JSON = PLAIN | st.lists(PLAIN, max_size=4) | st.dictionaries(st.text(max_size=5), PLAIN, max_size=3)


def places(value, path=()):
    """Every part of a tree of dicts and lists, by the keys that lead to it."""
    yield path
    pairs = enumerate(value) if isinstance(value, list) else ()
    for key, part in value.items() if isinstance(value, dict) else pairs:
        yield from places(part, (*path, key))


@st.composite
def edited(draw, content, values=JSON):
    """A tree with up to three parts replaced, removed, or put in each other's place."""
    tree = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        *path, key = draw(st.sampled_from([place for place in places(tree) if place] or [("",)]))
        parent = tree
        for step in path:
            parent = parent[step]
        kind = draw(st.sampled_from(["replace", "remove", "move"]))
        if kind == "replace" or key == "":
            parent[key] = draw(values)
        elif kind == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(sorted(parent, key=repr)) | st.text(max_size=3))] = parent[
                key
            ]
    return tree
