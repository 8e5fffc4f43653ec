# arrays + encoder -> features, kept until every probe of the run is done


rule featurize:
    input:
        arrays=lambda w: PLANS[w.root].arrays(w.run),
        encoder="{root}/runs/{run}/s{seed}/encoder.safetensors",
    output:
        features=temp("{root}/runs/{run}/s{seed}/features.npy"),
        about="{root}/runs/{run}/s{seed}/features.json",
    log:
        "{root}/logs/featurize/{run}-s{seed}.log",
    benchmark:
        "{root}/benchmarks/featurize/{run}-s{seed}.tsv"
    conda:
        "../envs/featurize.yaml"
    threads: lambda w: PLANS[w.root].config.hardware.featurize.threads
    resources:
        gpu=lambda w: PLANS[w.root].config.hardware.featurize.gpus,
        mem_mb=lambda w: PLANS[w.root].mem_mb("featurize"),
        runtime=lambda w: PLANS[w.root].minutes("featurize"),
    params:
        spec=lambda w: PLANS[w.root].runs[w.run].canonical(),
        settings=lambda w, resources: PLANS[w.root].settings(),
    shell:
        "python -m issl featurize --spec {params.spec:q} --encoder {input.encoder:q}"
        " --data $(dirname {input.arrays[0]:q}) --out {output.features:q} --settings {params.settings:q} --log {log:q}"
