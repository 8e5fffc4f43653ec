# features + all probes of an experiment -> scores


rule probe:
    input:
        arrays=lambda w: PLANS[w.root].arrays(w.run),
        features="{root}/runs/{run}/s{seed}/features.npy",
    output:
        scores="{root}/runs/{run}/s{seed}/probes/{grid}.csv",
        about="{root}/runs/{run}/s{seed}/probes/{grid}.json",
    log:
        "{root}/logs/probe/{run}-s{seed}-{grid}.log",
    benchmark:
        "{root}/benchmarks/probe/{run}-s{seed}-{grid}.tsv"
    conda:
        "../envs/probe.yaml"
    threads: lambda w: PLANS[w.root].config.hardware.probe.threads
    resources:
        gpu=lambda w: PLANS[w.root].config.hardware.probe.gpus,
        mem_mb=lambda w: PLANS[w.root].mem_mb("probe"),
        runtime=lambda w: PLANS[w.root].minutes("probe"),
    params:
        spec=lambda w: PLANS[w.root].grids[w.grid].canonical(),
        settings=lambda w, resources: PLANS[w.root].settings(),
    shell:
        "python -m issl probe --spec {params.spec:q} --seed {wildcards.seed} --features {input.features:q}"
        " --data $(dirname {input.arrays[0]:q}) --out {output.scores:q} --settings {params.settings:q} --log {log:q}"
