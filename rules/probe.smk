# features (or images and an encoder) + probes of one kind -> scores


rule probe:
    input:
        arrays=lambda w: plan(w).arrays(plan(w).encodings[w.encoding].data),
        read=lambda w: plan(w).read_by(w.encoder, w.encoding, w.grid),
    output:
        scores="{root}/{encoder}/probes/{encoding}/{grid}-s{seed}.csv",
        about="{root}/{encoder}/probes/{encoding}/{grid}-s{seed}.json",
    log:
        "{root}/logs/probe/{encoder}/{encoding}/{grid}-s{seed}.log",
    benchmark:
        "{root}/benchmarks/probe/{encoder}/{encoding}/{grid}-s{seed}.tsv"
    group:
        lambda w: plan(w).group(w.encoder, w.encoding, w.grid)
    conda:
        "../envs/probe.yaml"
    container:
        IMAGE
    threads: requested("probe", lambda r: r.threads)
    resources:
        gpu=requested("probe", lambda r: r.gpus),
        mem_mb=requested("probe", resources.mem_mb),
        runtime=minutes("probe"),
    params:
        encoder=lambda w, input: plan(w).encoder(w.encoder, brought(input)),
        spec=lambda w: plan(w).encodings[w.encoding].canonical(),
        probes=lambda w: plan(w).grids[w.grid].canonical(),
        features=lambda w, input: f"{brought(input)}/{w.encoder}/features/{w.encoding}",
        # Snakemake records no param that is derived from input. Without these, finished probes would run again.
        recorded_encoder=lambda w: plan(w).encoder(w.encoder),
        recorded_features="{root}/{encoder}/features/{encoding}",
        place=unrecorded(lambda w: plan(w).place(plan(w).encodings[w.encoding].data)),
        settings=settings,
    shell:
        "python -m issl probe --encoder {params.encoder:q} --spec {params.spec:q} --place {params.place:q}"
        " --probes {params.probes:q} --seed {wildcards.seed} --features {params.features:q}"
        " --data $(dirname {input.arrays[0]:q}) --out {output.scores:q} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"
