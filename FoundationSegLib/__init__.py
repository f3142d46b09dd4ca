"""FoundationSeg's logic layer: foundation models, prompts and segmentations, without Qt.

Importing this package imports nothing else; take what you need from its sub-packages.
"""

__version__ = "0.1.0"
