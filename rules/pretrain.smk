# arrays + spec -> encoder


rule pretrain:
    input:
        arrays=lambda w: plan(w).arrays(plan(w).runs[w.run].data),
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
    container:
        IMAGE
    threads: requested("pretrain", lambda r: r.threads)
    resources:
        gpu=lambda w: resources.of_pretraining(plan(w), "gpu"),
        gres=lambda w: resources.of_pretraining(plan(w), "gres"),
        mpi=lambda w: resources.of_pretraining(plan(w), "mpi"),
        nodes=lambda w: resources.of_pretraining(plan(w), "nodes"),
        tasks=lambda w: resources.of_pretraining(plan(w), "tasks"),
        tasks_per_node=lambda w: resources.of_pretraining(plan(w), "tasks_per_node"),
        tasks_per_gpu=lambda w: resources.of_pretraining(plan(w), "tasks_per_gpu"),
        mem_mb=requested("pretrain", resources.mem_mb),
        runtime=minutes("pretrain"),
    params:
        spec=lambda w: plan(w).runs[w.run].canonical(),
        settings=settings,
        experiments=unrecorded(lambda w: ",".join(plan(w).experiments_of(w.run))),
        place=unrecorded(lambda w: plan(w).place(plan(w).runs[w.run].data)),
        # `crew` is an old name for the world size. Renaming it would change the command, and so retrain every run.
        launcher=unrecorded(lambda w: resources.launcher(plan(w))),
        crew=unrecorded(lambda w: resources.world(plan(w))),
    shell:
        "{params.launcher}python -m issl pretrain --spec {params.spec:q} --seed {wildcards.seed} --data $(dirname {input.arrays[0]:q})"
        " --place {params.place:q} --out $(dirname {output.run:q}) --experiments {params.experiments:q} --settings {params.settings:q}"
        " {params.crew} --log {log:q}"
