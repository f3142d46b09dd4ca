"""How a number of bytes reads, everywhere."""


def bytes_text(count: int) -> str:
    """A number of bytes, short: ``812 B``, ``6 kB``, ``37 MB``, ``1.2 GB``."""
    if count >= 999.5e6:
        return f"{count / 1e9:.1f} GB"
    if count >= 999.5e3:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e3:.0f} kB" if count >= 1000 else f"{count} B"
