"""The report in a real browser: nothing fetched, no error, no serious fault for a screen reader, in both themes."""

import pytest

from litsexp.evidence import report, search_page

from ..browser import browser, needs_axe, needs_browser
from .test_search_page import TRIALS

pytestmark = needs_browser
FIRST_COLUMN = (
    "[...document.querySelectorAll('#arms tbody tr')].map(row => row.cells[0].innerText.split('\\\\n')[0].trim())"
)


@pytest.fixture(scope="module")
def opened(shown_elsewhere, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    path = report.write_report(shown_elsewhere, folder / "report.html")
    with browser(folder / "profile") as browse:
        page = browse(path.as_uri())
        page.wait("document.readyState === 'complete' && !!document.querySelector('th button')")
        yield page


def test_the_page_fetches_nothing_and_says_no_error(opened):
    opened.ask("1")
    asked = [
        event["params"]["request"]["url"] for event in opened.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert len([url for url in asked if url.startswith("file://")]) == 1
    said = [event for event in opened.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
    assert said == []


def test_a_script_that_is_not_the_pages_own_does_not_run(opened):
    opened.ask(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.foreign = 1'}))"
    )
    assert opened.ask("window.foreign") is None
    opened.events.clear()  # the browser says that it refused


@pytest.mark.parametrize("width", [400, 1100, 1600])
def test_the_page_is_no_wider_than_the_window_and_its_contents_stay_in_sight(opened, width):
    opened.size(width)
    assert opened.wait("document.documentElement.scrollWidth <= innerWidth")
    opened.ask("document.getElementById('runs').scrollIntoView()")
    top, bottom = opened.ask(
        "(({top, bottom}) => [top, bottom])(document.querySelector('nav.contents').getBoundingClientRect())"
    )
    assert bottom > 0 and top < 10
    opened.wait("['Runs', 'Split'].includes(document.querySelector('nav.contents [aria-current]')?.innerText)")
    opened.ask("scrollTo(0, 0)")


def test_a_column_sorts_by_a_click_and_by_the_keyboard(opened):
    before = opened.ask(FIRST_COLUMN)
    button = "document.querySelectorAll('#arms th button')[1]"
    opened.ask(f"{button}.click()")
    shown = opened.ask(
        "[...document.querySelectorAll('#arms tbody tr')].map(row => parseFloat(row.cells[1].innerText))"
    )
    assert shown == sorted(shown, reverse=True) and len(shown) == len(before)
    assert opened.ask(f"{button}.closest('th').getAttribute('aria-sort')") == "descending"
    opened.ask(f"{button}.focus()")
    for kind in ("keyDown", "keyUp"):
        opened.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    assert opened.ask(f"{button}.closest('th').getAttribute('aria-sort')") == "ascending"
    opened.ask("document.querySelector('#arms th button').click()")
    assert opened.ask(FIRST_COLUMN) == sorted(before)


def test_columns_are_sorted_by_what_their_numbers_are(opened):
    texts = ["0.5", "1.2e-05", "1.235e+04", "12,000", "−2", "−2.5e-06", "3 pairs"]
    of_cell = """(text => {
        const row = document.createElement("table").insertRow(), cell = row.insertCell();
        cell.className = "n", cell.textContent = text;
        return valueOf(row, 0);
    })"""
    assert opened.ask(f"{texts}.map{of_cell}") == [0.5, 1.2e-5, 12350, 12000, -2, -2.5e-6, 3]


@needs_axe
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_axe_finds_no_serious_fault(opened, theme, width):
    opened.size(width)
    opened.theme(theme)
    assert opened.faults() == []


@needs_axe
def test_a_searchs_page_has_none_either(make_evidence, make_study, tmp_path):
    asked = make_study(design="search", search={"trials": 6}, claims=[])
    shown = make_evidence(asked, search=TRIALS, importances={"lr": 0.25, "window": 0.75})
    path = search_page.write_search_page(shown, tmp_path / "search.html")
    with browser(tmp_path / "profile") as browse:
        page = browse(path.as_uri())
        page.wait("document.readyState === 'complete' && !!document.querySelector('th button')")
        for theme in ("light", "dark"):
            page.theme(theme)
            assert page.faults() == []
