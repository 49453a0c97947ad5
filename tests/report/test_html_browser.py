"""The page in headless Chromium: no errors, no requests; mouse, keyboard, dark colours, narrow screens."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hypvl.cli.report import main
from tests.report.pages import CAPTIONS, HOSTILE, run_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of a MERU beside a CLIP, and of the CLIP."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {kind: run_folder(folder / kind, kind) for kind in ("meru", "clip")}
    common = ["--device", "cpu", "--num-workers", "0", "--traversals", "1"]
    pool = folder / "pool.json"
    pool.write_text('["a square", "a red square"]')
    common += ["--text-pool", str(pool)]
    assert main(["--run", str(runs["clip"]), *common]) == 0
    assert main(["--run", str(runs["meru"]), "--compare", str(runs["clip"]), *common]) == 0
    return {kind: run / "report.html" for kind, run in runs.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page, with what it wrote to the console and asked the network for."""

    def __init__(self, browser: Any, path: Path, *, width: int = 1100, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()
        outside = [url for url in self.requests if not url.startswith(("file:", "data:"))]
        assert (self.messages, outside) == ([], [])


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.locator(selector).all_inner_texts()
    return found


def test_three_questions_are_answered_and_every_part_is_there(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["meru"]) as opened:
        page = opened.page
        assert texts(page, "h2")[:3] == [
            "Is the geometry curved?",
            "Is text above image?",
            "Which queries fail?",
        ]
        assert page.locator(".answer").count() == 3
        heads = texts(page, "h3")
        for part in (
            "The Poincaré disk",
            "Radii",
            "The gap on a sphere",
            "Traversals",
            "Text to image",
            "loss",
        ):
            assert part in heads
        assert {"squares", "meru", "clip"} <= set(texts(page, "#results th"))
        assert texts(page, ".others dt") == ["clip"] * 3
        assert "No curvature" in page.locator(".others dd").first.inner_text()
        assert "no <data>" in page.locator("#results .missing").inner_text()
        assert page.evaluate("window.broken") is None  # the hostile caption
        assert HOSTILE.replace("\u2028", "") in page.evaluate(
            "document.body.textContent.replaceAll('\\u2028', '')"
        )


def test_pointing_shows_image_and_caption(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["meru"]) as opened:
        point = opened.page.locator(".point.image").first
        point.scroll_into_view_if_needed()
        point.hover(force=True)
        tip = opened.page.locator("#tip")
        assert tip.is_visible()
        assert any(text in tip.inner_text() for _, text in CAPTIONS.values())
        assert tip.locator("img").evaluate("image => image.complete && image.naturalWidth") > 0


def test_the_keyboard_reaches_points_and_draws_a_cone(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["meru"]) as opened:
        page = opened.page
        page.locator(".point[tabindex='0']").focus()
        assert page.locator("#tip").is_visible()
        before = page.evaluate("document.activeElement.dataset.point")
        for key in ("ArrowLeft", "ArrowDown", "ArrowRight", "ArrowUp"):
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.point") is not None
        page.locator(".point.text").nth(1).focus()
        assert page.evaluate("document.activeElement.dataset.point") != before
        assert page.evaluate("getComputedStyle(document.activeElement.firstChild).strokeWidth") == "2px"
        page.keyboard.press("Enter")
        wedge = page.locator(".wedge")
        assert wedge.count() == 1
        width = wedge.evaluate("path => path.getBBox().width")
        assert width > 5
        assert "half aperture" in page.locator(".panel").inner_text()
        zoomed = page.locator(".disk > g").get_attribute("transform")
        page.keyboard.press("+")
        assert page.locator(".disk > g").get_attribute("transform") != zoomed
        page.keyboard.press("Escape")
        assert wedge.count() == 0


def test_dragging_moves_the_disk_and_the_wheel_zooms_once_it_is_pressed(
    browser: Any, pages: dict[str, Path]
) -> None:
    with Opened(browser, pages["meru"]) as opened:
        page = opened.page
        page.locator(".disk").scroll_into_view_if_needed()
        box = page.locator(".disk").bounding_box()
        x, y = box["x"] + 12, box["y"] + 12
        transforms = [page.locator(".disk > g").get_attribute("transform")]
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 60, y + 30, steps=3)
        page.mouse.up()
        transforms.append(page.locator(".disk > g").get_attribute("transform"))
        scrolled = page.evaluate("scrollY")
        page.mouse.wheel(0, -120)
        page.wait_for_function(
            "before => document.querySelector('.disk > g').getAttribute('transform') !== before",
            arg=transforms[1],
        )
        transforms.append(page.locator(".disk > g").get_attribute("transform"))
        assert len(set(transforms)) == 3 and page.evaluate("scrollY") == scrolled
        page.get_by_role("button", name="Reset").click()
        assert page.locator(".disk > g").get_attribute("transform") == transforms[0]


def test_a_text_chosen_from_the_list_is_selected(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["meru"]) as opened:
        page = opened.page
        page.select_option("#disk-text", index=1)
        assert page.locator(".point.selected.text").count() == 1
        assert page.locator(".wedge").count() == 1
        shown = int(
            page.locator(".facts", has_text="images in the cone")
            .inner_text()
            .split("images in the cone")[1]
            .split()[0]
        )
        assert page.locator(".point.image.inside").count() == shown


def test_clip_is_a_plain_projection_without_cones(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["clip"]) as opened:
        page = opened.page
        assert "plain projection" in page.locator("#disk figcaption").inner_text()
        assert texts(page, ".answer .badge")[:2] == ["● No curvature", "● No root"]
        walk = page.locator(".block", has=page.get_by_role("heading", name="Traversals")).inner_text()
        assert "towards the mean embedding, as the space has no root: the closest" in walk
        assert "distance from the mean embedding." in walk and "[ROOT]" not in walk
        page.select_option("#disk-text", index=1)
        assert (page.locator(".wedge").count(), page.locator(".edge").count()) == (0, 0)


def pixels(page: Any, selector: str, path: Path) -> np.ndarray:
    page.locator(selector).first.screenshot(path=path)
    return np.asarray(Image.open(path).convert("L"), dtype=np.float64)


def test_pictures_are_drawn_and_the_sphere_turns(
    browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    with Opened(browser, pages["meru"]) as opened:
        page = opened.page
        for selector in ("#disk svg.disk", ".chart", ".sphere"):
            assert pixels(page, selector, tmp_path / "shot.png").std() > 5, selector
        before = pixels(page, ".sphere", tmp_path / "shot.png")
        page.locator(".sphere").focus()
        page.keyboard.press("ArrowRight")
        after = pixels(page, ".sphere", tmp_path / "shot.png")
        assert np.abs(after - before).mean() > 0.5


def test_dark_colours_by_preference_and_by_the_switch(browser: Any, pages: dict[str, Path]) -> None:
    background = "getComputedStyle(document.documentElement).backgroundColor"
    with Opened(browser, pages["meru"], scheme="dark") as opened:
        assert opened.page.evaluate(background) == "rgb(18, 22, 28)"
        opened.page.locator("#theme").click()
        assert opened.page.evaluate(background) == "rgb(255, 255, 255)"
    with Opened(browser, pages["meru"]) as opened:
        assert opened.page.evaluate(background) == "rgb(255, 255, 255)"


def test_a_phone_needs_no_horizontal_scrolling(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["meru"], width=375) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert opened.page.evaluate("document.documentElement.scrollWidth") == 375
        for table in opened.page.locator("#results .scroll").all():  # nor do the results
            assert table.evaluate("box => box.scrollWidth <= box.clientWidth")
