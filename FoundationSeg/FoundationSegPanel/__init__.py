"""The widgets of the module FoundationSeg; the only place with Qt beside the module's own file."""
