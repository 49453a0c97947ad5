"""How training runs: length, batch, precision, logging. Defaults are the published MERU recipe.

`init_missing` lists what the model may have beyond `init_checkpoint` (names or shell patterns; everything else has to
be in the file and fit). None = whatever fits is loaded, but an encoder of which nothing fits is an error. The log says
what differed. `init_positions`: "interpolate" makes learned image positions those of the model's resolution, "stretch"
also text positions as long as the model's, "exact" refuses other lengths.

`grad_cache.micro_batch = N` runs the encoders on N rows at a time, twice, and gives the gradients of the whole batch
(no batch statistics inside an encoder): memory of N rows, about 4/3 of the time. `accumulate = K` is the same with
N = the batch of a process / K, rounded up. `naive_accumulate = K` averages K separate losses of total_batch_size / K
samples each: for a contrastive loss another objective, with fewer negatives. At most one of the three; None, 1 and 1
are off. On several processes a divided step averages its gradients without DDP (`ddp.static_graph` means nothing then).

A step whose loss or gradients are not finite is skipped; `max_skipped_steps` of them in a row end the run.

`audit.every = N` logs every N steps whether the geometry does any work (radii, cones, order, gap); 0 = never.
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
    compile=False,
    init_checkpoint=None,
    init_missing=None,
    init_positions="interpolate",
    checkpoint_period=5000,
    keep_checkpoints=5,
    log_period=100,
    max_skipped_steps=50,
    root_samples=65_536,
    audit=dict(every=0, samples=512, aperture_factor=1.0),
    ddp=dict(static_graph=True, broadcast_buffers=False, fp16_compression=True),
    wandb=dict(mode="disabled", project="hypvl", name=None),
)
