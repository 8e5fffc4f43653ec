# records of all jobs -> how long each took, and what the others predict of it


rule times:
    input:
        lambda w: plan(w).records("pretrain"),
        lambda w: plan(w).records("featurize"),
        lambda w: plan(w).records("probe"),
    output:
        csv="{root}/times.csv",
        html=report(
            "{root}/times.html",
            caption="../workflow/report/times.rst",
            category="Times",
            labels={"preset": "{root}"},
        ),
    log:
        "{root}/logs/times/times.log",
    benchmark:
        "{root}/benchmarks/times/times.tsv"
    localrule: True
    conda:
        "../envs/times.yaml"
    container:
        IMAGE
    script:
        "../workflow/scripts/times.py"
