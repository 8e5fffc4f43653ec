# tidy results + published numbers -> table


rule tabulate:
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
        "{root}/logs/tabulate/{table}.log",
    benchmark:
        "{root}/benchmarks/tabulate/{table}.tsv"
    localrule: True
    conda:
        "../envs/results.yaml"
    container:
        IMAGE
    params:
        display=lambda w: plan(w).display(w.table),
        caption=lambda w: plan(w).caption(w.table),
        published=lambda w: plan(w).published(w.table),
    script:
        "../workflow/scripts/tabulate.py"
