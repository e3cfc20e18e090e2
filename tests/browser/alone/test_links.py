"""Links between chapters, followed as a reader follows them: in JupyterLab and in its exports."""

import shutil
import urllib.request
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, expect

from tests.browser.conftest import KERNEL, ROOT, Watch, running_lab
from tests.notebooks.test_chapters import LINK, TEXTS, navigation

PATH = "() => jupyterapp.shell.currentWidget?.context?.path"
HERE, NEXT = 1, 2  # chapters 02 and 03


def test_a_reader_goes_on_and_back_and_to_the_contents(tmp_path: Path, browser: Browser) -> None:
    course = tmp_path / "course"
    (course / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "README.md", course)
    for match in LINK.finditer(
        (ROOT / "README.md").read_text("utf-8")
    ):  # JupyterLab looks for them
        place = course / match[1]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(exist_ok=True) if (ROOT / match[1]).is_dir() else place.touch()
    for k, text in enumerate(TEXTS):
        cells = [nbformat.v4.new_markdown_cell(navigation(TEXTS, k))]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
        nbformat.write(notebook, course / "notebooks" / f"{text.stem}.ipynb")
    here, there = (f"notebooks/{TEXTS[k].stem}.ipynb" for k in (HERE, NEXT))
    with running_lab(tmp_path / "home", course) as lab:
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        watch = Watch(page, lab.url)
        missing = []
        page.on("response", lambda r: missing.append(r.url) if r.status == 404 else None)

        def follow(words: str, path: str) -> None:
            page.locator(".jp-RenderedMarkdown a:visible", has_text=words).first.click()
            page.wait_for_function(f"({PATH})() === {path!r}", timeout=60_000)

        page.goto(f"{lab.url}/doc/tree/{here}?reset&token={lab.token}")
        page.wait_for_selector(".jp-RenderedMarkdown a", timeout=60_000)
        follow("→", there)
        follow("←", here)
        follow("Contents", "README.md")
        expect(page.locator(".jp-MarkdownViewer h2", has_text="Chapters")).to_be_visible()
        follow(TEXTS[NEXT].stem[3:], there)
        page.close()
        assert (watch.faults, missing) == ([], [])
        address = f"{lab.url}/nbconvert/html/{here}?token={lab.token}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            exported = answer.read().decode()
        assert f'href="{TEXTS[NEXT].stem}.html"' in exported
        assert f'href="{TEXTS[NEXT].stem}.ipynb"' not in exported
