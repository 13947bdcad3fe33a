"""The documentation: `make docs` builds it into build/docs, without network."""

from discreet import __version__

project = "discreet"
author = "the discreet developers"
copyright = "the discreet developers, AGPL-3.0-or-later"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["README.md"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "separated"
napoleon_use_rtype = False

html_theme = "furo"
html_title = "discreet"
html_copy_source = False
html_show_sphinx = False


def write_command_line(_app: object) -> None:
    """Make the page of the command line from the program's own help."""
    from pathlib import Path

    from discreet.cli import helping
    from discreet.cli.modes import MODES

    pages = [
        f"## discreet {mode.name}\n\n```text\n{helping.page(mode)}\n```\n"
        for mode in MODES.values()
    ]
    text = "# Command line\n\nThe pages of `discreet help MODE`.\n\n" + "\n".join(pages)
    Path(__file__).parent.joinpath("reference", "command-line.md").write_text(
        text, encoding="utf-8"
    )


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_command_line)  # type: ignore[attr-defined]
