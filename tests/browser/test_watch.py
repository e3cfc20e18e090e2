"""What a page must not do is noticed by ``Watch``."""

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Watch

ORIGIN = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("status", "path", "noticed"),
    [
        (500, "/api/sessions", True),
        (500, "/api/kernels/some-kernel", True),
        (404, "/api/kernels?1", True),
        (500, "/api/kernels?1", False),  # a bug of the server, see there
        (200, "/api/sessions", False),
    ],
)
def test_a_failed_request_is_a_fault(browser: Browser, status: int, path: str, noticed: bool):
    page = browser.new_page()
    watch = Watch(page, ORIGIN)
    page.route("**/*", lambda route: route.fulfill(status=200, content_type="text/html", body=""))
    page.goto(ORIGIN)
    page.route(f"**{path}", lambda route: route.fulfill(status=status, body=""))
    with page.expect_console_message(lambda message: message.text == "done"):
        page.evaluate(
            "path => fetch(path).then(answer => answer.text()).then(() => console.log('done'))",
            path,
        )
    page.close()
    assert len(watch.faults) == noticed, watch.faults
    assert all(path in fault for fault in watch.faults)
