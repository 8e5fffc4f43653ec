# tidy results -> figures and tables


rule plot:
    input:
        "{root}/{figure}.csv",
    output:
        pdf="{root}/{figure}.pdf",
        png="{root}/{figure}.png",
    log:
        "{root}/logs/plot/{figure}.log",
    benchmark:
        "{root}/benchmarks/plot/{figure}.tsv"
    conda:
        "../envs/results.yaml"
    params:
        figure=lambda w: PLANS[w.root].config.experiments[w.figure].figure.canonical(),
    script:
        "../workflow/scripts/plot.py"


rule plot_table:
    input:
        "{root}/{table}.csv",
    output:
        md="{root}/{table}.md",
        tex="{root}/{table}.tex",
    log:
        "{root}/logs/plot_table/{table}.log",
    benchmark:
        "{root}/benchmarks/plot_table/{table}.tsv"
    conda:
        "../envs/results.yaml"
    params:
        table=lambda w: PLANS[w.root].table(w.table).canonical(),
    script:
        "../workflow/scripts/plot_table.py"
