"""Planting a defect in a function of an adapter, by way of pytest's monkeypatch."""


def argument(module, name, change):
    """The function is given something else as its first argument."""

    def plant(patch):
        original = getattr(module, name)
        patch.setattr(module, name, lambda first, *rest: original(change(first), *rest))

    return plant


def result(module, name, change):
    """The function gives something else."""

    def plant(patch):
        original = getattr(module, name)
        patch.setattr(module, name, lambda *arguments: change(original(*arguments)))

    return plant
