# arrays (or a list of photographs) + encoder -> features, kept until all their probes are done


rule featurize:
    input:
        arrays=lambda w: plan(w).arrays(plan(w).encodings[w.encoding].data),
        weights=lambda w: plan(w).weights(w.encoder),
    output:
        features=temp(directory("{root}/{encoder}/features/{encoding}")),
        about="{root}/{encoder}/features/{encoding}.json",
    log:
        "{root}/logs/featurize/{encoder}/{encoding}.log",
    benchmark:
        "{root}/benchmarks/featurize/{encoder}/{encoding}.tsv"
    group:
        lambda w: plan(w).group(w.encoder, w.encoding)
    conda:
        "../envs/featurize.yaml"
    container:
        IMAGE
    threads: requested("featurize", lambda r: r.threads)
    resources:
        gpu=requested("featurize", lambda r: r.gpus),
        mem_mb=requested("featurize", resources.mem_mb),
        runtime=minutes("featurize"),
    params:
        encoder=lambda w, input: plan(w).encoder(w.encoder, brought(input)),
        # Snakemake records no param that is derived from input. Without this one, finished features would be made again.
        recorded=lambda w: plan(w).encoder(w.encoder),
        spec=lambda w: plan(w).encodings[w.encoding].canonical(),
        place=unrecorded(lambda w: plan(w).place(plan(w).encodings[w.encoding].data)),
        settings=settings,
    shell:
        "python -m issl featurize --encoder {params.encoder:q} --spec {params.spec:q} --place {params.place:q}"
        " --data $(dirname {input.arrays[0]:q}) --out {output.features:q} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"
