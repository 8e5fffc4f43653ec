# list of images or arrays + weights, released or of a run of ours -> features in shards, kept until every probe of them is done


rule featurize_weights:
    input:
        arrays=lambda w: PLANS[w.root].evaluations.arrays(w.weights, w.encoding),
        pretrained=lambda w: PLANS[w.root].evaluations.pretrained(w.weights, w.encoding),
    output:
        features=temp(directory("{root}/weights/{weights}/{encoding}/features")),
        about="{root}/weights/{weights}/{encoding}/features.json",
    log:
        "{root}/logs/featurize_weights/{weights}-{encoding}.log",
    benchmark:
        "{root}/benchmarks/featurize_weights/{weights}-{encoding}.tsv"
    conda:
        "../envs/featurize_weights.yaml"
    threads: lambda w: PLANS[w.root].config.hardware.featurize_weights.threads
    resources:
        gpu=lambda w: PLANS[w.root].config.hardware.featurize_weights.gpus,
        mem_mb=lambda w: PLANS[w.root].mem_mb("featurize_weights"),
        runtime=lambda w: PLANS[w.root].minutes("featurize_weights"),
    params:
        spec=lambda w: PLANS[w.root].evaluations.encoding(w.weights, w.encoding),
        # Derived from resources, and so not compared: neither changes what comes out.
        place=lambda w, resources: PLANS[w.root].evaluations.place(
            w.weights, w.encoding
        ),
        settings=lambda w, resources: PLANS[w.root].settings(),
    shell:
        "python -m issl featurize-weights --spec {params.spec:q} --place {params.place:q}"
        " --data $(dirname {input.arrays[0]:q}) --out {output.features:q} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"
