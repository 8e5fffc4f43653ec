"""The report of a finished workflow, in a real browser."""

import pytest
from playwright import sync_api as playwright
from project import snakemake
from small_workflow import edited, write


@pytest.mark.slow
def test_the_report_is_one_file_that_a_browser_shows_without_network(browser, finished_copy, tmp_path):
    targets = ("tiny", "results/tiny/times.html")
    snakemake(finished_copy, *targets, "--cores", "2")
    done = snakemake(finished_copy, *targets, "--report", tmp_path / "report.html")
    assert "ERROR/" not in done.stderr, "reStructuredText of a caption"
    errors, requests = [], []
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = launched.new_context(offline=True).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())

        def results(category):
            page.evaluate("app.setView({navbarMode: 'menu'})")
            page.get_by_role("link", name=category).click()
            return page.locator("#app tbody tr")

        def show(row):
            row.locator("td:last-child a").first.click()
            return page.frame_locator("#app iframe")

        rows = results("Published and reproduced results")
        body = show(rows.first).locator("body")
        assert body.locator("h1").inner_text() == "Published and reproduced results: preset tiny"
        assert "no number here is comparable" in body.inner_text()
        assert body.locator("td.absent").first.is_visible()
        times = show(results("Times").first).locator("body")
        assert times.locator("tbody tr").count() == 4 + 4 + len(
            list(finished_copy.glob("results/tiny/runs/*/s1/probes/*/*.csv"))
        )
        assert "predicted" in times.locator("table").first.inner_text()
        assert "SimCLR" in show(results("Tables").first).locator("table").inner_text()
        for category, count in (("Figures", 2), ("Training curves", 4)):
            rows = results(category)
            assert rows.count() == count
            show(rows.first)
            page.wait_for_function("document.querySelector('#app .grow img')?.naturalWidth > 0")
        page.evaluate("app.setView({navbarMode: 'menu'})")
        page.get_by_role("link", name="Statistics").click()
        page.wait_for_selector("#runtimes canvas, #runtimes svg")
        launched.close()
    assert errors == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}


ODD = "- a_b* `c`_ |d| & <b>e</b> \"f\" 'g' $x$ \\ {{ h }} </textarea> <!-- i --> ::"


@pytest.mark.slow
def test_a_caption_of_any_characters_is_shown_as_it_is(browser, finished_copy, config, tmp_path):
    caption = ("experiments", "table1_contrastive", "table", "caption")
    write(finished_copy, edited(config, caption, ODD))
    done = snakemake(finished_copy, "tiny", "--report", tmp_path / "report.html")
    assert "ERROR/" not in done.stderr and "WARNING/" not in done.stderr
    errors = []
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = launched.new_context(offline=True).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("#app a")
        page.evaluate("app.showResultInfo('results/tiny/table1_contrastive.html')")
        text = page.locator("#app").inner_text()
        launched.close()
    assert errors == [] and ODD in text
