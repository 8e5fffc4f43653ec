"""What jobs request from a cluster, and which of them go there as one."""

import copy

from rows import row_of

from issl.config import plan as catalog
from issl.config import resources
from issl.config.presets import merge
from issl.spec.encoding import encoding_id
from issl.spec.probe import grid_id


def requests(plan, row):
    """What the jobs of a row request: to featurize, and for each of its probes."""
    ids = row.encoder(row.seeds[0]), encoding_id(row.encoding)
    probes = {name: resources.request(plan, "probe", *ids, grid_id(grid)) for name, grid in row.probes.items()}
    return {"featurize": resources.request(plan, "featurize", *ids)} | probes


def amounts(request):
    return request.threads, request.mem_gb, request.minutes


# --- of an experiment ---


def test_jobs_request_what_the_config_says_of_their_rule(paper):
    hardware = paper.config.hardware
    found = requests(paper, row_of(paper, "table1_contrastive", "CISSL"))
    assert found == {"featurize": hardware.featurize, "linear": hardware.probe}
    assert resources.request(paper, "prepare") == hardware.prepare
    assert resources.request(paper, "pretrain") == hardware.pretrain


def test_jobs_of_an_experiment_request_what_it_says_and_the_rest_of_their_rule(paper):
    assert {name: amounts(each) for name, each in requests(paper, paper.rows["table_imagenet"][0]).items()} == {
        "featurize": (16, 32, 240),
        "cached": (16, 64, 2880),
        "augmented": (16, 64, 2880),
    }
    assert {name: amounts(each) for name, each in requests(paper, row_of(paper, "table_transfer", "DTD")).items()} == {
        "featurize": (16, 32, 240),
        "logistic regression": (4, 64, 1440),  # the threads are those of every probe
        "linear SVM": (4, 64, 1440),
    }


def test_an_experiment_never_requests_less_than_its_rule(raw):
    changed = merge(raw, {"experiments": {"fig7c": {"hardware": {"probe": {"threads": 1, "mem_gb": 1, "minutes": 1}}}}})
    plan = catalog.plans(changed)["results"]
    assert requests(plan, plan.rows["fig7c"][0])["linear"] == plan.config.hardware.probe


def test_a_job_that_two_experiments_share_requests_the_most_of_each(raw):
    """CIFAR-10 of the table of transfer is one of the eight rows of issue 2."""
    own = {
        "table_transfer": {"featurize": {"threads": 5, "mem_gb": 40}, "probe": {"mem_gb": 70, "minutes": 200}},
        "issue2_cifar10": {"featurize": {"threads": 8, "minutes": 50}, "probe": {"threads": 6, "mem_gb": 30}},
    }
    changed = copy.deepcopy(raw)
    for name, hardware in own.items():
        changed["experiments"][name]["hardware"] = hardware
    plan = catalog.plans(changed)["results"]
    found = requests(plan, row_of(plan, "table_transfer", "CIFAR-10"))
    assert found == requests(plan, row_of(plan, "issue2_cifar10", "batch_norm eval, resize 224, layer output"))
    assert amounts(found["featurize"]) == (8, 40, 50)
    assert amounts(found["linear SVM"]) == amounts(found["logistic regression"]) == (6, 70, 200)
    alone = requests(plan, row_of(plan, "table_transfer", "CIFAR-100"))
    assert amounts(alone["featurize"]) == (5, 40, 30) and amounts(alone["linear SVM"]) == (4, 70, 200)
    alone = requests(plan, row_of(plan, "issue2_cifar10", "batch_norm train, resize 224, layer output"))
    assert amounts(alone["featurize"]) == (8, 16, 50) and amounts(alone["linear SVM"]) == (6, 30, 120)


def test_probes_of_one_experiment_do_not_pay_for_those_of_another(raw):
    """One run is in two tables, with features that both read and probes of their own."""
    changed = merge(
        raw, {"experiments": {"table2_mlp": {"hardware": {"probe": {"mem_gb": 99}, "featurize": {"mem_gb": 77}}}}}
    )
    plan = catalog.plans(changed)["results"]
    linear, mlp = (requests(plan, row_of(plan, name, "DISSL")) for name in ("table1_distillation", "table2_mlp"))
    assert linear["linear"].mem_gb == plan.config.hardware.probe.mem_gb and mlp["mlp"].mem_gb == 99
    assert linear["featurize"] == mlp["featurize"] and mlp["featurize"].mem_gb == 77


def test_only_the_classifiers_of_transfer_request_no_gpu(raw):
    kinds = [{"kind": kind} for kind in ("linear", "mlp", "cached", "logistic", "svm")]
    changed = merge(raw, {"experiments": {"table_transfer": {"probes": kinds, "published": None}}})
    plan = catalog.plans(changed)["results"]
    found = requests(plan, row_of(plan, "table_transfer", "DTD")) | requests(plan, plan.rows["table_imagenet"][0])
    assert {name: request.gpus for name, request in found.items()} == {
        **{"featurize": 1, "linear": 1, "mlp": 1, "cached": 1, "augmented": 1},
        **{"logistic": 0, "svm": 0},
    }
    without = catalog.plans(merge(changed, {"hardware": {"probe": {"gpus": 0}}}))["results"]
    assert {request.gpus for request in requests(without, without.rows["table_imagenet"][0]).values()} == {0, 1}


def test_the_largest_job_of_a_rule_is_that_of_any_experiment_that_all_makes(raw):
    """Features and probes may be one job, which takes the minutes of both. The doctor asks whether a node has it."""
    own = {"probe": {"threads": 9, "minutes": 500}, "featurize": {"mem_gb": 77, "minutes": 70}}
    plan = catalog.plans(merge(raw, {"experiments": {"fig7c": {"hardware": own}}}))["results"]
    hardware = plan.config.hardware
    assert amounts(resources.largest(plan, "featurize")) == (hardware.featurize.threads, 77, 70)
    assert amounts(resources.largest(plan, "probe")) == (9, hardware.probe.mem_gb, 500 + 70)
    assert resources.largest(plan, "prepare") == hardware.prepare
    assert (
        resources.largest(plan, "pretrain").minutes
        == hardware.pretrain.minutes + 1000 * hardware.pretrain.minutes_per_epoch
    )
    requested = merge(raw, {"experiments": {"fig7c": {"hardware": own, "on_request": True}}})
    assert resources.largest(catalog.plans(requested)["results"], "featurize") == hardware.featurize


def test_memory_is_requested_in_slurms_megabytes(raw):
    plan = catalog.plans(merge(raw, {"hardware": {"probe": {"mem_gb": 2.5}}}))["results"]
    assert resources.mem_mb(resources.request(plan, "probe")) == 2500


def test_minutes_of_a_pretraining_grow_with_its_epochs(paper):
    short, long = (next(id for id, run in paper.runs.items() if run.optim.epochs == n) for n in (300, 1000))
    hardware = paper.config.hardware.pretrain
    minutes = [resources.pretraining_minutes(paper, run) for run in (short, long)]
    assert minutes[1] - minutes[0] == 700 * hardware.minutes_per_epoch
    assert minutes[0] == hardware.minutes + 300 * hardware.minutes_per_epoch


# --- as one job ---


def group(plan, row, seed):
    return plan.group(row.encoder(seed), encoding_id(row.encoding))


def test_features_and_the_one_job_of_probes_that_reads_them_go_to_a_cluster_together(paper):
    """Figure 7b shows the same probes again, which makes no further job of them."""
    alone = row_of(paper, "table1_contrastive", "SimCLR")
    name = group(paper, alone, 1)
    assert name and "/" not in name, "Snakemake makes a path of it"
    others = [row_of(paper, "table1_contrastive", "CISSL"), row_of(paper, "fig7a", "strength 0.5, classes 20000")]
    assert len({name, *(group(paper, each, 1) for each in others)}) == 3


def test_features_that_two_jobs_of_probes_read_are_a_job_of_their_own(raw, paper):
    assert group(paper, row_of(paper, "table2_mlp", "DISSL"), 1) is None, "a linear and an MLP probe, in two tables"
    assert group(paper, row_of(paper, "table_transfer", "DTD"), 0) is None, "two classifiers"
    changed = merge(raw, {"experiments": {"table_transfer": {"probes": [{"kind": "svm"}], "published": None}}})
    one, two = (
        catalog.plans(merge(changed, {"experiments": {"table_transfer": {"seeds": seeds}}})) for seeds in ([0], [0, 1])
    )
    assert group(one["results"], row_of(one["results"], "table_transfer", "DTD"), 0)
    assert group(two["results"], row_of(two["results"], "table_transfer", "DTD"), 0) is None, "with two seeds"
    assert group(one["results"], row_of(one["results"], "table_transfer", "CIFAR-10"), 0) is None, (
        "issue 2 reads them too"
    )


def test_each_seed_of_a_run_goes_to_a_cluster_by_itself(raw):
    plan = catalog.plans(raw | {"seeds": [1, 2]})["results"]
    one, two = (group(plan, row_of(plan, "table1_contrastive", "SimCLR"), seed) for seed in (1, 2))
    assert one and two and one != two


def test_probes_that_read_images_do_not_count_as_readers(paper):
    assert group(paper, paper.rows["table_imagenet"][0], 0), "the cached probes read the features, the others do not"


def test_features_on_two_data_sets_go_to_a_cluster_apart(raw):
    own = {
        "rows": {"a": {"weights": "table1_contrastive/SimCLR", "data": "cifar10"}},
        "probes": [{}],
        "table": {"caption": ""},
    }
    plan = catalog.plans(merge(raw, {"presets": {}, "experiments": {"mine": own | {"on_request": True}}}))["results"]
    here, there = row_of(plan, "table1_contrastive", "SimCLR"), plan.rows["mine"][0]
    assert here.encoder(1) == there.encoder(1)
    assert group(plan, here, 1) and group(plan, there, 1) and group(plan, here, 1) != group(plan, there, 1)
