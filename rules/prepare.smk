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
    container:
        IMAGE
    threads: requested("prepare", lambda r: r.threads)
    resources:
        mem_mb=requested("prepare", resources.mem_mb),
        runtime=requested("prepare", lambda r: r.minutes),
    params:
        spec=lambda w: plan(w).data[w.data].canonical(),
        place=unrecorded(lambda w: plan(w).place(plan(w).data[w.data])),
        settings=settings,
    shell:
        "python -m issl prepare --spec {params.spec:q} --place {params.place:q} --out $(dirname {output.meta:q})"
        " --threads {threads} --settings {params.settings:q} --log {log:q}"
