"""Gathering image-text pairs: from a list of captions and web addresses to TAR shards or a table."""
