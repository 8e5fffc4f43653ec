# tidy results -> figure


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
    localrule: True
    conda:
        "../envs/results.yaml"
    container:
        IMAGE
    params:
        display=lambda w: plan(w).display(w.figure),
        caption=lambda w: plan(w).caption(w.figure),
    script:
        "../workflow/scripts/plot.py"
