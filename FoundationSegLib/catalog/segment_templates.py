"""Templates: lists of segment names, with codes and colours, that come along or are the user's own."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import CardError, InputError, OutputError, write_failure
from ..folders import replace_text, user_folder
from .resource_files import build, check, existing_folder, read_toml, resource_folder, toml_files, toml_text

TEMPLATES_VARIABLE = "FOUNDATIONSEG_SEGMENT_TEMPLATES"
_LARGEST_FILE = 1_000_000  # bytes


@dataclass(frozen=True, slots=True)
class TemplateSegment:
    """A segment to be made.

    Attributes:
        name: as the user sees it; a name that is known brings its code and its colour.
        color: red, green and blue, 0 to 255, in place of the colour of the name.
        terminology: the code as Slicer writes it, in place of the code of the name.
    """

    name: str
    color: tuple[int, ...] = ()
    terminology: str = ""


@dataclass(frozen=True, slots=True)
class SegmentTemplate:
    """Segments that are made together; ``id`` is the name of its file, ``title`` that in a panel."""

    id: str
    title: str
    segments: tuple[TemplateSegment, ...]

    def __post_init__(self) -> None:
        """Check names and colours."""
        names = [segment.name.strip() for segment in self.segments]
        check(names and all(names), f"{self.id}: a template needs segments, each with a name")
        check(len(set(names)) == len(names), f"{self.id}: a name stands twice")
        colours = [segment.color for segment in self.segments if segment.color]
        is_rgb = all(len(color) == 3 and all(0 <= level <= 255 for level in color) for color in colours)
        check(is_rgb, f"{self.id}: a colour is red, green and blue, each from 0 to 255")


def user_template_folder() -> Path:
    """The folder of the user's own templates, whether it exists or not."""
    return user_folder("config", TEMPLATES_VARIABLE, "FoundationSeg/segment-templates")


def read_templates() -> dict[str, SegmentTemplate]:
    """Every template by its id: those that come along, then the user's own, which take the place of others.

    Raises:
        InputError: a file is no template; the message names it.
    """
    try:
        paths = toml_files(resource_folder("SegmentTemplates"), "template")
        own = existing_folder(user_template_folder(), TEMPLATES_VARIABLE)
        paths += toml_files(own, "template") if own is not None else []
        documents = ((path.name, read_toml(path, path.name, "template", _LARGEST_FILE)) for path in paths)
        templates = [build(SegmentTemplate, document, name) for name, document in documents]
    except CardError as error:
        raise InputError(str(error)) from error
    return {template.id: template for template in templates}


def save_template(title: str, segments: tuple[TemplateSegment, ...]) -> Path:
    """Keep a template of the user's own, in place of one of the same title. Returns its file.

    Raises:
        InputError: the title has no letter, or there are no segments.
        OutputError: the file cannot be written; one that is there stays.
    """
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60]
    if not name:
        raise InputError("Give the template a title with letters or digits.")
    try:
        text = toml_text(SegmentTemplate(name, title, segments))
    except CardError as error:
        raise InputError(str(error)) from error
    path = user_template_folder() / f"{name}.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {path.parent} cannot be made: {write_failure(error)}") from error
    replace_text(path, text)
    return path
