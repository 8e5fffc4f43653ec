# tidy results + published numbers + provenance of the results -> the comparison
from issl.jobs import fingerprint


rule compare:
    input:
        results=lambda w: expand(
            "{root}/{name}.csv", root=w.root, name=plan(w).compared
        ),
        prepare=lambda w: plan(w).records("prepare"),
        pretrain=lambda w: plan(w).records("pretrain"),
        featurize=lambda w: plan(w).records("featurize"),
        probe=lambda w: plan(w).records("probe"),
    output:
        md="{root}/reproduction.md",
        json="{root}/reproduction.json",
        html=report(
            "{root}/reproduction.html",
            caption="../workflow/report/reproduction.rst",
            category="Published and reproduced results",
            labels={"preset": "{root}"},
        ),
    log:
        "{root}/logs/compare/reproduction.log",
    benchmark:
        "{root}/benchmarks/compare/reproduction.tsv"
    localrule: True
    conda:
        "../envs/results.yaml"
    container:
        IMAGE
    params:
        request=lambda w: plan(w).comparison(),
        leftovers=lambda w: plan(w).leftovers(),
        # The comparison reports code changes, so it must rerun after one; computed only for this rule.
        code=lambda w: fingerprint.of_package(),
    script:
        "../workflow/scripts/compare.py"
