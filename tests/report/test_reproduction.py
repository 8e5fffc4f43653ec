"""The comparison: numbers, claims and provenance of all experiments, as data and as a page."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tidy import released, tidy

from issl.errors import UserError
from issl.jobs import fingerprint
from issl.jobs.files import write_json
from issl.report.page import page
from issl.report.reproduction import Record, Request, compare

EXPERIMENTS = {
    "table1": {
        "table": {"caption": "A table."},
        "published": {"source": "README", "precision": 0.05, "values": {"A": 45.0, "B": 47.0, "C": 50.0}},
        "claims": {
            "B is better than A": {"better": "B", "than": "A"},
            "C is better than A": {"better": "C", "than": "A"},
        },
    },
    "curve": {
        "figure": {"kind": "lines", "x": "dim", "hue": "method", "xlabel": "dim."},
        "published": {"source": "figure", "precision": 0.1, "values": {"A": {128: 40.0, 512: 46.0}}},
        "claims": {"accuracy rises": {"rises": "A"}},
    },
    "cloud": {
        "figure": {"kind": "scatter", "x": "log_loss", "hue": "method", "xlabel": "loss"},
        "published": {"source": "figure 7b; not available here"},
        "claims": {"lower is better": {"falls": "A"}},
    },
    "elsewhere": {
        "not_run": "no weights here",
        "published": {"source": "hub", "precision": 0.05, "values": {"resnet": {"top-1": 66.9}}},
    },
}


def request(preset="paper", **changed):
    shared = {"experiments": EXPERIMENTS | changed, "comparison": {}}
    return Request.model_validate({"preset": preset, "comparable": preset == "paper"} | shared)


def both(*rows, **facts):
    """(row, dim, test accuracy, held-out accuracy) with two weight decays a row: the other is worse on test."""
    found = [
        tidy(
            (row, 1, 1e-4, accuracy, held_out),
            (row, 1, 1e-5, accuracy - 0.01, held_out - 0.1),
            **{"dim": dim, "encoder": f"{row}{dim}", "n_test": 10_000} | facts,
        )
        for row, dim, accuracy, held_out in rows
    ]
    return pd.concat(found, ignore_index=True)


RESULTS = {
    "table1": both(("A", 512, 0.452, 0.5), ("B", 512, 0.51, 0.5)),
    "curve": both(("A", 128, 0.40, 0.5), ("A", 512, 0.46, 0.5)),
    "cloud": both(*[("A", dim, acc, 0.5) for dim, acc in ((1, 0.5), (2, 0.4), (3, 0.3), (4, 0.2))]),
}
RESULTS["cloud"]["log_loss"] = RESULTS["cloud"]["dim"].astype(float)


def run_json(code, run="A512", attempts=(("now", {}),)):
    return {
        "run": run,
        "seed": 1,
        "spec": {"optim": {"epochs": 3}},
        "data": {"images": "0123456789abcdef", "labels": "f" * 16},
        "device": "CPU, 1 threads",
        "precision": "32",
        "seconds": 7200.0,
        "images_per_second": 100.4,
        "peak_memory_gb": 1.23,
        "test_online_acc": 0.41,
        "git": {"commit": "a" * 40, "dirty": True},
        "versions": {"python": "3.11.7", "torch": "2.15", "torchvision": None},
        "code": code,
        "attempts": [{"code": code, "precision": "32"} | more for code, more in attempts],
    }


def records(code=None, **changes):
    return [Record("pretrain", "runs/A512/s1/run.json", run_json(code or fingerprint.current("pretrain"), **changes))]


@pytest.fixture
def report():
    return compare(request(), RESULTS, records(), [])


def verdicts(report, kind, *names):
    return {tuple(entry[name] for name in names): entry["verdict"] for entry in report[kind]}


def test_every_published_number_has_its_verdict(report):
    assert verdicts(report, "numbers", "experiment", "line", "column") == {
        ("table1", "A", ""): "agrees",
        ("table1", "B", ""): "differs",
        ("table1", "C", ""): "not run",
        ("curve", "A", "128"): "agrees",
        ("curve", "A", "512"): "agrees",
        ("elsewhere", "resnet", "top-1"): "not run",
    }
    assert report["counts"]["numbers"] == {"agrees": 3, "differs": 1, "not run": 1}
    assert "Published numbers: 3 agree, 1 differs, 1 not run. Claims: 3 hold, 1 not run; corrected" in page(report)


def test_further_sources_are_shown_beside_the_published_numbers_and_judge_nothing(report):
    also = {"label": "1 May", "source": "an older page", "precision": 0.05, "values": {"A": 99.9}}
    published = EXPERIMENTS["table1"]["published"] | {"also": [also]}
    two = compare(request(table1=EXPERIMENTS["table1"] | {"published": published}), RESULTS, records(), [])
    assert two["counts"] == report["counts"] and two["claims"] == report["claims"]
    text = page(two)
    assert "|  | published | published, 1 May | reproduced, selected on test |" in text
    assert "| A | 45.0 | 99.9 | 45.2 (44.2 to 46.2) |" in text and "| B | 47.0 | – |" in text
    assert "*1 May*: an older page; known to ± 0.05. Shown beside it; no verdict rests on it." in text
    assert json.loads(json.dumps(two))["numbers"][0]["also"] == {"1 May": 99.9}


def test_what_nothing_can_reproduce_here_is_shown_but_not_counted(report):
    text = page(report)
    assert "### elsewhere" in text and "Not run: no weights here." in text
    assert "|  | top-1 |\n| --- | ---: |\n| resnet | 66.9 |\n" in text
    assert sum(report["counts"]["numbers"].values()) == len(report["numbers"]) - 1


def test_what_is_only_published_is_a_table_of_its_lines_and_columns():
    values = {"A": {"3": 25.37, "30": 48.05}, "B": {"30": 47.28}}
    more = {"not_run": "why", "published": {"source": "a page", "precision": 0.005, "values": values}}
    text = page(compare(request(more=more), RESULTS, records(), []))
    assert "|  | 3 | 30 |\n| --- | ---: | ---: |\n| A | 25.37 | 48.05 |\n| B | – | 47.28 |\n" in text


@pytest.mark.parametrize(("precision", "shown"), [(0.005, "45.30"), (0.05, "45.3"), (0.1, "45.3"), (0.5, "45.3")])
def test_published_numbers_have_the_digits_of_their_precision(precision, shown):
    published = {"source": "README", "precision": precision, "values": {"A": 45.3}}
    text = page(compare(request(table1=EXPERIMENTS["table1"] | {"published": published}), RESULTS, records(), []))
    assert f"| A | {shown} |" in text


def test_every_claim_has_its_verdict_on_both_accuracies(report):
    assert verdicts(report, "claims", "claim") == {
        ("B is better than A",): "holds",
        ("C is better than A",): "not run",
        ("accuracy rises",): "holds",
        ("lower is better",): "holds",
    }
    first = report["claims"][0]
    assert first["published"] == {"": 2.0}
    assert first["test_selected"]["tests"][0]["value"] == pytest.approx(5.8)
    assert first["val_selected"]["verdict"] == "holds"


def test_the_page_shows_verdicts_and_their_evidence(report):
    text = page(report)
    assert "so that the standard deviation of one run is about 0.31 points" in " ".join(text.split())
    assert "| table1 | B is better than A | holds | holds | holds | holds |" in text
    assert "| table1 | B is better than A | difference | +2.0 | +5.8 ± 0.4, n = 1, p < 0.001 | +5.8 ± 0.4," in text
    assert "| curve | accuracy rises | 128 to 512 | +6.0 | +6.0 ± 0.4, n = 1, p < 0.001 |" in text
    assert "| cloud | lower is better | rank correlation, sign reversed | – | +1.00, n = 4, p = 0.042 |" in text
    assert "| table1 | C is better than A | not run | not run | not run | not run |" in text
    assert "| table1 | C is better than A | difference | +5.0 | – | – |" in text


def test_released_weights_are_judged_by_probe_and_metric():
    values = {"A": {"cached, top-1": 70.2, "augmented, top-1": 69}}
    published = {"source": "README", "precision": 0.05, "values": values}
    table = {"caption": "Released.", "columns": ["probe", "metric"]}
    experiments = {
        "here": {"table": table, "published": published, "claims": {"A is better": {"better": "A", "than": "B"}}},
        "there": {"table": table, "published": published},
    }
    about = {"released": True, "n_test": 10_000, "log_loss": float("nan")}
    rows = [
        tidy((row, 0, 1e-6, accuracy, None), probe=probe, grid=probe, metric=metric, **about)
        for row, probe, metric, accuracy in (
            *(("A", "cached", "top-1", 0.70), ("A", "cached", "top-5", 0.80), ("A", "augmented", "top-1", 0.71)),
            *(("B", "cached", "top-1", 0.50), ("B", "cached", "top-5", 0.70)),
        )
    ]
    wanted = Request.model_validate(
        {"preset": "paper", "comparable": True, "experiments": experiments, "comparison": {}},
    )
    report = compare(wanted, {"here": pd.concat(rows, ignore_index=True)}, [], [])
    assert verdicts(report, "numbers", "experiment", "column") == {
        ("here", "cached, top-1"): "agrees",
        ("here", "augmented, top-1"): "differs",
        ("there", "cached, top-1"): "not run",
        ("there", "augmented, top-1"): "not run",
    }
    (claim,) = report["claims"]
    assert claim["verdict"] == "holds"
    assert [test["what"] for test in claim["test_selected"]["tests"]] == ["cached, top-1", "cached, top-5"]
    assert report["runs"] == [] and report["axes"]["here"] == ("row", "probe, metric")
    assert (
        "| A, augmented, top-1 | 69.0 | 71.0 (70.1 to 71.9) | 71.0 (70.1 to 71.9) | 0.0 | 1 | +2.0 | 0.94 | differs |"
        in page(report)
    )


def test_released_weights_change_no_claim_about_the_runs_beside_them(report):
    beside = pd.concat([RESULTS["cloud"], released("R", 0, 0.9)], ignore_index=True)
    again = compare(request(), RESULTS | {"cloud": beside}, records(), [])
    assert again["claims"] == report["claims"] and "R" not in {number["line"] for number in again["numbers"]}


def test_the_remaining_gap_is_shown():
    claims = {"B beats A": {"better": "B", "than": "A", "instead_of": "C"}}
    experiments = {"table1": EXPERIMENTS["table1"] | {"claims": claims}}
    shared = {"preset": "paper", "comparable": True, "comparison": {}}
    wanted = Request.model_validate({"experiments": experiments} | shared)
    three = pd.concat([RESULTS["table1"], both(("C", 512, 0.40, 0.5))])
    text = page(compare(wanted, {"table1": three}, records(), []))
    assert "- B beats A: the lead is +11.0 points over C and +5.8 over A: 53% of it is left." in text


def test_other_presets_compare_no_numbers_and_need_several_seeds_for_claims():
    report = compare(request("tiny"), RESULTS, records(), [])
    assert set(verdicts(report, "numbers", "line").values()) == {"not comparable", "not run"}
    better = next(claim for claim in report["claims"] if claim["claim"] == "B is better than A")
    assert better["verdict"] == "undecided" and better["test_selected"]["p"] is None and report["noise"] == []
    text = page(report)
    assert "**The settings are not the paper's: no number here is comparable" in text
    assert "| A | 45.0 | 45.2 (44.2 to 46.2) | 45.2 (44.2 to 46.2) | 0.0 | 1 | +0.2 | – | not comparable |" in text
    assert "| table1 | B is better than A | difference | +2.0 | +5.8, n = 1 | +5.8, n = 1 |" in text
    assert "- table1, B is better than A: one seed; a second would show the noise." in text
    assert "A single seed shows no noise, so claims about it are undecided." in text


SEEDS = {"A": (0.450, 0.454, 0.446), "B": (0.510, 0.516, 0.516)}


def over_seeds(accuracies):
    """One weight decay a row, so that the paper's selection and ours agree."""
    rows = [(name, seed, 1e-4, value, 0.5) for name, values in accuracies.items() for seed, value in enumerate(values)]
    return tidy(*rows, dim=512, n_test=10_000)


def test_with_several_seeds_the_noise_is_measured():
    """A contrast without other points has its own variance only: a paired t-test."""
    report = compare(request("tiny"), {"table1": over_seeds(SEEDS)}, [], [])
    better = report["claims"][0]
    truth = stats.ttest_rel(SEEDS["B"], SEEDS["A"], alternative="greater").pvalue
    assert better["test_selected"]["p"] == pytest.approx(truth) and better["verdict"] == "holds"
    (noise,) = report["noise"]
    pooled = np.mean([np.var(values, ddof=1) for values in SEEDS.values()])
    assert noise["deviation"] == pytest.approx(100 * pooled**0.5) and noise["freedom"] == 4
    text = page(report)
    assert "| tinyimagenet | 100 % | top-1 | 0.37 | 4 |" in text
    assert "| B | 47.0 | 51.4 ± 0.2 | 51.4 ± 0.2 | 0.0 | 3 |" in text


def test_runs_that_two_experiments_share_are_evidence_once():
    shared = {"table1": over_seeds(SEEDS), "curve": over_seeds({"A": SEEDS["A"]})}
    alone = {"table1": over_seeds(SEEDS)}
    with_scatter = alone | {"cloud": over_seeds(SEEDS)}
    for results in (shared, with_scatter):
        assert compare(request(), results, [], [])["noise"] == compare(request(), alone, [], [])["noise"]


def test_a_number_is_judged_by_the_noise_of_other_points():
    """Three other runs, whose noise is large: A, one seed, may differ by more than 0.94."""
    others = dict.fromkeys("BCD", (0.40, 0.44))
    report = compare(request(), {"table1": over_seeds({"A": (0.452,)} | others)}, [], [])
    (number,) = (each for each in report["numbers"] if each["line"] == "A" and each["experiment"] == "table1")
    prior = (3 * np.var([40, 44], ddof=1) + 3 * (0.3 / stats.norm.ppf(0.75)) ** 2 / 2) / 6
    assert number["tolerance"] == pytest.approx(2 * (2 * prior) ** 0.5 + 0.05)


def test_claims_are_corrected_for_their_number():
    """p of +1.2 over 0.445 is 0.037 and holds alone; of two claims it is the smaller p, and so doubled."""
    close = both(("A", 512, 0.452, 0.5), ("B", 512, 0.464, 0.5))
    alone = compare(request(), {"table1": close}, [], [])
    two = compare(request(), {"table1": pd.concat([close, both(("C", 512, 0.46, 0.5))])}, [], [])
    found = [report["claims"][0] for report in (alone, two)]
    assert [claim["verdict"] for claim in found] == ["holds", "holds"]
    assert [claim["corrected"] for claim in found] == ["holds", "undecided"]
    assert two["counts"]["claims_corrected"] == {"undecided": 2, "not run": 2}
    text = page(two)
    assert "| table1 | B is better than A | holds | undecided | holds | undecided |" in text
    assert "Claims: 1 holds, 1 undecided, 2 not run; corrected for their number: 2 undecided, 2 not run." in text


def test_an_experiment_without_results_is_not_run():
    report = compare(request(), {}, [], [])
    assert set(verdicts(report, "numbers", "experiment", "line", "column").values()) == {"not run"}
    assert set(verdicts(report, "claims", "claim").values()) == {"not run"}
    assert "## Runs" not in page(report)


def test_results_without_published_numbers_are_listed(report):
    assert report["without_numbers"] == {"cloud": "figure 7b; not available here"}
    assert report["not_run"] == {"elsewhere": "no weights here"}
    assert "- cloud: figure 7b; not available here." in page(report)
    assert "Not run: no weights here." in page(report)


def test_contradictory_results_are_refused():
    twice = pd.concat([RESULTS["table1"], RESULTS["table1"].assign(encoder="other")])
    with pytest.raises(UserError, match="several results share one place"):
        compare(request(), {"table1": twice}, [], [])


def test_the_data_are_plain_json(report, tmp_path):
    write_json(tmp_path / "reproduction.json", report)
    text = (tmp_path / "reproduction.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["preset"] == "paper"


def test_a_run_lists_its_provenance_and_its_experiments(report):
    (run,) = report["runs"]
    assert run["experiments"] == ["table1", "curve"] and run["spec"] == {"optim": {"epochs": 3}}
    line = next(line for line in page(report).splitlines() if line.startswith("| A512"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("A512", "1", "table1, curve", "CPU, 1 threads", "32", "2", "100", "1.2", "41.0"),
        *("aaaaaaaa+", "as now", "01234567"),
    ]
    assert "Versions: python 3.11.7, torch 2.15." in page(report)


def test_code_that_changed_since_is_flagged_by_module():
    then = fingerprint.current("pretrain")
    other = {"fingerprint": "0", "modules": then["modules"] | {"issl.training.optim": "00000000", "issl.gone": "1"}}
    report = compare(request(), RESULTS, records(other), [])
    assert report["changed"] == [
        {"path": "runs/A512/s1/run.json", "stage": "pretrain", "modules": ["issl.gone", "issl.training.optim"]}
    ]
    text = page(report)
    assert (
        "- pretrain: issl.gone, issl.training.optim (1): `runs/A512/s1/run.json`" in text
        and "| changed since |" in text
    )


def test_unchanged_code_is_not_flagged(report):
    assert report["changed"] == []
    assert "All results were made with the current code." in page(report)


def test_a_run_that_changed_between_two_attempts_is_flagged(report):
    attempts = (("then", {}), ("now", {"precision": "bf16", "versions": {"torch": "2.15"}}))
    text = page(compare(request(), RESULTS, records(attempts=attempts), []))
    assert "| changed while it ran |" in text
    for change in ("code: then, then now", "precision: 32, then bf16", "torch: None, then 2.15"):
        assert f"- A512, seed 1: {change}" in text
    assert "seed 1: " not in page(report)


def test_a_result_without_a_record_of_its_code_is_flagged():
    report = compare(request(), RESULTS, [Record("probe", "probes/x.json", {})], [])
    assert report["changed"][0]["modules"] is None
    assert "- probe: not on record (1): `probes/x.json`" in page(report)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read (Expecting property name"),
        ("[]", "cannot be read (not a mapping)"),
        (b"\xff", "cannot be read ('utf-8' codec"),
        ('{"run": "A512"}', "lacks 'seed'"),
    ],
)
def test_a_damaged_record_of_a_run_is_named(tmp_path, content, says):
    path = tmp_path / "runs/A512/s1/run.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        Record.read("pretrain", path, tmp_path)
    assert str(caught.value).startswith(f"{path}: {says}") and str(caught.value).endswith("delete it to make it again")


def test_a_record_that_a_training_wrote_is_whole(tmp_path):
    [expected] = records()
    write_json(tmp_path / expected.path, expected.about)
    assert Record.read("pretrain", tmp_path / expected.path, tmp_path) == expected


def test_a_page_without_numbers_has_no_heading_for_them_and_counts_one_run_as_one(report):
    text = page(report)
    assert "\n## Numbers\n\n### " in text and "\n1 pretraining, " in text
    text = page(report | {"numbers": [], "runs": report["runs"] * 2})
    assert "## Numbers" not in text and "\n2 pretrainings, " in text
    assert "one that fails refutes it. *Corrected* is the verdict after Holm's correction" in text


def test_leftovers_are_listed_and_long_lists_truncated():
    report = compare(request(), RESULTS, records(), [f"runs/old{i}/" for i in range(25)])
    assert len(report["leftovers"]) == 25
    assert "`runs/old19/` and 5 more" in page(report) and "old20" not in page(report)


def test_the_page_shows_both_accuracies_and_their_difference(report):
    """Row A: the decay that is best on test, 45.2, is also the best on held-out train; for B make it the other."""
    text = page(report)
    assert "| A | 45.0 | 45.2 (44.2 to 46.2) | 45.2 (44.2 to 46.2) | 0.0 | 1 | +0.2 | 0.94 | agrees |" in text
    assert "| C | 50.0 | – | – | – | – | – | – | not run |" in text
    other = RESULTS["table1"].assign(holdout_acc=lambda table: -table["holdout_acc"])
    text = page(compare(request(), {"table1": other}, records(), []))
    assert "| A | 45.0 | 45.2 (44.2 to 46.2) | 44.2 (43.2 to 45.2) | 1.0 | 1 | +0.2 | 0.94 | agrees |" in text


def test_an_untrained_encoder_has_no_speed_and_no_online_accuracy():
    record = run_json(fingerprint.current("pretrain"), "untrained")
    record |= {"seconds": 0, "images_per_second": None, "test_online_acc": None}
    text = page(compare(request(), RESULTS, [Record("pretrain", "runs/untrained/s1/run.json", record)], []))
    [line] = [line for line in text.splitlines() if line.startswith("| untrained |")]
    assert line.split(" | ")[4:9] == ["32", "0", "–", "1.2", "–"]
