"""How training runs: length, batch, precision, logging. Defaults are the published MERU recipe.

`init_missing` lists patterns of names that `init_checkpoint` may lack, such as `model.*_head.log_scale`; everything
else has to be in the file and fit. None = whatever fits is loaded, but an encoder of which nothing fits is an error.
The log lists the differences. `init_positions`: "interpolate" resizes learned image positions to the model's
resolution, "stretch" also makes text positions as long as the model's, "exact" refuses other lengths.

`grad_cache.micro_batch = N` runs the encoders on N rows at a time, twice, and gives the gradients of the whole batch:
memory of N rows, about 4/3 of the time, no batch statistics inside an encoder. `accumulate = K` is the same with
N = the batch of a process / K, rounded up. `naive_accumulate = K` averages K separate losses of total_batch_size / K
samples each: for a contrastive loss another objective, with fewer negatives. Set at most one of the three; None, 1 and
1 are off. On several processes such a step averages its gradients without DDP, and `ddp.static_graph` has no effect.

`parallel = "fsdp"` shards weights, gradients and moments over the ranks (docs/training.md, "Weights sharded over
ranks"); with "ddp" every rank holds all of them. The result is the same.

`gather = "ring"`: keys of contrastive losses travel from process to process, so that none holds those of the whole
batch; "all" gathers them. The same gradients; terms that need all rows at once are refused.

`async_checkpoints`: periodic checkpoints are copied to the host's memory and written while training continues.

A step whose loss or gradients are not finite is skipped, and its samples are named; `max_skipped_steps` of them in a
row end the run with a checkpoint and the samples of the last one.

A rank that has waited `timeout_s` seconds for the others names the one that is late or stopped, and ends; while rank 0
writes a checkpoint or indexes data the others wait longer. After two thirds of that time without a batch the run saves
a checkpoint and ends.

`teachers` are other encoders by name (docs/training.md, "Teachers"); None = none.

`audit.every = N` logs every N steps how the embeddings use the geometry (radii, cones, order, gap); 0 = never.

`evaluate.every = N` measures the model every N steps by the suite `evaluate.config`, or `only` some of its evaluations;
`overrides` are changes to the suite. `keep_best.metric = "<evaluation>/<metric>"` keeps the checkpoint with its
greatest value (`mode="max"`) or its least ("min") as checkpoint_best.pth (docs/training.md).
"""

train = dict(
    seed=0,
    num_iterations=120_000,
    total_batch_size=2048,
    accumulate=1,
    naive_accumulate=1,
    grad_cache=dict(micro_batch=None),
    num_workers=4,
    amp="auto",
    grad_clip_norm=None,
    parallel="ddp",
    compile=False,
    gather="all",
    init_checkpoint=None,
    init_missing=None,
    init_positions="interpolate",
    teachers=None,
    checkpoint_period=5000,
    keep_checkpoints=5,
    async_checkpoints=False,
    log_period=100,
    max_skipped_steps=50,
    timeout_s=1800,
    root_samples=65_536,
    audit=dict(every=0, samples=512, aperture_factor=1.0),
    evaluate=dict(every=0, config=None, only=None, overrides=None),
    keep_best=dict(metric=None, mode="max"),
    ddp=dict(static_graph=True, broadcast_buffers=False, fp16_compression=True),
    wandb=dict(mode="disabled", project="hypvl", name=None),
)
