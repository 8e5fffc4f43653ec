# The paper end to end. Ask for a result by its file name:
#
#   snakemake results/fig7c.pdf --profile slurm       the paper's settings
#   snakemake -c all results/tiny/fig7c.pdf           the same DAG on synthetic images
#
# Rules look things up in PLANS (issl/config/plan.py), which knows what config.yaml asks for.
import sys

from snakemake.utils import min_version

from issl.config.plan import plans
from issl.config.presets import PAPER, with_presets
from issl.config.yaml import refuse_mistakes
from issl.errors import UserError
from issl.jobs.environment import use_this_checkout
from issl.jobs.locks import mark_workflow_start

min_version("9.12")

try:
    refuse_mistakes(
        "config.yaml", *workflow.configfiles
    )  # what Snakemake's own reading would let pass
except UserError as error:
    sys.exit(f"error: {error}")


configfile: "config.yaml"


try:
    PLANS = plans(
        with_presets(config)
    )  # results folder -> everything that its preset asks for
except UserError as error:
    sys.exit(f"error: {error}")

use_this_checkout(workflow.basedir)
mark_workflow_start()


report: "workflow/report/workflow.rst"


wildcard_constraints:
    root="|".join(PLANS),
    data=r"[a-z0-9_]+-[0-9a-f]{8}",
    run=r"[a-z0-9_]+-z\d+-e\d+-[0-9a-f]{8}",
    seed=r"\d+",
    grid=r"[a-z-]+-[0-9a-f]{8}",
    experiment="|".join({name: None for plan in PLANS.values() for name in plan.rows}),
    figure="|".join({name: None for plan in PLANS.values() for name in plan.figures}),
    table="|".join(
        {
            name: None
            for plan in PLANS.values()
            for name in (*plan.tables, *plan.evaluations.rows)
        }
    ),
    # A preset may have none, and an empty pattern would match everything.
    evaluation="|".join(
        {name: None for plan in PLANS.values() for name in plan.evaluations.rows}
    )
    or "(?!)",
    weights=r"[\w-]+",
    encoding=r"[a-z0-9_]+-[0-9a-f]{8}",


localrules:
    all,
    aggregate,
    aggregate_weights,
    plot,
    plot_table,
    compare,
    curves,


include: "rules/prepare.smk"
include: "rules/pretrain.smk"
include: "rules/featurize.smk"
include: "rules/probe.smk"
include: "rules/featurize_weights.smk"
include: "rules/probe_weights.smk"
include: "rules/aggregate.smk"
include: "rules/aggregate_weights.smk"
include: "rules/plot.smk"
include: "rules/compare.smk"
include: "rules/curves.smk"


rule all:
    default_target: True
    input:
        PLANS["results"].targets(),


# Every other preset has a target of its name: `snakemake tiny`.
for plan in PLANS.values():
    if plan.preset != PAPER:

        rule:
            name:
                plan.preset
            input:
                plan.targets(),
            localrule: True
