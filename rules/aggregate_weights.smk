# scores of one evaluation of published weights -> tidy results


rule aggregate_weights:
    input:
        scores=lambda w: PLANS[w.root].evaluations.scores(w.evaluation),
    output:
        "{root}/{evaluation}.csv",
    log:
        "{root}/logs/aggregate_weights/{evaluation}.log",
    benchmark:
        "{root}/benchmarks/aggregate_weights/{evaluation}.tsv"
    conda:
        "../envs/results.yaml"
    params:
        rows=lambda w: PLANS[w.root].evaluations.rows_for(w.evaluation),
    script:
        "../workflow/scripts/aggregate_weights.py"
