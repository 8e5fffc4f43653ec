# history of every run -> training curves


rule curves:
    input:
        lambda w: PLANS[w.root].trained(),
    output:
        report(
            "{root}/training.html",
            caption="../workflow/report/training.rst",
            category="Training curves",
            labels={"preset": "{root}"},
        ),
    log:
        "{root}/logs/curves/training.log",
    benchmark:
        "{root}/benchmarks/curves/training.tsv"
    conda:
        "../envs/results.yaml"
    script:
        "../workflow/scripts/curves.py"
