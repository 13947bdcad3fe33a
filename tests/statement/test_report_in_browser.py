"""The report in Chromium: fits narrow and wide screens, asks for nothing, is accessible."""

from __future__ import annotations

import io
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from discreet.statement.report import render_report

from .conftest import FULL_BATCH, record_of
from .figures import validation_figures
from .test_report import CHECK, public_record

CHROMIUM = shutil.which("chromium")
LANGUAGES = {"en": "How private this detector is", "zh-CN": "这个检测模型的隐私保护程度"}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, Debian's package")

_BEYOND_THE_EDGE = """() => [...document.querySelectorAll('.page *')]
    .filter(e => e.checkVisibility() && !e.closest('svg'))
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map(e => e.tagName + '.' + e.className)"""


@pytest.fixture(scope="module")
def browser() -> Generator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox"],  # the only page is ours, and CI is root
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A rich report, one of a run without any bound, and one with names that are hard to fit."""
    long = "n" * 300
    hard = public_record(
        configuration={long: long},
        check=CHECK | {"passed": False, "probes": [{"name": "norms", "verdict": "failed"}]},
    )
    folder = tmp_path_factory.mktemp("reports")
    made = {
        "rich": render_report(public_record(), validation_figures()),
        "unbounded": render_report(
            record_of(FULL_BATCH.model_copy(update={"noise_multiplier": 0.0}))
        ),
        "hard": render_report(hard, validation_figures(long, "<b>&")),
    }
    for name, html in made.items():
        (folder / f"{name}.html").write_bytes(html)
    return {name: folder / f"{name}.html" for name in made}


class Visit:
    """A page that was opened, with all that it asked for or complained about."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_context(**context).new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["rich", "unbounded", "hard"])
def test_it_fits_is_quiet_and_accessible(
    browser: Any, reports: dict[str, Path], name: str, language: str, width: int, scheme: str
):
    from axe_playwright_python.sync_playwright import Axe

    address = f"{reports[name].as_uri()}#{language}"
    viewport = {"width": width, "height": 800}
    with Visit(browser, address, viewport=viewport, color_scheme=scheme) as visit:
        page = visit.page
        assert page.locator("h1:visible").all_inner_texts() == [LANGUAGES[language]]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(_BEYOND_THE_EDGE) == []
        assert visit.complaints == []
        asked = [url for url in visit.requests if not url.startswith("data:image/jpeg;")]
        assert asked == [reports[name].as_uri()]
        found = Axe().run(page).response["violations"]
        assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found] == []


def test_the_language_changes_without_a_script(browser: Any, reports: dict[str, Path]):
    with Visit(browser, reports["rich"].as_uri(), java_script_enabled=False) as visit:
        heading = visit.page.locator("h1:visible")
        assert heading.all_inner_texts() == [LANGUAGES["en"]]
        visit.page.get_by_role("link", name="中文").click()
        assert heading.all_inner_texts() == [LANGUAGES["zh-CN"]]
        assert visit.page.locator("ul.samples:visible svg").count() == 2
        visit.page.get_by_role("link", name="English").click()
        assert heading.all_inner_texts() == [LANGUAGES["en"]]


def test_pictures_are_drawn(browser: Any, reports: dict[str, Path]):
    with Visit(browser, reports["rich"].as_uri()) as visit:
        shown = visit.page.locator("ul.samples:visible svg").first
        with Image.open(io.BytesIO(shown.screenshot())) as picture:
            pixel = picture.convert("RGB").getpixel((picture.width - 8, picture.height - 8))
        assert all(abs(a - b) < 6 for a, b in zip(pixel, (140, 120, 90), strict=True))


def test_a_browser_would_refuse_what_somebody_put_in(browser: Any, tmp_path: Path):
    html = render_report(public_record()).replace(
        b"</body>",
        b"<script>document.title = 'taken'</script><img src='other.png' alt=''></body>",
    )
    (tmp_path / "spoilt.html").write_bytes(html)
    with Visit(browser, (tmp_path / "spoilt.html").as_uri()) as visit:
        assert visit.page.title() != "taken"
        assert len([text for text in visit.complaints if "Content Security" in text]) == 2
