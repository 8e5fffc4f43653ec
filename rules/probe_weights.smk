# features, or images and weights -> scores by one protocol


rule probe_weights:
    input:
        arrays=lambda w: PLANS[w.root].evaluations.arrays(w.weights, w.encoding),
        features="{root}/weights/{weights}/{encoding}/features",
    output:
        scores="{root}/weights/{weights}/{encoding}/s{seed}/{protocol}.csv",
        about="{root}/weights/{weights}/{encoding}/s{seed}/{protocol}.json",
    log:
        "{root}/logs/probe_weights/{weights}-{encoding}-s{seed}-{protocol}.log",
    benchmark:
        "{root}/benchmarks/probe_weights/{weights}-{encoding}-s{seed}-{protocol}.tsv"
    wildcard_constraints:
        protocol=r"(cached|logistic|svm)-[0-9a-f]{8}",
    conda:
        "../envs/probe_weights.yaml"
    threads: lambda w: PLANS[w.root].config.hardware.probe_weights.threads
    resources:
        gpu=lambda w: PLANS[w.root].evaluations.gpus(w.protocol),
        mem_mb=lambda w: PLANS[w.root].mem_mb("probe_weights"),
        runtime=lambda w: PLANS[w.root].minutes("probe_weights"),
    params:
        protocol=lambda w: PLANS[w.root].evaluations.protocols[w.protocol].canonical(),
        spec=lambda w: PLANS[w.root].evaluations.encoding(w.weights, w.encoding),
        place=lambda w, resources: PLANS[w.root].evaluations.place(
            w.weights, w.encoding
        ),
        settings=lambda w, resources: PLANS[w.root].settings(),
    shell:
        "python -m issl probe-weights --spec {params.spec:q} --place {params.place:q}"
        " --protocol {params.protocol:q} --seed {wildcards.seed} --features {input.features:q}"
        " --data $(dirname {input.arrays[0]:q}) --out {output.scores:q} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"


# The augmented protocol reads images, not features.
rule probe_images:
    input:
        arrays=lambda w: PLANS[w.root].evaluations.arrays(w.weights, w.encoding),
        pretrained=lambda w: PLANS[w.root].evaluations.pretrained(w.weights, w.encoding),
    output:
        scores="{root}/weights/{weights}/{encoding}/s{seed}/{protocol}.csv",
        about="{root}/weights/{weights}/{encoding}/s{seed}/{protocol}.json",
    log:
        "{root}/logs/probe_images/{weights}-{encoding}-s{seed}-{protocol}.log",
    benchmark:
        "{root}/benchmarks/probe_images/{weights}-{encoding}-s{seed}-{protocol}.tsv"
    wildcard_constraints:
        protocol=r"augmented-[0-9a-f]{8}",
    conda:
        "../envs/probe_weights.yaml"
    threads: lambda w: PLANS[w.root].config.hardware.probe_images.threads
    resources:
        gpu=lambda w: PLANS[w.root].config.hardware.probe_images.gpus,
        mem_mb=lambda w: PLANS[w.root].mem_mb("probe_images"),
        runtime=lambda w: PLANS[w.root].minutes("probe_images"),
    params:
        protocol=lambda w: PLANS[w.root].evaluations.protocols[w.protocol].canonical(),
        spec=lambda w: PLANS[w.root].evaluations.encoding(w.weights, w.encoding),
        place=lambda w, resources: PLANS[w.root].evaluations.place(
            w.weights, w.encoding
        ),
        settings=lambda w, resources: PLANS[w.root].settings(),
    shell:
        "python -m issl probe-weights --spec {params.spec:q} --place {params.place:q}"
        " --protocol {params.protocol:q} --seed {wildcards.seed}"
        " --data $(dirname {input.arrays[0]:q}) --out {output.scores:q} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"
