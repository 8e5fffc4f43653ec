# tidy results -> figures and tables


rule plot:
    input:
        "{root}/{figure}.csv",
    output:
        pdf="{root}/{figure}.pdf",
        png=report(
            "{root}/{figure}.png",
            caption="../workflow/report/result.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "{root}/logs/plot/{figure}.log",
    benchmark:
        "{root}/benchmarks/plot/{figure}.tsv"
    conda:
        "../envs/results.yaml"
    params:
        shown=lambda w: PLANS[w.root].shown(w.figure),
        caption=lambda w: PLANS[w.root].caption(w.figure),
    script:
        "../workflow/scripts/plot.py"


rule plot_table:
    input:
        "{root}/{table}.csv",
    output:
        md="{root}/{table}.md",
        tex="{root}/{table}.tex",
        html=report(
            "{root}/{table}.html",
            caption="../workflow/report/result.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        "{root}/logs/plot_table/{table}.log",
    benchmark:
        "{root}/benchmarks/plot_table/{table}.tsv"
    conda:
        "../envs/results.yaml"
    params:
        shown=lambda w: PLANS[w.root].shown(w.table),
        caption=lambda w: PLANS[w.root].caption(w.table),
        published=lambda w: PLANS[w.root].published(w.table),
    script:
        "../workflow/scripts/plot_table.py"
