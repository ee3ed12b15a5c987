"""docs/index.html in Chromium: every link and fold at three widths, light and dark."""

import os
import shutil
from base64 import b64decode
from pathlib import Path

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="it drives Chromium")
BROWSER = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium with chromedriver on this machine"
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "index.html"
WIDTHS = [1600, 1024, 390]
HEIGHT = 900
FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # root cannot have one
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    browser = webdriver.Chrome(options=options, service=service)
    browser.set_script_timeout(120)
    yield browser
    browser.quit()


@pytest.fixture
def load(browser):
    """Opens the page at a width; at the end, the console must be empty."""

    def load(width, dark=False):
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1}
        size["mobile"] = width < 500
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get("about:blank")
        browser.get(PAGE.as_uri())
        return browser

    yield load
    assert browser.get_log("browser") == []


# Clicks in the page: an element must be what lies at its own middle, as for a mouse.
CLICK = """
    const done = arguments[0], problems = [];

    async function click(element) {
        element.scrollIntoView({block: 'center'});
        const [box] = element.getClientRects();
        const x = box.left + box.width / 2, y = box.top + box.height / 2;
        if (!element.contains(document.elementFromPoint(x, y)))
            problems.push(element.outerHTML + ' cannot be hit');
        element.click();
        await new Promise(requestAnimationFrame);
    }
"""


def open_folds(browser):
    script = "document.querySelectorAll('details').forEach(fold => fold.open = true)"
    browser.execute_script(script)


def overflow(browser):
    """What is wider than the window: by how much the page is, and which elements are.

    A formula, which does not break within, must not be wider than its column either.
    """
    return browser.execute_script("""
        const {scrollWidth, clientWidth} = document.documentElement;
        const right = element => element.getBoundingClientRect().right - 0.5;
        const wide = [...document.querySelectorAll('body *')].filter(element =>
            element.checkVisibility() && (right(element) > clientWidth ||
            element.matches('math') && right(element) > right(element.parentElement)));
        return [scrollWidth - clientWidth, wide.map(e => e.outerHTML.slice(0, 80))];
    """)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_fold_opens_and_shuts_and_nothing_is_wider_than_the_window(load, width):
    browser = load(width)
    assert overflow(browser) == [0, []]
    toggle = (
        CLICK
        + """
        (async () => {
            const folds = [...document.querySelectorAll('details')];
            const before = folds.map(fold => fold.open);
            for (const fold of folds) await click(fold.querySelector('summary'));
            const shown = folds.map(fold => fold.querySelector('pre:last-of-type'))
                .map(pre => pre.checkVisibility());
            done([before, folds.map(fold => fold.open), shown, problems]);
        })();
    """
    )
    before, after, shown, problems = browser.execute_async_script(toggle)
    assert len(before) > 20 and problems == []
    assert not any(before) and all(after) and all(shown)
    assert overflow(browser) == [0, []]
    before, after, shown, problems = browser.execute_async_script(toggle)
    assert problems == []
    assert all(before) and not any(after) and not any(shown)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_link_leads_to_a_place_that_can_be_seen(load, width):
    browser = load(width)
    links, problems = browser.execute_async_script(
        CLICK
        + """
        const links = [];

        async function follow(link, goal) {
            await click(link);
            if (location.hash != goal) return 'does not lead there';
            const target = document.querySelector(':target');
            if (!target) return 'leads nowhere';
            const {left, top, height} = target.getBoundingClientRect();
            if (!height) return 'leads to what is hidden';
            const hit = document.elementFromPoint(left + 20, Math.max(top, 0) + 60);
            const line = target.matches('span');
            const seen = line ? document.elementFromPoint(left + 2, top + 2) : hit;
            if (!seen || !target.contains(seen)) return 'leads to what cannot be seen';
        }

        (async () => {
            for (const link of document.querySelectorAll('a:not(.skip)')) {
                links.push(link.href);
                const goal = link.getAttribute('href');
                const problem = goal.startsWith('#') && await follow(link, goal);
                if (problem) problems.push(link.outerHTML + ' ' + problem);
            }
            done([links, problems]);
        })();
        """
    )
    assert len(links) > 100
    assert problems == []
    for link in links:
        path = Path(link.removeprefix("file://").partition("#")[0])
        assert path.is_file(), link


@pytest.mark.parametrize("width", WIDTHS)
def test_lines_stand_beside_each_other_or_on_narrow_screens_below(load, width):
    browser = load(width)
    open_folds(browser)
    tops = browser.execute_script("""
        return [...document.querySelectorAll('.columns')].map(columns =>
            [...columns.children].map(pre => [...pre.children]
                .filter(line => line.checkVisibility({visibilityProperty: true}))
                .map(line => line.getBoundingClientRect())
                .map(box => [box.left, box.top, box.bottom])));
    """)
    for old, new in tops:
        if width > 500:
            assert len(old) == len(new)
            for (left, *above), (right, *beside) in zip(old, new):
                assert left + 300 < right and above == pytest.approx(beside, abs=0.5)
        elif old and new:
            assert old[0][0] == new[0][0] and old[-1][2] <= new[0][1] + 0.5
        for lines in (old, new):
            for (_, _, bottom), (_, top, _) in zip(lines[:-1], lines[1:]):
                assert top == pytest.approx(bottom, abs=0.5)


@pytest.mark.parametrize("width", [1600, 1024])
def test_the_pseudocode_stands_beside_the_code_while_one_scrolls(load, width):
    browser = load(width)
    for name in ("reinforce", "ppo_clip"):
        places = browser.execute_script(
            """
            const reader = document.getElementById(arguments[0]);
            const code = reader.querySelector('.code');
            const aside = reader.querySelector('aside .pseudocode');
            const {top, height} = code.getBoundingClientRect();
            return [0.2, 0.5, 0.8].map(part => {
                scrollTo(0, scrollY + code.getBoundingClientRect().top + part * height);
                const box = aside.getBoundingClientRect();
                return [box.left, box.right, code.getBoundingClientRect().left,
                        box.top, box.bottom];
            });
            """,
            f"alone-{name}",
        )
        for left, right, code, top, bottom in places:
            assert 0 < left < right <= code
            assert 40 < top < bottom < HEIGHT


def test_the_keyboard_reaches_links_and_folds(load):
    browser = load(1024)

    def press(key):
        browser.switch_to.active_element.send_keys(key)
        return browser.switch_to.active_element

    focus = browser.find_element("tag name", "body")
    focus.send_keys("\ue004")  # Tab
    focus = browser.switch_to.active_element
    assert focus.text.startswith("Skip") and focus.location["x"] >= 0
    press("\ue007")  # Enter
    assert browser.current_url.endswith("#step-vpg_baseline")
    for _ in range(40):
        focus = press("\ue004")
        if focus.tag_name == "summary":
            break
    fold = focus.find_element("xpath", "..")
    assert fold.get_attribute("open") is None
    press("\ue007")
    assert fold.get_attribute("open") is not None


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_behind_it(load, dark):
    """A contrast of 4.5 at least, for every pair of colours on the page (WCAG's AA)."""
    browser = load(1024, dark)
    open_folds(browser)
    paper = browser.execute_script(
        "return getComputedStyle(document.body).backgroundColor"
    )
    assert luminance(paper) < 0.05 if dark else luminance(paper) > 0.9
    pairs = browser.execute_script("""
        const pairs = {};
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            if (!walker.currentNode.data.trim()) continue;
            let behind = walker.currentNode.parentElement;
            const color = getComputedStyle(behind).color, text = behind.outerHTML;
            while (getComputedStyle(behind).backgroundColor == 'rgba(0, 0, 0, 0)')
                behind = behind.parentElement;
            pairs[color + '|' + getComputedStyle(behind).backgroundColor] =
                text.slice(0, 60);
        }
        return pairs;
    """)
    assert len(pairs) > 15
    for pair, text in pairs.items():
        low, high = sorted(luminance(colour) for colour in pair.split("|"))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{pair}: {text}"


def luminance(colour):
    parts = [int(x) / 255 for x in colour.removeprefix("rgb(").rstrip(")").split(",")]
    parts = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_it_prints_without_the_row_of_steps_and_within_the_page(load):
    browser = load(1047)  # A4 across, less the margins
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not browser.find_element("tag name", "nav").is_displayed()
    assert overflow(browser) == [0, []]
    options = {"preferCSSPageSize": True, "printBackground": True}
    pdf = b64decode(browser.execute_cdp_cmd("Page.printToPDF", options)["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 100_000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
