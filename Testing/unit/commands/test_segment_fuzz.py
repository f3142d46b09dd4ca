"""Whatever stands in a prompts file, the command understands it or says on one line where it does not."""

import copy
import json
import random
import re


def places_of(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_of(inner, (*path, step))


def changed(document, path, value):
    if not path:
        return value
    twin = copy.deepcopy(document)
    parent = twin
    for step in path[:-1]:
        parent = parent[step]
    if value is KeyError:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return twin


def shown_place(path):
    return re.sub(r"\.?\[", "[", ".".join(f"[{step}]" if isinstance(step, int) else step for step in path))


GARBAGE = [KeyError, None, True, -1, 1.5, 1e308, float("nan"), float("inf"), "", "x", [], {}, [0, 0, 0], [[]], {"x": 1}]


def test_every_malformed_field_of_the_prompts_is_refused_and_named(desk):
    """Each value of a document by each kind of garbage: refused with its place, or understood; never anything else."""
    document = desk.document("Left")
    document["segments"][0]["prompts"][0] |= {"polarity": "positive", "plane": "k"}
    refused = 0
    for path in places_of(document):
        for value in GARBAGE:
            broken = changed(document, path, value) if path or value is not KeyError else []
            code = desk.segment(prompts=desk.write_prompts(broken))
            if code == 0:
                desk.output.unlink()
                continue
            refused += 1
            desk.assert_refused(2)
            around = shown_place(path[:4] if "corners" in path else path[:-1])  # of two corners, which one is wrong?
            assert around in desk.err, (path, value, desk.err)
    assert refused > 200


def test_broken_prompts_files_of_any_kind_are_refused(desk):
    text = json.dumps(desk.document()).encode()
    chance = random.Random(4)
    for _ in range(60):
        broken = bytearray(text)
        for _ in range(chance.randint(1, 3)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        desk.prompts.write_bytes(broken[: chance.choice((len(text), chance.randrange(len(text))))])
        code = desk.segment()
        assert code in (0, 2)
        if code:
            desk.assert_refused(2)
        else:
            desk.output.unlink()
