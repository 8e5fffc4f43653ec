# arrays + spec -> encoder


rule pretrain:
    input:
        arrays=lambda w: PLANS[w.root].arrays(w.run),
    output:
        encoder="{root}/runs/{run}/s{seed}/encoder.safetensors",
        history="{root}/runs/{run}/s{seed}/history.csv",
        run="{root}/runs/{run}/s{seed}/run.json",
    log:
        "{root}/logs/pretrain/{run}-s{seed}.log",
    benchmark:
        "{root}/benchmarks/pretrain/{run}-s{seed}.tsv"
    conda:
        "../envs/pretrain.yaml"
    threads: lambda w: PLANS[w.root].config.hardware.pretrain.threads
    resources:
        gpu=lambda w: PLANS[w.root].asks("gpu"),
        gres=lambda w: PLANS[w.root].asks("gres"),
        mpi=lambda w: PLANS[w.root].asks("mpi"),
        nodes=lambda w: PLANS[w.root].asks("nodes"),
        tasks=lambda w: PLANS[w.root].asks("tasks"),
        tasks_per_node=lambda w: PLANS[w.root].asks("tasks_per_node"),
        tasks_per_gpu=lambda w: PLANS[w.root].asks("tasks_per_gpu"),
        mem_mb=lambda w: PLANS[w.root].mem_mb("pretrain"),
        runtime=lambda w: PLANS[w.root].minutes("pretrain", w.run),
    params:
        spec=lambda w: PLANS[w.root].runs[w.run].canonical(),
        # Derived from resources, and so not compared: neither changes what comes out.
        settings=lambda w, resources: PLANS[w.root].settings(),
        experiments=lambda w, resources: ",".join(PLANS[w.root].experiments_of(w.run)),
        place=lambda w, resources: PLANS[w.root].place_of(w.run),
        # `crew` is the old name of the world: another command text would train every run again.
        launcher=lambda w, resources: PLANS[w.root].launcher(),
        crew=lambda w, resources: PLANS[w.root].world(),
    shell:
        "{params.launcher}python -m issl pretrain --spec {params.spec:q} --seed {wildcards.seed} --data $(dirname {input.arrays[0]:q})"
        " --place {params.place:q} --out $(dirname {output.run:q}) --experiments {params.experiments:q} --settings {params.settings:q}"
        " {params.crew} --log {log:q}"
