# tidy results + published numbers + what made the results -> the comparison
from issl.jobs import fingerprint


rule compare:
    input:
        results=lambda w: expand(
            "{root}/{name}.csv", root=w.root, name=PLANS[w.root].compared
        ),
        prepare=lambda w: PLANS[w.root].records("prepare"),
        pretrain=lambda w: PLANS[w.root].records("pretrain"),
        featurize=lambda w: PLANS[w.root].records("featurize"),
        probe=lambda w: PLANS[w.root].records("probe"),
        featurize_weights=lambda w: PLANS[w.root].records("featurize_weights"),
        probe_weights=lambda w: PLANS[w.root].records("probe_weights"),
    output:
        md="{root}/reproduction.md",
        json="{root}/reproduction.json",
        html=report(
            "{root}/reproduction.html",
            caption="../workflow/report/reproduction.rst",
            category="Reproduced beside published",
            labels={"preset": "{root}"},
        ),
    log:
        "{root}/logs/compare/reproduction.log",
    benchmark:
        "{root}/benchmarks/compare/reproduction.tsv"
    conda:
        "../envs/results.yaml"
    params:
        asked=lambda w: PLANS[w.root].comparison(),
        leftovers=lambda w: PLANS[w.root].leftovers(),
        # A change of code is reported, so it must be seen; asked for only where the comparison is.
        code=lambda w: fingerprint.of_stages(),
    script:
        "../workflow/scripts/compare.py"
