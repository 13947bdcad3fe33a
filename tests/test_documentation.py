"""What README and documentation tell people to type can be typed, and the site builds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from discreet.cli.modes import MODES

ROOT = Path(__file__).parents[1]
PAGES = [p for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")) if p.name != "command-line.md"]
_FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Every `discreet …` line of the page's code, continued lines joined."""
    blocks = _FENCE.findall(page.read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.split(" #")[0] for line in lines if re.match(r"discreet \w", line)]


def arguments_of(mode: str) -> set[str]:
    return {name for rows in MODES[mode].rows().values() for name, _, _ in rows}


TYPED = [(page, line) for page in PAGES for line in commands(page)]


def test_there_is_something_to_type():
    assert len(TYPED) > 20


@pytest.mark.parametrize(
    ("page", "line"), TYPED, ids=[f"{page.name}: {line[:40]}" for page, line in TYPED]
)
def test_commands_name_known_modes_and_arguments(page: Path, line: str):
    _, word, *arguments = shlex.split(line)
    mode = MODES[word]
    known = arguments_of(word)
    if "…" in known:  # and all those of train
        known |= arguments_of("train")
    for argument in arguments:
        if "=" in argument:
            assert argument.lstrip("-").split("=")[0] in known, argument
        else:
            assert argument.startswith("--") or mode.takes_word, argument


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path):
    pytest.importorskip("sphinx")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "--fail-on-warning", "-q", "docs", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "reference" / "python.html").read_text(encoding="utf-8")
    assert "discreet.PrivateYOLO.train" in page
    # Nothing on a page is fetched from elsewhere.
    for html in tmp_path.rglob("*.html"):
        fetched = (
            r"<(?:script|img|iframe)[^>]+src=\"https?:|<link[^>]+stylesheet[^>]+href=\"https?:"
        )
        assert not re.search(fetched, html.read_text(encoding="utf-8")), html.name


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("DISCREET_LEDGER", str(tmp_path / "ledger.sqlite"))
    monkeypatch.setenv("DISCREET_KEY", str(tmp_path / "key.pem"))
    notebook = nbformat.read(ROOT / "docs" / "demo.ipynb", as_version=4)
    kernel = client.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    kernel.execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert "True 7.9" in printed
