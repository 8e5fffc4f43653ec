# histories of all runs -> training curves


rule curves:
    input:
        lambda w: plan(w).trained(),
    output:
        # One picture per run instead of one page: a browser shows no page above 2 MB inside another.
        report(
            directory("{root}/curves"),
            patterns=["{run}-s{seed}.svg"],
            caption="../workflow/report/curves.rst",
            category="Training curves",
            labels={"run": "{run}", "seed": "{seed}"},
        ),
    log:
        "{root}/logs/curves/curves.log",
    benchmark:
        "{root}/benchmarks/curves/curves.tsv"
    localrule: True
    conda:
        "../envs/results.yaml"
    container:
        IMAGE
    script:
        "../workflow/scripts/curves.py"
