"""Work in units, one shard in, one shard out: claims, manifests, engines that run them."""
