# archive -> arrays


rule prepare:
    output:
        images="{root}/data/{data}/images.npy",
        labels="{root}/data/{data}/labels.npy",
        meta="{root}/data/{data}/meta.json",
    log:
        "{root}/logs/prepare/{data}.log",
    benchmark:
        "{root}/benchmarks/prepare/{data}.tsv"
    conda:
        "../envs/prepare.yaml"
    threads: lambda w: PLANS[w.root].config.hardware.prepare.threads
    resources:
        mem_mb=lambda w: PLANS[w.root].mem_mb("prepare"),
        runtime=lambda w: PLANS[w.root].minutes("prepare"),
    params:
        spec=lambda w: PLANS[w.root].prepared[w.data].canonical(),
        # Derived from resources, and so not compared: a moved archive is still the same data set.
        place=lambda w, resources: PLANS[w.root].place(w.data),
        settings=lambda w, resources: PLANS[w.root].settings(),
    shell:
        "python -m issl prepare --spec {params.spec:q} --place {params.place:q} --out $(dirname {output.meta:q})"
        " --threads {threads} --settings {params.settings:q} --log {log:q}"
