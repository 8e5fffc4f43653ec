"""What finished jobs took and used, as CSV rows and as a page."""

import json
from pathlib import Path

import pytest
from left_behind import DEVICE, finish, named, put, score
from markdown_it import MarkdownIt

from issl.planning import actual, efficiency, observed

ROOT = Path("results/tiny")


@pytest.fixture
def simclr(tiny):
    return named(tiny, "simclr-z64-e9")


def listed():
    found = observed.measured([ROOT])
    outcomes = list(actual.outcomes(found))
    return efficiency.jobs(found, outcomes, ROOT), actual.summary(outcomes)


def benchmark(run, **columns):
    put(ROOT / f"benchmarks/pretrain/{run}-s1.tsv", "\t".join(columns) + "\n" + "\t".join(columns.values()) + "\n")


def test_a_job_on_a_cpu_has_the_use_of_its_process_and_no_gpu(tiny, simclr):
    finish(tiny, simclr, seconds=20)
    benchmark(simclr, **{"s": "24.5", "h:m:s": "0:00:24", "max_rss": "1000.00", "mean_load": "93.89"})
    [job], _ = listed()
    assert (job.stage, job.name, job.device) == ("pretrain", f"runs/{simclr}/s1", DEVICE)
    assert (job.seconds, job.cpu_percent) == (24.5, 93.89)
    assert job.memory_gb == pytest.approx(1.048576)  # Snakemake's are MiB
    assert (job.predicted, job.gpu_percent, job.gpu_memory_gb) == (None, None, None)


def test_what_snakemake_could_not_measure_is_left_out(tiny, simclr):
    finish(tiny, simclr, seconds=20)
    benchmark(simclr, **{"s": "21.5", "max_rss": "NA", "mean_load": "-"})
    [job], _ = listed()
    assert (job.seconds, job.cpu_percent, job.memory_gb) == (21.5, None, None)


def test_a_forked_job_has_its_own_memory_and_not_the_use_of_the_process_that_waited_for_it(tiny, simclr):
    finish(tiny, simclr, seconds=20)
    benchmark(simclr, **{"s": "21.5", "max_rss": "12.54", "mean_load": "0.10"})
    record = ROOT / f"runs/{simclr}/s1/run.json"
    put(record, json.loads(record.read_text()) | {"warm": True, "peak_memory_gb": 0.5})
    [job], _ = listed()
    assert (job.seconds, job.cpu_percent, job.memory_gb) == (21.5, None, 0.5)


def test_a_job_on_a_gpu_has_how_busy_that_was(tiny, simclr):
    finish(tiny, simclr, device="NVIDIA H100")
    record = ROOT / f"runs/{simclr}/s1/run.json"
    put(record, json.loads(record.read_text()) | {"gpu_percent": 81.5, "peak_memory_gb": 12.25})
    [job], _ = listed()
    assert (job.gpu_percent, job.gpu_memory_gb) == (81.5, 12.25)


def test_the_page_has_a_table_of_each_stage_with_what_is_known(tiny, simclr):
    others = [named(tiny, "cissl-z64-e9"), named(tiny, "dissl-z64-e9-0d90a3b6")]
    for nth, run in enumerate((simclr, *others)):
        finish(tiny, run, seconds=120 + nth)
    score(tiny, "table1_contrastive", simclr)
    jobs, summary = listed()
    page = efficiency.page(jobs, summary, ROOT)
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == [
        "## pretrain: 3 jobs, 0.102 hours",
        "## featurize: 1 jobs, 0.00139 hours",
        "## probe linear: 1 jobs, 0.00139 hours",
    ]
    tables = MarkdownIt().enable("table").render(page).split("<table>")[1:]
    assert [table.count("<tr>") for table in tables] == [4, 2, 2]
    assert '<th style="text-align:right">predicted</th>' in tables[0]
    assert "predicted" not in tables[1] and all("GPU" not in table for table in tables)
    assert f"<td>runs/{simclr}/s1</td>" in tables[0] and ">121<" in tables[0]
    assert any(line.startswith(f"- {DEVICE}, pretrain: 3 jobs, median error") for line in page.splitlines())


def test_a_page_without_jobs_says_so(tiny):
    assert "No job has finished." in efficiency.page(*listed(), ROOT)
