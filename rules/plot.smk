# tidy results -> figures and tables


rule plot:
    input:
        "{root}/{experiment}.csv",
    output:
        pdf="{root}/{experiment}.pdf",
        png="{root}/{experiment}.png",
    params:
        figure=lambda w: PLANS[w.root].config.experiments[w.experiment].figure.canonical(),
    log:
        "{root}/logs/plot/{experiment}.log",
    benchmark:
        "{root}/benchmarks/plot/{experiment}.tsv"
    conda:
        "../envs/results.yaml"
    script:
        "../workflow/scripts/plot.py"


rule plot_table:
    input:
        "{root}/{experiment}.csv",
    output:
        md="{root}/{experiment}.md",
        tex="{root}/{experiment}.tex",
    params:
        table=lambda w: PLANS[w.root].config.experiments[w.experiment].table.canonical(),
    log:
        "{root}/logs/plot_table/{experiment}.log",
    benchmark:
        "{root}/benchmarks/plot_table/{experiment}.tsv"
    conda:
        "../envs/results.yaml"
    script:
        "../workflow/scripts/plot_table.py"
