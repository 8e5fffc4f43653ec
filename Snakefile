# Reproduces the paper from end to end. Request a result by its file name:
#
#   snakemake results/fig7c.pdf --profile slurm       with the paper's settings
#   snakemake -c all results/tiny/fig7c.pdf           the same DAG, on synthetic images
#
# Rules look up everything in PLANS (issl/config/plan.py), which is built from config.yaml. As a module of another workflow
# it has its own config.yaml, with the module's `config` on top (docs/module.md).
from snakemake.utils import min_version

from issl.config.layers import OF_MODULE, PAPER, combined, read_layers
from issl.config.module import folder_of_module, own_names
from issl.config.plan import plans
from issl.config.targets import refuse_unknown, refuse_unknown_rules
from issl.errors import exiting
from issl.jobs.environment import use_this_checkout
from issl.jobs.interrupted import continue_interrupted
from issl.jobs.locks import mark_forced, mark_workflow_start
from issl.jobs.slurm import ask_squeue_without_accounting
from issl.jobs.warm import start_warm
from issl.planning.dryrun import sum_up_at_exit
from issl.planning.possible import refuse_impossible
from issl.sharing.shared import pull_planned

min_version("9.12")

MODIFIER = workflow.modifier
IS_MODULE = not MODIFIER.is_main_snakefile()

# Also refuses mistakes that Snakemake's own reading lets pass.
with exiting():
    if IS_MODULE:
        PROJECT = folder_of_module(workflow.current_basedir, MODIFIER.path_modifier)
        LAYERS = read_layers([PROJECT / "config.yaml"], config, OF_MODULE)
        config = combined(layer.content for layer in LAYERS)
    else:
        PROJECT = workflow.basedir
        LAYERS = read_layers(
            ["config.yaml", *workflow.configfiles], workflow.config_settings.config
        )


if not IS_MODULE:

    configfile: "config.yaml"


with exiting():
    PLANS = plans(config, LAYERS)  # results folder -> plan of its preset
    refuse_impossible(PLANS)
    use_this_checkout(str(PROJECT))
mark_workflow_start()


onstart:
    mark_forced(own_names(workflow.dag_settings, MODIFIER.modify_rulename))
    ask_squeue_without_accounting(workflow.executor_settings)
    with exiting():
        pull_planned(workflow.dag, PLANS, MODIFIER.modify_rulename("pretrain"))
    start_warm(
        workflow, {root: plan.config.execution for root, plan in PLANS.items()}
    )


report: "workflow/report/workflow.rst"


include: "rules/common.smk"


wildcard_constraints:
    root="|".join(PLANS),
    data=r"[a-z0-9_]+-[0-9a-f]{8}",
    run=r"[a-z0-9_]+-z\d+-e\d+-[0-9a-f]{8}",
    seed=r"\d+",
    encoder=r"runs/[^/]+/s\d+|weights/[\w-]+",
    encoding=r"[a-z0-9_]+-[0-9a-f]{8}",
    grid=r"[a-z_]+-[0-9a-f]{8}",
    experiment=names(lambda each: (*each.figures, *each.tables)),
    figure=names(lambda each: each.figures),
    table=names(lambda each: each.tables),


include: "rules/prepare.smk"
include: "rules/pretrain.smk"
include: "rules/featurize.smk"
include: "rules/probe.smk"
include: "rules/aggregate.smk"
include: "rules/plot.smk"
include: "rules/tabulate.smk"
include: "rules/compare.smk"
include: "rules/curves.smk"
include: "rules/times.smk"


rule all:
    default_target: True
    input:
        PLANS["results"].targets(),


# Every other preset has a target named after it: `snakemake tiny`.
for each in PLANS.values():
    if each.preset != PAPER:

        rule:
            name:
                each.preset
            input:
                each.targets(),
            localrule: True


with exiting():
    if not IS_MODULE and (options := command_line()):
        refuse_unknown(options.targets, PLANS, workflow.rules)
        refuse_unknown_rules(options, workflow.rules)
        continue_interrupted(options)
        if options.dryrun:
            sum_up_at_exit(workflow, PLANS)
