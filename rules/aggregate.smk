# scores, histories and, where a table shows their measures, records of features of one experiment -> tidy results


rule aggregate:
    input:
        scores=lambda w: plan(w).scores(w.experiment),
        histories=lambda w: plan(w).histories(w.experiment),
        records=lambda w: plan(w).measured(w.experiment),
    output:
        "{root}/{experiment}.csv",
    log:
        "{root}/logs/aggregate/{experiment}.log",
    benchmark:
        "{root}/benchmarks/aggregate/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/results.yaml"
    container:
        IMAGE
    params:
        rows=lambda w: plan(w).rows_for(w.experiment),
    script:
        "../workflow/scripts/aggregate.py"
